"""Pictures of ranks and masks, as matplotlib figures without a display."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

if TYPE_CHECKING:  # a report draws ranks without loading torch
    from torch import Tensor

_BESIDE = 2.6  # inches for the projections' names and the colour bar
_CELL = 0.42  # inches of a cell with a readable rank


def layer_and_projection(path: str) -> tuple[int, str]:
    """Splits a module path at its last number: encoder.layer.3.attention.self.query -> (3, attention.self.query)."""
    _, number, after = _split(path, -1)
    return number, after


def layer_names(paths: Iterable[str]) -> dict[str, tuple[int, str]]:
    """Layer number and projection of each module path; no two paths get the same pair.

    The number is a path's last one. Where two paths would collide (T5's encoder.block.1.layer.0.SelfAttention.q and
    encoder.block.2.layer.0.SelfAttention.q), it is the first one; where they still do (BART's encoder.layers.0.fc1 and
    decoder.layers.0.fc1), the projection also tells what is before the number: "encoder fc1".
    """
    first = {path: _split(path, 0) for path in paths}
    shared = set.intersection(*(set(before) for before, _, _ in first.values())) if first else set()
    told = {path: ".".join(part for part in before if part not in shared) for path, (before, _, _) in first.items()}
    ways = (
        {path: layer_and_projection(path) for path in first},
        {path: (number, after) for path, (_, number, after) in first.items()},
        {path: (number, f"{told[path]} {after}".strip()) for path, (_, number, after) in first.items()},
    )
    distinct = (names for names in ways if len(set(names.values())) == len(names))
    return next(distinct, {path: (0, path) for path in first})


def _split(path: str, which: int) -> tuple[list[str], int, str]:
    """What is before a number of the path, the number, and what is after it; 0 and the path itself without one."""
    components = path.split(".")
    numbered = [place for place, component in enumerate(components) if component.isdigit()]
    if not numbered:
        return [], 0, path
    place = numbered[which]
    return components[:place], int(components[place]), ".".join(components[place + 1 :])


def rank_grid(ranks: dict[str, float]) -> tuple[list[int], list[str], list[list[float | None]]]:
    """Ranks by module path as a table: layer numbers, projections, and one row of ranks per projection."""
    names = layer_names(ranks)
    places = {names[path]: rank for path, rank in ranks.items()}
    layers = sorted({layer for layer, _ in places})
    projections = list(dict.fromkeys(projection for _, projection in places))
    return layers, projections, [[places.get((layer, name)) for layer in layers] for name in projections]


def rank_map(ranks: dict[str, float], rank_min: int, rank_max: int, title: str, width: float | None = None) -> Figure:
    """A heat map, projection by layer, with the rank in each cell, in colours from rank_min to rank_max.

    Args:
        ranks: by module path; one beyond the bounds has the colour of an arrow at that end of the colour bar.
        width: inches; by default as wide as all cells need. Where they don't fit, there are colours alone.
    """
    layers, projections, rows = rank_grid({path: round(rank, 0) for path, rank in ranks.items()})
    needed = _BESIDE + _CELL * len(layers)
    figure = Figure(figsize=(width or needed, 1.4 + _CELL * len(projections)), layout="constrained")
    axes = figure.add_subplot()
    values = [[float("nan") if rank is None else rank for rank in row] for row in rows]
    colors = colormaps["viridis"].with_extremes(under="black", over="red")
    image = axes.imshow(values, cmap=colors, vmin=rank_min, vmax=rank_max, aspect="auto")
    has_room = width is None or width >= needed
    named = range(0, len(layers), 1 if has_room else -(-len(layers) // 8))
    axes.set_xticks(named, [str(layers[place]) for place in named])
    axes.set_yticks(range(len(projections)), projections)
    axes.set_xlabel("layer")
    figure.suptitle(title)
    for y, row in enumerate(rows):
        for x, rank in enumerate(row):
            if rank is not None and has_room:
                color = "white" if rank < (rank_min + rank_max) / 2 or rank > rank_max else "black"
                axes.text(x, y, f"{rank:.0f}", ha="center", va="center", fontsize=10, color=color)
    known = [rank for row in rows for rank in row if rank is not None]
    beyond = (min(known) < rank_min, max(known) > rank_max)
    extend = {(True, True): "both", (True, False): "min", (False, True): "max"}.get(beyond, "neither")
    figure.colorbar(image, ax=axes, label="rank", extend=extend, ticks=MaxNLocator("auto", integer=True))
    return figure


def mask_pictures(masks: "Tensor", names: list[str]) -> Figure:
    """A few soft masks (layers, r, r), or rows of them (layers, 1, r), two beside each other, black 0 to white 1."""
    told = layer_names(names)
    rows = -(-len(names) // 2)
    figure = Figure(figsize=(4.6, 0.4 + 2.3 * rows), layout="constrained")
    for place, (mask, name) in enumerate(zip(masks.cpu().numpy(), names, strict=True)):
        axes = figure.add_subplot(rows, 2, place + 1)
        axes.imshow(mask, cmap="gray", vmin=0, vmax=1, aspect="equal" if len(mask) > 1 else "auto")
        layer, projection = told[name]
        axes.set_title(f"layer {layer}\n{projection}", fontsize=11)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set(color="tab:orange", linewidth=2)  # white masks would run into a white page
    return figure
