"""Figures of ranks: at the start, at the end, what changed, over seeds and over time; mask sharpness and budget."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

from callbacks.rank_pictures import layer_names, rank_grid
from common.errors import InputError
from experiments.report.content import say
from experiments.report.drawing import COLORS, legend_below, look, panels
from experiments.report.groups import Group
from experiments.report.record import RankHistory, Record
from experiments.report.statistics import Array, Interval, agreement

_MOST_COLUMNS_WITH_DIGITS = 16
_MOST_NAMED_ROWS = 32


def allocating(group: Group) -> list[Record]:
    """The group's records that allocate ranks."""
    return [record for record in group.records if record.ranks is not None]


@dataclass(frozen=True)
class RankSets:
    """The ranks of a group's seeds."""

    group: Group
    names: list[str]  # full paths of the layers
    histories: list[RankHistory]  # of each seed
    bounds: tuple[int, int]  # the lowest and the highest rank that the settings allow

    @classmethod
    def of(cls, group: Group) -> "RankSets":
        """Those of a group.

        `InputError`: a run's settings don't tell its ranks' bounds, or two runs have other layers.
        """
        records = allocating(group)
        histories = [record.ranks for record in records if record.ranks is not None]
        names = list(histories[0].layers)
        bounds = (_bound(group, "rank_min"), _bound(group, "rank_max"))
        other = next((record for record in records if record.ranks and list(record.ranks.layers) != names), None)
        if other is not None:
            raise InputError(
                f"ranks.json of {other.folder} names other layers than that of {records[0].folder}, though their "
                "settings are the same. Give the report one of these runs."
            )
        return cls(group, names, histories, bounds)

    @cached_property
    def starts(self) -> Array:
        """Continuous ranks at the start (seeds, layers)."""
        return np.asarray([history.history[0].ranks for history in self.histories], dtype=float)

    @cached_property
    def ends(self) -> Array:
        """Discrete ranks at the end (seeds, layers)."""
        return np.asarray([list(history.layers.values()) for history in self.histories], dtype=float)

    @cached_property
    def over_time(self) -> pd.DataFrame:
        """Continuous ranks, medians over seeds: a row per step, a column per layer in the order of `names`."""
        moments = [
            pd.DataFrame([m.ranks for m in one.history], [m.step for m in one.history]) for one in self.histories
        ]
        return pd.concat(moments).groupby(level=0).median()

    @property
    def extremes(self) -> tuple[float, float]:
        """The lowest and the highest rank that is drawn, as whole numbers."""
        drawn = np.concatenate([self.over_time.to_numpy().ravel(), np.median(self.ends, axis=0)])
        return float(np.floor(drawn.min())), float(np.ceil(drawn.max()))

    @property
    def seeds(self) -> str:
        return "one seed" if len(self.histories) == 1 else f"medians over {len(self.histories)} seeds"


def allocation_figures(sets: RankSets, scale: tuple[float, float]) -> Iterator[tuple[str, str, Callable[[], Figure]]]:
    """The name of each picture's file, its caption, what draws it; `scale`: the ranks at the ends of the colours."""
    caption = say("rank_maps", sets.seeds)
    if len(sets.histories) > 1:
        caption += " " + say("rank_maps_spread", agreement_text(sets.ends, sets.starts.clip(*sets.bounds)))
    yield "rank_maps", caption, lambda: _maps(sets, scale)
    yield "ranks_over_training", say("ranks_over_training", sets.seeds), lambda: _over_time(sets, scale)
    yield "ranks_by_layer_type", say("ranks_by_layer_type", sets.seeds), lambda: _by_type(sets)
    name = "mask_sharpness_and_budget"
    yield name, say(name), lambda: _alpha_and_budget(allocating(sets.group))


def _bound(group: Group, name: str) -> int:
    value = group.setting(f"model.adapter.{name}")
    if not isinstance(value, int):
        raise InputError(
            f"{group.first.folder} has a ranks.json, but its settings say that model.adapter.{name} is {value!r}; "
            "allowed: an integer. Put back its config.yaml, or move ranks.json away."
        )
    return value


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


def _agreement(found: tuple[float, Interval] | None) -> str:
    if found is None:
        return "not defined (constant ranks)"
    value, (low, high) = found
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"


