"""What trained models say when they are loaded again: answers row by row, and the metric at smaller budgets."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from common.errors import InputError
from common.terminal import logger
from experiments.report.cells import make_table, scale, title
from experiments.report.content import PageSection, PageTable, Paragraph, Part, Pictures, Study, say
from experiments.report.drawing import COLORS, INK, count_axis, panels
from experiments.report.record import Record

Item = TypeVar("Item")

MOST_ROWS = 2000  # evaluated again
_MOST_HALVINGS = 8
_MOST_TOLD = 12  # rows of a table
_BINS = 10
_LONGEST = 300  # characters of a text


def evaluation_sections(
    study: Study, evaluate: bool | None, budgets: list[int] | None, pictures: Pictures
) -> Iterator[PageSection]:
    """What models loaded again say: the best setting's answers, and one run's metric at smaller budgets.

    Rows are answered again if `evaluate`, or with None where there is one run alone; `budgets` are to be cut to: halves
    of what the run used, if empty. `InputError`: it was asked for, and a run has no checkpoint, or its backbone or data
    are missing.
    """
    best = max(study.compared, key=lambda group: group.score)
    runs = [record for record in best.records if record.results is not None]
    is_one = len(study.records) == len(runs) == 1
    if budgets is not None:
        if not is_one:
            told = "one that hasn't finished" if len(study.records) == 1 else f"{len(study.records)} runs"
            raise InputError(f"--budgets cuts one finished run, and the report is of {told}. Give that run's folder.")
        curve = budget_curve(runs[0], budgets)
        parts = pictures.draw("metric_against_budget", say("budgets"), lambda: _budget_figure(curve))
        tell = dict(zip(curve, ("{:,}".format, "{:.2f}".format, "{:.4f}".format), strict=True))
        table = PageTable("Smaller budgets", curve.apply(lambda column: column.map(tell[column.name])))
        yield PageSection("budgets", "The metric at smaller budgets", [*parts, table])
    if evaluate or (evaluate is None and is_one and runs[0].folder.is_dir()):
        try:
            found = [answered(record) for record in runs]
            shown = answer_parts([one for one in found if one is not None], pictures)
        except InputError as error:
            if evaluate:
                raise
            shown = [Paragraph(say("answers_failed", error), "warning")]
        yield PageSection("answers", "Answers, row by row", shown)


@dataclass(frozen=True, eq=False)
class Answered:
    """A run's answers."""

    seed: int
    split: str  # test, or validation where the test has no labels
    rows: pd.DataFrame  # text, label, answer, loss and confidence (the answer's probability; NaN for numbers), by row
    of: int  # rows of the whole split
    classes: tuple[str, ...]  # names of the labels; empty for numbers


def answered(record: Record) -> Answered | None:
    """The answers of a run's best checkpoint to at most `MOST_ROWS` rows; None for language models."""
    import torch  # here, so that a report of results alone doesn't wait for it

    run = _loaded(record)
    module, data = run.module, run.data
    if not hasattr(data, "evaluated_split"):
        return None
    split, examples = data.evaluated_split
    loader = (data.test_dataloader() if data.has_labelled_test else data.val_dataloader())[0]
    found = []
    for batch in _some_of(loader, len(examples)):
        with torch.no_grad():
            logits, labels = module(batch["inputs"]), batch["labels"]
        if data.class_names:
            confidence, answers = logits.softmax(dim=-1).max(dim=-1)
            losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
        else:
            answers = logits.squeeze(-1)
            losses, confidence = (answers - labels) ** 2, torch.full_like(answers, float("nan"))
        columns = zip(batch["row"], labels, answers, losses, confidence, strict=True)
        found += [tuple(value.item() for value in row) for row in columns]
    rows = pd.DataFrame(found, columns=["row", "label", "answer", "loss", "confidence"]).set_index("row")
    pairs = examples.pairs or [""] * len(examples)
    texts = [f"{examples.texts[row]} ⏐ {pairs[row]}".removesuffix(" ⏐ ") for row in rows.index]
    return Answered(record.seed, split, rows.assign(text=texts).sort_index(), len(examples), data.class_names)


def budget_curve(record: Record, budgets: list[int]) -> pd.DataFrame:
    """Validation figures of a run cut to budgets (`lora.export.cut_factors`): columns Budget, the metric × 100, loss.

    `InputError`: the adapter can't be cut, or a budget is more than the run used.
    """
    import torch

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
            with torch.no_grad():
                run.module.evaluate_batch(batch, split)
        figures = run.module.split_figures(split)
        found.append((budget, scale(name) * float(figures[name]), float(figures["loss"])))
    return pd.DataFrame(found, columns=["Budget", title(name), "loss"])


def _loaded(record: Record) -> Any:
    from experiments.run import Run  # transformers take seconds

    logger.info(f"Loading the best checkpoint of {record.folder}.")
    return Run.open(str(record.folder), verb="validate").load("best")


def _some_of(loader: Iterable[Item], rows: int) -> Iterator[Item]:
    """Every so-many-th batch: batches hold rows of similar length, so that short and long ones are among them."""
    return islice(iter(loader), 0, None, int(np.ceil(rows / MOST_ROWS)))


