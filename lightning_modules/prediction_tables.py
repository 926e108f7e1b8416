"""What predict writes: tab-separated tables, in which quotation marks are text, as in GLUE's own.

Each tab and line break inside a name or a text becomes a space. A cell that a spreadsheet would take for a formula gets
an apostrophe, which spreadsheets read as "this is text".
"""

import math
import re

from common.files import FORMULA_SIGNS
from datamodules.sources import Examples
from datamodules.task import Task

_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


def answers_table(task: Task, examples: Examples, scores: dict[int, list[float]]) -> str:
    """Texts, gold labels where there are any, predicted labels and probabilities.

    `scores` are the probabilities of each row's classes, or its one predicted value.
    """
    columns = list(task.text_fields)
    if examples.labels is not None:
        columns.append("label")
    columns.append("prediction")
    columns += [f"probability_{name}" for name in task.label_names]
    lines = ["\t".join(map(as_cell, columns))]
    names = [as_cell(name) for name in task.label_names]
    for row, text in enumerate(examples.texts):
        cells = [text] if examples.pairs is None else [text, examples.pairs[row]]
        cells = [as_cell(cell) for cell in cells]
        if examples.labels is not None:
            label = examples.labels[row]
            cells.append(str(label) if task.is_regression else names[int(label)])
        values = scores[row]
        if task.is_regression:
            cells.append(f"{values[0]:.6f}")
        else:
            cells.append(names[max(range(len(values)), key=values.__getitem__)])
            cells += [f"{value:.6f}" for value in values]
        lines.append("\t".join(cells))
    return "\n".join(lines) + "\n"


def losses_table(texts: list[str], rows: list[int], scores: dict[int, list[float]]) -> str:
    """Lines of text, the tokens scored in each, their mean loss in nats, and the line's perplexity, which is e to it.

    A line without a scored token (one token, without context) has neither: these cells are empty. `rows` has the line
    that each row of the model's input is a part of, `scores` summed loss and number of scored tokens of each row.
    """
    losses, tokens = [0.0] * len(texts), [0] * len(texts)
    for row, line in enumerate(rows):
        losses[line] += scores[row][0]
        tokens[line] += int(scores[row][1])
    table = ["text\ttokens\tmean_loss_per_token\tperplexity"]
    for text, loss, count in zip(texts, losses, tokens, strict=True):
        mean = loss / max(count, 1)
        perplexity = math.exp(mean) if mean < 700 else math.inf  # beyond, math.exp raises
        figures = f"{mean:.6f}\t{perplexity:.6f}" if count else "\t"
        table.append(f"{as_cell(text)}\t{count}\t{figures}")
    return "\n".join(table) + "\n"


def as_cell(text: str) -> str:
    """The text in one line and one cell; no formula, but a number stays one."""
    text = re.sub(r"\r\n|[\t\n\r\v\f\x1c-\x1e\x85\u2028\u2029]", " ", text)
    return f"'{text}" if text.startswith(FORMULA_SIGNS) and not _NUMBER.fullmatch(text) else text
