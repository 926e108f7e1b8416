"""Pictures of ranks and masks, as matplotlib figures without a display."""

from collections.abc import Iterable

from matplotlib.figure import Figure
from torch import Tensor


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


def rank_map(
    ranks: dict[str, float], rank_min: int, rank_max: int, title: str, label: str = "rank", decimals: int = 0
) -> Figure:
    """A heat map, projection by layer, with the rank in each cell.

    Args:
        ranks: by module path.
        rank_min: lower end of the colours; rank_max the upper one.
        title: above the map.
        label: what the values are, beside the colours.
        decimals: digits after the point in the cells, for means and deviations.
    """
    layers, projections, rows = rank_grid(ranks)
    figure = Figure(figsize=(2.6 + 0.42 * len(layers), 1.4 + 0.42 * len(projections)), layout="constrained")
    axes = figure.add_subplot()
    values = [[float("nan") if rank is None else rank for rank in row] for row in rows]
    image = axes.imshow(values, cmap="viridis", vmin=rank_min, vmax=rank_max, aspect="auto")
    axes.set_xticks(range(len(layers)), [str(layer) for layer in layers])
    axes.set_yticks(range(len(projections)), projections)
    axes.set_xlabel("layer")
    axes.set_title(title)
    middle = (rank_min + rank_max) / 2
    for y, row in enumerate(rows):
        for x, rank in enumerate(row):
            if rank is not None:
                color = "white" if rank < middle else "black"
                axes.text(x, y, f"{rank:.{decimals}f}", ha="center", va="center", fontsize=8, color=color)
    figure.colorbar(image, ax=axes, label=label)
    return figure


def mask_pictures(masks: Tensor, names: list[str]) -> Figure:
    """A few soft masks (layers, r, r), or rows of them (layers, 1, r), side by side, black 0 to white 1."""
    told = layer_names(names)
    figure = Figure(figsize=(2.4 * len(names), 2.7), layout="constrained")
    for place, (mask, name) in enumerate(zip(masks.cpu().numpy(), names, strict=True)):
        axes = figure.add_subplot(1, len(names), place + 1)
        axes.imshow(mask, cmap="gray", vmin=0, vmax=1, aspect="equal" if len(mask) > 1 else "auto")
        layer, projection = told[name]
        axes.set_title(f"layer {layer}\n{projection}", fontsize=8)
        axes.set_xticks([])
        axes.set_yticks([])
    return figure