def answer_parts(found: list[Answered], pictures: Pictures) -> list[Part]:
    """The parts of the section on the answers of one setting's seeds; a word where there are none."""
    if not found:
        return [Paragraph(say("answers_none"))]
    first = found[0]
    rows = pd.concat({one.seed: one.rows for one in found}, names=["seed", "row"])
    whose = "the best checkpoint" if len(found) == 1 else f"the best checkpoints of {len(found)} seeds"
    share = f"{len(first.rows):,}" if len(first.rows) == first.of else f"{len(first.rows):,} of {first.of:,}"
    parts: list[Part] = [Paragraph(say("answers", share, first.split, whose))]
    if first.classes:
        caption = say("answers_classes", calibration_error(rows))
        parts += pictures.draw("confusion_and_calibration", caption, lambda: _classes(rows, first.classes))
    else:
        parts += pictures.draw("answers_against_labels", say("answers_numbers"), lambda: _numbers(rows))
    hardest = rows.groupby("row")["loss"].mean().nlargest(_MOST_TOLD)
    table = _table(rows, hardest.index, first.classes, "Answer").assign(Loss=hardest.map("{:.2f}".format).to_numpy())
    parts += [Paragraph(say("answers_hardest")), PageTable("Rows with the largest loss", table)]
    if len(found) > 1 and first.classes:
        parts += _between_seeds(rows, first.classes)
    return parts


def calibration_error(rows: pd.DataFrame) -> float:
    """Expected calibration error: mean |share right − confidence| over equal bins, weighted by their rows."""
    bins = _calibration(rows)
    return float((bins["rows"] * (bins["right"] - bins["confidence"]).abs()).sum() / bins["rows"].sum())


def _calibration(rows: pd.DataFrame) -> pd.DataFrame:
    """Share of right answers, mean confidence and rows of each bin of confidence that has rows."""
    right = rows.assign(right=rows["label"] == rows["answer"])
    bins = pd.cut(rows["confidence"], np.linspace(0, 1, _BINS + 1))
    return right.groupby(bins, observed=True).agg(
        right=("right", "mean"), confidence=("confidence", "mean"), rows=("right", "size")
    )


def confusion(rows: pd.DataFrame, classes: tuple[str, ...]) -> pd.DataFrame:
    """Rows by label (down) and answer (across)."""
    numbers = range(len(classes))
    found = pd.crosstab(rows["label"], rows["answer"]).reindex(index=numbers, columns=numbers, fill_value=0)
    return found.set_axis(classes, axis=0).set_axis(classes, axis=1)


def _classes(rows: pd.DataFrame, classes: tuple[str, ...]) -> Figure:
    figure, (left, right) = panels(2, 8.4, 3.8)
    counts = confusion(rows, classes)
    shares = counts.div(counts.sum(axis=1).clip(lower=1), axis=0).to_numpy()
    left.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (label, answer), share in np.ndenumerate(shares):
        color = "white" if share > 0.5 else "black"
        left.text(answer, label, f"{share:.2f}\n{counts.iat[label, answer]:,}", ha="center", va="center", color=color)
    left.set_xticks(range(len(classes)), classes, rotation=0 if len(classes) < 4 else 45)
    left.set_yticks(range(len(classes)), classes)
    left.set(xlabel="answer", ylabel="label")
    bins = _calibration(rows)
    right.plot([0, 1], [0, 1], color=INK, ls=":", lw=1)
    right.plot(bins["confidence"], bins["right"], color=COLORS[0])
    right.scatter(bins["confidence"], bins["right"], 20 + 200 * bins["rows"] / bins["rows"].sum(), COLORS[0])
    right.set(xlim=(1 / len(classes), 1), ylim=(0, 1.03), xlabel="confidence", ylabel="share of right answers")
    return figure


def _numbers(rows: pd.DataFrame) -> Figure:
    figure, (axes,) = panels(1, 4.8, 4.2)
    axes.plot(rows["label"], rows["answer"], ".", color=COLORS[0], alpha=0.4)
    ends = [rows["label"].min(), rows["label"].max()]
    axes.plot(ends, ends, color=INK, ls=":", lw=1)
    axes.set(xlabel="label", ylabel="answer")
    return figure


def _table(rows: pd.DataFrame, shown: pd.Index, classes: tuple[str, ...], answers: str) -> pd.DataFrame:
    """Text, label and answers of some rows; `answers` is their column's title."""
    first = rows.groupby("row").first()

    def name(label: float) -> str:
        return classes[int(label)] if classes else f"{label:.2f}"

    def told(found: pd.Series) -> str:
        if not classes or found.nunique() == 1:
            return name(found.mean())
        return ", ".join(f"{name(answer)} ({number})" for answer, number in found.value_counts().items())

    return make_table(
        shown,
        {
            "Text": lambda row: f"{text[:_LONGEST]}…" if len(text := first.loc[row, "text"]) > _LONGEST else text,
            "Label": lambda row: name(first.loc[row, "label"]),
            answers: lambda row: told(rows.xs(row, level="row")["answer"]),
        },
    )


def _between_seeds(rows: pd.DataFrame, classes: tuple[str, ...]) -> list[Part]:
    """The rows that seeds answer differently, those with the most even split first."""
    most = rows.groupby("row")["answer"].agg(lambda answers: answers.value_counts().iloc[0] / len(answers))
    split = most[most < 1].sort_values(kind="stable")
    told = say("answers_differ", len(split), len(most), len(split) / len(most))
    if split.empty:
        return [Paragraph(told)]
    table = _table(rows, split.index[:_MOST_TOLD], classes, "Answers of the seeds")
    return [Paragraph(f"{told} {say('answers_most_even')}"), PageTable("Rows that seeds answer differently", table)]


def _budget_figure(curve: pd.DataFrame) -> Figure:
    """The metric against the budget that the run's update is cut to; dotted: the whole update."""
    figure, (axes,) = panels(1, 6.4, 4.0)
    metric = curve.columns[1]
    axes.plot(curve["Budget"], curve[metric], "o-", color=COLORS[0])
    axes.axhline(curve[metric].iloc[0], color=INK, ls=":", lw=1)
    count_axis(axes, "budget, adapter entries")
    axes.set_ylabel(f"validation {metric}")
    return figure
