"""How a model's answers are shown: confusion matrix, calibration, the rows it gets most wrong, where seeds differ."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments.report.cells import make_table
from experiments.report.content import Paragraph, Part, Pictures, Table, say
from experiments.report.drawing import COLORS, INK, count_axis, panels

if TYPE_CHECKING:
    from experiments.report.evaluation import Answered

_MOST_ROWS = 12  # of a table
_BINS = 10
_LONGEST = 300  # characters of a text


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
    hardest = rows.groupby("row")["loss"].mean().nlargest(_MOST_ROWS)
    table = _table(rows, hardest.index, first.classes, "Answer").assign(Loss=hardest.map("{:.2f}".format).to_numpy())
    parts += [Paragraph(say("answers_hardest")), Table("Rows with the largest loss", table)]
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
    return make_table(
        shown,
        {
            "Text": lambda row: _shortened(first.loc[row, "text"]),
            "Label": lambda row: _name(first.loc[row, "label"], classes),
            answers: lambda row: _answers_told(rows.xs(row, level="row")["answer"], classes),
        },
    )


def _between_seeds(rows: pd.DataFrame, classes: tuple[str, ...]) -> list[Part]:
    """The rows that seeds answer differently, those with the most even split first."""
    most = rows.groupby("row")["answer"].agg(lambda answers: answers.value_counts().iloc[0] / len(answers))
    split = most[most < 1].sort_values(kind="stable")
    told = say("answers_differ", len(split), len(most), len(split) / len(most))
    if split.empty:
        return [Paragraph(told)]
    table = _table(rows, split.index[:_MOST_ROWS], classes, "Answers of the seeds")
    return [Paragraph(f"{told} {say('answers_most_even')}"), Table("Rows that seeds answer differently", table)]


def _answers_told(answers: pd.Series, classes: tuple[str, ...]) -> str:
    if not classes:
        return _name(answers.mean(), classes)
    if answers.nunique() == 1:
        return _name(answers.iloc[0], classes)
    counts = answers.value_counts()
    return ", ".join(f"{_name(answer, classes)} ({number})" for answer, number in counts.items())


def _name(label: float, classes: tuple[str, ...]) -> str:
    return classes[int(label)] if classes else f"{label:.2f}"


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def budget_figure(curve: pd.DataFrame) -> Figure:
    """The metric against the budget that the run's update is cut to; dotted: the whole update."""
    figure, (axes,) = panels(1, 6.4, 4.0)
    metric = curve.columns[1]
    axes.plot(curve["Budget"], curve[metric], "o-", color=COLORS[0])
    axes.axhline(curve[metric].iloc[0], color=INK, ls=":", lw=1)
    count_axis(axes, "budget, adapter entries")
    axes.set_ylabel(f"validation {metric}")
    return figure


def budget_table(curve: pd.DataFrame) -> pd.DataFrame:
    """The same as text."""
    metric = curve.columns[1]
    columns = {"Budget": "{:,}".format, metric: "{:.2f}".format, "loss": "{:.4f}".format}
    return pd.DataFrame({name: curve[name].map(tell) for name, tell in columns.items()})
