"""Figures of ranks: at the start, over time, at the end, over seeds; alpha, budget and masks."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from callbacks.rank_pictures import layer_names, mask_pictures, rank_map
from common.errors import InputError
from experiments.report.drawing import COLORS, MARKERS, legend_below, panels
from experiments.report.groups import Group
from experiments.report.record import RankHistory, Record
from experiments.report.statistics import Agreement, Array, agreement
from lora.rank_mask import hard_tails, soft_tails, square_masks

_MOST_NAMED_ROWS = 32


def allocating(group: Group) -> list[Record]:
    """The group's records that allocate ranks."""
    return [record for record in group.records if record.ranks is not None]


def allocation_figures(group: Group) -> Iterator[tuple[str, str, Figure]]:
    """Name, caption and figure of each picture of a group's ranks, means over its seeds.

    Raises:
        InputError: a run's settings don't tell its ranks' bounds, or two runs have other layers.
    """
    records = allocating(group)
    histories = [record.ranks for record in records if record.ranks is not None]
    names = list(histories[0].layers)
    low, high = (_bound(group, name) for name in ("rank_min", "rank_max"))
    _check_layers(records, names)
    starts = np.asarray([history.history[0].ranks for history in histories], dtype=float)
    ends = np.asarray([list(history.layers.values()) for history in histories], dtype=float)
    seeds = f"{len(records)} seed{'s' if len(records) > 1 else ''}"
    for when, values in (("start", starts), ("end", ends)):
        means = dict(zip(names, values.mean(0).tolist(), strict=True))
        whole = bool((values.mean(0) % 1 == 0).all())
        picture = rank_map(means, low, high, f"rank at the {when}", decimals=0 if whole else 1)
        yield f"ranks_{when}", f"Ranks at the {when}: mean over {seeds}.", picture
    if len(records) > 1:
        spread = ends.std(0, ddof=1)
        deviations, highest = dict(zip(names, spread.tolist(), strict=True)), max(int(np.ceil(spread.max())), 1)
        told = agreement_text(ends, starts.clip(low, high))
        picture = rank_map(deviations, 0, highest, "deviation over seeds", "standard deviation of the rank", 1)
        yield "ranks_spread", f"Final ranks: standard deviation over {seeds}. {told}", picture
    caption = f"Continuous ranks over training, layer by layer: seed {records[0].seed}."
    yield "ranks_over_time", caption, _over_time(histories[0])
    yield "ranks_by_type", f"Mean rank of each type of layer: {seeds}.", _by_type(names, histories, ends)
    yield "alpha_and_budget", f"Alpha, and the budget asked for and used: {seeds}.", _alpha_and_budget(records)
    for when, picture in _masks(histories[0], low, high):
        caption = f"Masks of five layers at the {when}, 0 black to 1 white: seed {records[0].seed}."
        yield f"masks_{when}", caption, picture


def _bound(group: Group, name: str) -> int:
    value = group.setting(f"model.adapter.{name}")
    if not isinstance(value, int):
        raise InputError(
            f"{group.first.folder} has a ranks.json, but its settings say that model.adapter.{name} is {value!r}; "
            "allowed: an integer. Put back its config.yaml, or move ranks.json away."
        )
    return value


def _check_layers(records: list[Record], names: list[str]) -> None:
    for record in records:
        if record.ranks is not None and list(record.ranks.layers) != names:
            raise InputError(
                f"ranks.json of {record.folder} names other layers than that of {records[0].folder}, though their "
                "settings are the same. Give the report one of these runs."
            )


def agreement_text(ends: Array, starts: Array) -> str:
    """How much of a rank map is signal, in a sentence: see `agreement_parts`."""
    told = ", ".join(f"{name} {found}" for name, found in agreement_parts(ends, starts).items())
    return f"Rank correlation between seeds (1: the same layers win; 0: chance) {told}."


def agreement_parts(ends: Array, starts: Array) -> dict[str, str]:
    """Agreement of seeds' ranks (seeds, layers) at the end, of a frozen allocation, and of what training changed.

    A frozen allocation ends where it starts, so the starts of the same seeds tell what it would score.
    """
    parts = {"at the end": agreement(ends), "of a frozen allocation": agreement(starts)}
    if np.abs(ends - starts).max() >= 1:  # else rounding is all there is
        parts["of what training changed"] = agreement(ends, starts)
    return {name: _agreement(found) for name, found in parts.items()}