def _maps(sets: RankSets, scale: tuple[float, float]) -> Figure:
    """Maps of one row order below each other: start, end, change, and over several seeds the deviation."""
    start, end = np.median(sets.starts, axis=0), np.median(sets.ends, axis=0)
    change = np.median(sets.ends - sets.starts, axis=0)
    reach = max(1.0, float(np.abs(change).max()))
    maps = [
        ("at the start", start, "viridis", *scale),
        ("at the end", end, "viridis", *scale),
        ("change, end − start", change, "RdBu_r", -reach, reach),
    ]
    if len(sets.histories) > 1:
        deviation = sets.ends.std(axis=0, ddof=1)
        maps.append(("standard deviation over seeds", deviation, "cividis", 0.0, max(1.0, float(deviation.max()))))
    layers, projections, _ = rank_grid(dict.fromkeys(sets.names, 0.0))
    height = 0.55 + max(0.24 * len(projections), 0.6)
    figure = Figure(figsize=(min(2.6 + 0.34 * len(layers), 9.6), 0.5 + height * len(maps)), layout="constrained")
    for axes, (told, values, colors, low, high) in zip(figure.subplots(len(maps), sharex=True), maps, strict=True):
        _, _, rows = rank_grid(dict(zip(sets.names, (np.round(values, 1) + 0.0).tolist(), strict=True)))  # no -0.0
        image = axes.imshow(np.array(rows, dtype=float), cmap=colors, vmin=low, vmax=high, aspect="auto")
        axes.set_yticks(range(len(projections)), projections, fontsize=8)
        axes.set_title(told, loc="left")
        ticks = [low, (low + high) / 2, high] if (high - low) % 2 == 0 else [low, high]
        figure.colorbar(image, ax=axes, aspect=8, ticks=ticks)
        if len(layers) <= _MOST_COLUMNS_WITH_DIGITS:
            _digits(axes, image, rows)
    every = -(-len(layers) // 24)
    axes.set_xticks(range(0, len(layers), every), [str(layer) for layer in layers[::every]])
    axes.set_xlabel("layer")
    return figure


def _digits(axes: Axes, image: AxesImage, rows: list[list[float | None]]) -> None:
    """Each cell's value: whole numbers as such, others to one decimal."""
    whole = all(value is None or float(value).is_integer() for row in rows for value in row)
    for y, row in enumerate(rows):
        for x, value in enumerate(row):
            if value is not None:
                red, green, blue, _ = image.to_rgba(np.array([value]))[0]
                dark = 0.3 * red + 0.6 * green + 0.1 * blue < 0.5
                told = f"{value:.0f}" if whole else f"{value:.1f}"
                axes.text(x, y, told, ha="center", va="center", fontsize=7, color="white" if dark else "black")


def _over_time(sets: RankSets, scale: tuple[float, float]) -> Figure:
    """A row per layer, those of a type together in the order of the maps, first to last."""
    told, values = layer_names(sets.names), sets.over_time.to_numpy().T  # (layers, moments)
    types = list(dict.fromkeys(name for _, name in told.values()))
    rows = sorted(range(len(sets.names)), key=lambda row: (types.index(told[sets.names[row]][1]), row))
    figure, (axes,) = panels(1, 6.8, 1.4 + min(0.17 * len(rows), 5.0))
    low, high = scale
    image = axes.imshow(values[rows], "viridis", aspect="auto", interpolation="nearest", vmin=low, vmax=high)
    steps = sets.over_time.index
    shown = range(0, len(steps), max(len(steps) // 8, 1))
    axes.set_xticks(list(shown), [str(steps[place]) for place in shown])
    _name_rows(axes, [told[sets.names[row]] for row in rows])
    axes.set_xlabel("step")
    figure.colorbar(image, ax=axes, label="rank")
    return figure


def _by_type(sets: RankSets) -> Figure:
    """A line per type of layer: final ranks from first to last layer, and continuous ones over the steps."""
    places = pd.DataFrame(layer_names(sets.names).values(), columns=["layer", "type"])
    final = places.assign(rank=np.median(sets.ends, axis=0)).pivot(index="layer", columns="type", values="rank")
    final = final[places["type"].unique()]  # in the order of the maps
    over_time = sets.over_time.T.groupby(places["type"], sort=False).mean().T
    figure, all_axes = panels(2, 9.6, 3.6)
    for axes, (told, table) in zip(all_axes, (("layer", final), ("step", over_time)), strict=True):
        drawn = [axes.plot(values.dropna(), **look(number))[0] for number, (_, values) in enumerate(table.items())]
        axes.set(xlabel=told, ylabel="rank at the end" if told == "layer" else "rank in use, mean over layers")
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
    all_axes[0].yaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
    legend_below(figure, dict(zip(final, drawn, strict=True)))
    return figure


def _name_rows(axes: Axes, rows: list[tuple[int, str]]) -> None:
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
    left.set(title="mask sharpness (alpha)", xlabel="step")
    top = 1.08 * right.dataLim.y1  # a constant budget would lie on the frame
    right.set(title="budget (adapter entries)", xlabel="step", ylim=(0, top))
    right.legend(loc="lower right")
    return figure
