"""Figures of ranks: at the start, over time, at the end, over seeds; alpha, budget and masks."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from callbacks.rank_pictures import layer_and_projection, mask_pictures, rank_map
from experiments.report.drawing import COLORS
from experiments.report.groups import Group
from experiments.report.record import Record
from experiments.report.statistics import stability
from lora.rank_mask import hard_tails, soft_tails, square_masks

_MOST_NAMED_ROWS = 32


def allocating(group: Group) -> list[Record]:
    """The group's records that allocate ranks."""
    return [record for record in group.records if record.ranks is not None]


def rank_figures(group: Group) -> Iterator[tuple[str, str, Figure]]:
    """Name, caption and figure of each picture of a group's ranks, means over its seeds."""
    records = allocating(group)
    names = list(_ranks(records[0])["layers"])
    low, high = int(group.setting("model.adapter.rank_min")), int(group.setting("model.adapter.rank_max"))
    starts = np.asarray([_ranks(record)["history"][0]["ranks"] for record in records], dtype=float)
    ends = np.asarray([list(_ranks(record)["layers"].values()) for record in records], dtype=float)
    seeds = f"{len(records)} seed{'s' if len(records) > 1 else ''}"
    for when, values in (("start", starts), ("end", ends)):
        means = dict(zip(names, values.mean(0).tolist(), strict=True))
        whole = bool((values.mean(0) % 1 == 0).all())
        picture = rank_map(means, low, high, f"rank at the {when}", decimals=0 if whole else 1)
        yield f"ranks_{when}", f"Ranks at the {when}: mean over {seeds}.", picture
    if len(records) > 1:
        spread = ends.std(0, ddof=1)
        deviations, highest = dict(zip(names, spread.tolist(), strict=True)), max(int(np.ceil(spread.max())), 1)
        picture = rank_map(deviations, 0, highest, "deviation over seeds", "standard deviation of the rank", 1)
        yield "ranks_spread", f"Final ranks: standard deviation over {seeds}. {stability_text(ends)}", picture
    yield (
        "ranks_over_time",
        f"Continuous ranks over training, layer by layer: seed {records[0].seed}.",
        _over_time(records[0]),
    )
    yield "alpha_and_budget", f"Alpha, and the budget asked for and used: {seeds}.", _alpha_and_budget(records)
    yield from _masks(records[0], low, high)


def stability_text(ends: object) -> str:
    """How alike the seeds' final ranks are, in a sentence."""
    correlation, deviation = stability(ends)  # type: ignore[arg-type]
    if deviation is None:
        return ""
    told = "not defined (constant ranks)" if correlation is None else f"{correlation:.2f}"
    return f"Rank correlation between seeds {told} (1: the same layers win; 0: chance), deviation {deviation:.1f}."


def _ranks(record: Record) -> dict:
    assert record.ranks is not None
    return record.ranks


def _over_time(record: Record) -> Figure:
    content = _ranks(record)
    names, history = list(content["layers"]), content["history"]
    order = sorted(range(len(names)), key=lambda place: layer_and_projection(names[place])[::-1])
    values = np.asarray([entry["ranks"] for entry in history], dtype=float).T[order]  # (layers, moments)
    figure = Figure(figsize=(6.8, 1.4 + min(0.17 * len(names), 5.0)), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(values, aspect="auto", cmap="viridis", interpolation="nearest")
    shown = range(0, len(history), max(len(history) // 8, 1))
    axes.set_xticks(list(shown), [str(history[moment]["step"]) for moment in shown])
    _name_rows(axes, [layer_and_projection(names[place]) for place in order])
    axes.set_xlabel("step")
    figure.colorbar(image, ax=axes, label="rank")
    return figure


def _name_rows(axes: Any, rows: list[tuple[int, str]]) -> None:
    """Each row's layer and projection; with many rows the projections alone, with lines between them."""
    if len(rows) <= _MOST_NAMED_ROWS:
        axes.set_yticks(range(len(rows)), [f"{projection} {layer}" for layer, projection in rows], fontsize=7)
        return
    projections = list(dict.fromkeys(projection for _, projection in rows))
    places = {name: [row for row, (_, other) in enumerate(rows) if other == name] for name in projections}
    axes.set_yticks([sum(found) / len(found) for found in places.values()], projections)
    for found in list(places.values())[1:]:
        axes.axhline(found[0] - 0.5, color="white", lw=1.5)
    axes.set_ylabel("layers, first to last, of each projection")


def _alpha_and_budget(records: list[Record]) -> Figure:
    figure = Figure(figsize=(7.2, 3.0), layout="constrained")
    left, right = figure.add_subplot(1, 2, 1), figure.add_subplot(1, 2, 2)
    for number, record in enumerate(records):
        history = _ranks(record)["history"]
        steps = [entry["step"] for entry in history]
        first = number == 0
        left.plot(steps, [entry["alpha"] for entry in history], color=COLORS[0], marker=".", lw=1)
        right.plot(
            steps, [entry["budget"] for entry in history], color=COLORS[0], lw=1.5, label="asked for" if first else None
        )
        used = record.metrics_table.get("allocation/budget_used")
        if used:
            when, values = zip(*used, strict=True)
            right.plot(when, values, ".", color=COLORS[1], ms=4, label="used by discrete ranks" if first else None)
    left.set_title("alpha", fontsize=10)
    right.set_title("budget (entries of R)", fontsize=10)
    right.set_ylim(0, 1.08 * right.dataLim.y1)  # a constant budget would lie on the frame
    right.legend(loc="lower right")
    for axes in (left, right):
        axes.set_xlabel("step")
    return figure


def _masks(record: Record, low: int, high: int) -> Iterator[tuple[str, str, Figure]]:
    content = _ranks(record)
    names = list(content["layers"])
    chosen = sorted({0, len(names) // 4, len(names) // 2, 3 * len(names) // 4, len(names) - 1})
    start = content["history"][0]
    soft = soft_tails(torch.tensor(start["ranks"])[chosen].float(), start["alpha"], low, high)
    hard = hard_tails(torch.tensor(list(content["layers"].values()))[chosen], high)
    for when, tails in (("start", soft), ("end", hard)):
        caption = f"Masks of five layers at the {when}, 0 black to 1 white: seed {record.seed}."
        yield f"masks_{when}", caption, mask_pictures(square_masks(tails), [names[place] for place in chosen])
