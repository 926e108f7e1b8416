"""What trained models say when they are loaded again: answers row by row, and the metric at smaller budgets."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.nn import functional

from common.errors import InputError
from common.terminal import logger
from experiments.report.cells import scale, title
from experiments.report.content import Paragraph, Pictures, Section, Study, Table, say
from experiments.report.figures_answers import answer_parts, budget_figure, budget_table
from experiments.report.record import Record

MOST_ROWS = 2000  # evaluated again
_MOST_HALVINGS = 8


def evaluation_sections(
    study: Study, evaluate: bool | None, budgets: list[int] | None, pictures: Pictures
) -> Iterator[Section]:
    """What models loaded again say: the best setting's answers, and one run's metric at smaller budgets.

    Args:
        evaluate: whether rows are answered again; None: where there is one run alone.
        budgets: to cut to; halves of what the run used, if empty; None cuts nothing.

    Raises:
        InputError: it was asked for, and a run has no checkpoint, or its backbone or data are missing.
    """
    best = max(study.compared, key=lambda group: group.score)
    runs = [record for record in best.records if record.results is not None]
    is_one = len(study.records) == len(runs) == 1
    if budgets is not None:
        if not is_one:
            told = "one that hasn't finished" if len(study.records) == 1 else f"{len(study.records)} runs"
            raise InputError(f"--budgets cuts one finished run, and the report is of {told}. Give that run's folder.")
        curve = budget_curve(runs[0], budgets)
        parts = pictures.draw("metric_against_budget", say("budgets"), lambda: budget_figure(curve))
        table = Table("Smaller budgets", budget_table(curve))
        yield Section("budgets", "The metric at smaller budgets", [*parts, table])
    if evaluate or (evaluate is None and is_one and runs[0].folder.is_dir()):
        try:
            found = [answered(record) for record in runs]
            shown = answer_parts([one for one in found if one is not None], pictures)
        except InputError as error:
            if evaluate:
                raise
            shown = [Paragraph(say("answers_failed", error), "warning")]
        yield Section("answers", "Answers, row by row", shown)


@dataclass(frozen=True, eq=False)
class Answered:
    """A run's answers.

    Attributes:
        split: test, or validation where the test has no labels.
        rows: text, label, answer, loss and confidence (the answer's probability; NaN for numbers), by row.
        of: rows of the whole split.
        classes: names of the labels; empty for numbers.
    """

    seed: int
    split: str
    rows: pd.DataFrame
    of: int
    classes: tuple[str, ...]


@torch.no_grad()
def answered(record: Record) -> Answered | None:
    """The answers of a run's best checkpoint to at most `MOST_ROWS` rows; None for language models."""
    run = _loaded(record)
    module, data = run.module, run.data
    if not hasattr(data, "evaluated_split"):
        return None
    split, examples = data.evaluated_split
    loader = (data.test_dataloader() if data.has_labelled_test else data.val_dataloader())[0]
    found = []
    for batch in _some_of(loader, len(examples)):
        logits, labels = module(batch["inputs"]), batch["labels"]
        if data.class_names:
            confidence, answers = logits.softmax(dim=-1).max(dim=-1)
            losses = functional.cross_entropy(logits, labels, reduction="none")
        else:
            answers = logits.squeeze(-1)
            losses, confidence = (answers - labels) ** 2, torch.full_like(answers, float("nan"))
        columns = zip(batch["row"], labels, answers, losses, confidence, strict=True)
        found += [tuple(value.item() for value in row) for row in columns]
    rows = pd.DataFrame(found, columns=["row", "label", "answer", "loss", "confidence"]).set_index("row")
    pairs = examples.pairs or [""] * len(examples)
    texts = [f"{examples.texts[row]} ⏐ {pairs[row]}".removesuffix(" ⏐ ") for row in rows.index]
    return Answered(record.seed, split, rows.assign(text=texts).sort_index(), len(examples), data.class_names)


@torch.no_grad()
def budget_curve(record: Record, budgets: list[int]) -> pd.DataFrame:
    """Validation figures of a run cut to budgets (`lora.export.cut_factors`): columns Budget, the metric × 100, loss.

    Raises:
        InputError: the adapter can't be cut, or a budget is more than the run used.
    """
    from experiments.export_formats import cut_update

    assert record.results is not None
    run, name = _loaded(record), record.results.metric.name
    best = (record.results.at_best_epoch or record.results).budget  # of best.ckpt, which is cut
    used = best.used if best else record.results.trainable_parameters.adapter
    wanted = sorted(set(budgets) or {int(used // 2**power) for power in range(_MOST_HALVINGS)}, reverse=True)
    split, loader = run.data.validation_names[0], run.data.val_dataloader()[0]
    found: list[tuple[int, float, float]] = []
    for budget in wanted:
        try:
            cut_update(run, budget)
        except InputError:
            if budgets or not found:
                raise
            break  # less than one entry a layer
        for batch in _some_of(loader, record.results.data.validation_rows):
            run.module.evaluate_batch(batch, split)
        figures = run.module.split_figures(split)
        found.append((budget, scale(name) * float(figures[name]), float(figures["loss"])))
    return pd.DataFrame(found, columns=["Budget", title(name), "loss"])


def _loaded(record: Record) -> Any:
    from experiments.run import Run  # transformers take seconds

    logger.info(f"Loading the best checkpoint of {record.folder}.")
    return Run.open(str(record.folder), verb="validate").load("best")


def _some_of(loader: Any, rows: int) -> Iterator[Any]:
    """Every so-many-th batch: batches hold rows of similar length, so that short and long ones are among them."""
    return islice(iter(loader), 0, None, int(np.ceil(rows / MOST_ROWS)))