def _agreement(found: Agreement) -> str:
    if found.value is None or found.interval is None:
        return "not defined (constant ranks)"
    return f"{found.value:.2f} [{found.interval[0]:.2f}, {found.interval[1]:.2f}]"


def _over_time(content: RankHistory) -> Figure:
    names, moments = layer_names(content.layers), content.history
    rows = sorted(enumerate(names.values()), key=lambda row: row[1][::-1])
    values = np.asarray([moment.ranks for moment in moments], dtype=float).T  # (layers, moments)
    figure, (axes,) = panels(1, 6.8, 1.4 + min(0.17 * len(names), 5.0))
    ordered = values[[place for place, _ in rows]]
    image = axes.imshow(ordered, aspect="auto", cmap="viridis", interpolation="nearest")
    shown = range(0, len(moments), max(len(moments) // 8, 1))
    axes.set_xticks(list(shown), [str(moments[place].step) for place in shown])
    _name_rows(axes, [name for _, name in rows])
    axes.set_xlabel("step")
    figure.colorbar(image, ax=axes, label="rank")
    return figure


def _by_type(names: list[str], histories: list[RankHistory], ends: Array) -> Figure:
    """A line per type of layer: final ranks from first to last layer, and continuous ones over the steps."""
    places = pd.DataFrame(layer_names(names).values(), columns=["layer", "type"])
    final = places.assign(rank=ends.mean(0)).pivot(index="layer", columns="type", values="rank")
    moments = [pd.DataFrame([m.ranks for m in one.history], [m.step for m in one.history]) for one in histories]
    over_time = pd.concat(moments).groupby(level=0).mean().T.groupby(places["type"]).mean().T
    figure, all_axes = panels(2, 9.6, 3.6)
    for axes, (told, table) in zip(all_axes, (("layer", final), ("step", over_time)), strict=True):
        lines = [
            axes.plot(values.dropna(), marker=MARKERS[number % len(MARKERS)], color=COLORS[number % len(COLORS)])[0]
            for number, (_, values) in enumerate(table.items())
        ]
        axes.set_xlabel(told)
        axes.set_ylabel("rank at the end" if told == "layer" else "continuous rank, mean over layers")
    legend_below(figure, lines, list(final))
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
    figure, (left, right) = panels(2, 7.2, 3.0)
    for number, record in enumerate(records):
        moments = record.ranks.history if record.ranks else []
        steps = [moment.step for moment in moments]
        asked, used = ("asked for", "used by discrete ranks") if number == 0 else (None, None)
        left.plot(steps, [moment.alpha for moment in moments], color=COLORS[0], marker=".", lw=1)
        right.plot(steps, [moment.budget for moment in moments], color=COLORS[0], lw=1.5, label=asked)
        budgets = record.metrics.get("allocation/budget_used")
        if budgets is not None:
            right.plot(budgets.index, budgets.to_numpy(), ".", color=COLORS[1], ms=4, label=used)
    left.set_title("alpha", fontsize=10)
    right.set_title("budget (entries of R)", fontsize=10)
    right.set_ylim(0, 1.08 * right.dataLim.y1)  # a constant budget would lie on the frame
    right.legend(loc="lower right")
    for axes in (left, right):
        axes.set_xlabel("step")
    return figure


def _masks(content: RankHistory, low: int, high: int) -> Iterator[tuple[str, Figure]]:
    names = list(content.layers)
    chosen = sorted({0, len(names) // 4, len(names) // 2, 3 * len(names) // 4, len(names) - 1})
    start = content.history[0]
    soft = soft_tails(torch.tensor(start.ranks)[chosen].float(), start.alpha, low, high)
    hard = hard_tails(torch.tensor(list(content.layers.values()))[chosen], high)
    for when, tails in (("start", soft), ("end", hard)):
        yield when, mask_pictures(square_masks(tails), [names[place] for place in chosen])
