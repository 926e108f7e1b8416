"""Could another rule stop early and spend less? Other rungs and margins, on every way to draw the seeds again."""

from collections.abc import Callable
from itertools import product

import numpy as np
import pandas as pd

from experiments.report.replay import Replay
from experiments.report.statistics import Array
from experiments.sweep.early_exit import Rung, rungs

_MARGINS = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0)  # over √rows
_RULE = ["rungs", "margin", "better half goes on", "margin shrinks with seeds"]


def _seed_by_seed(seeds: int, epochs: int) -> list[Rung]:
    return [*rungs(1, epochs), *(Rung(seed, epochs) for seed in range(2, seeds + 1))]


def _first_epoch_first(seeds: int, epochs: int) -> list[Rung]:
    return [*(Rung(seed, 1) for seed in range(1, seeds)), *(Rung(seeds, epoch) for epoch in range(1, epochs + 1))]


_LADDERS: dict[str, Callable[[int, int], list[Rung]]] = {
    "as now: a quarter, half and all of the first seed, then all seeds": rungs,
    "the same, then one seed after another": _seed_by_seed,
    "the first epoch of one seed after another, then each epoch of all": _first_epoch_first,
    "each epoch of all seeds": lambda seeds, epochs: [Rung(seeds, epoch) for epoch in range(1, epochs + 1)],
}


def _race(curves: Array, ladder: list[Rung], margin: float, half: bool, shrinks: bool) -> tuple[bool, float]:
    """Whether the winner is the full sweep's, and the share of steps spent."""
    spent, alive = np.zeros(curves.shape[:2]), np.arange(curves.shape[1])
    for rung in ladder:
        spent[: rung.seeds, alive] = np.maximum(spent[: rung.seeds, alive], rung.epochs)
        reached, means = alive, curves[: rung.seeds, alive, rung.epochs - 1].mean(axis=0)
        kept = means >= means.max() - margin / np.sqrt(rung.seeds if shrinks else 1)
        kept[np.argsort(-means, kind="stable")[: -(-len(alive) // 2) * half]] = True
        alive = alive[kept]
    full = curves[:, :, -1].mean(axis=0)
    return bool(full[reached[np.argmax(means)]] == full.max()), float(spent.mean() / curves.shape[2])


def rules_table(searches: list[tuple[str, Replay]]) -> pd.DataFrame:
    """The cheapest rule of each ladder that keeps the winner in 95 % of resamples of every search.

    Args:
        searches: each with its sweep's name.
    """
    found = []
    for sweep, search in searches:
        curves, (seeds, _, epochs) = search.curves, search.curves.shape
        draws = [curves[list(draw)] for draw in product(range(seeds), repeat=seeds)]
        for rule in product(_LADDERS, _MARGINS, (True, False), (True, False)):
            ladder, margin, half, shrinks = rule
            steps = _LADDERS[ladder](seeds, epochs)
            outcomes = [_race(draw, steps, margin / np.sqrt(search.rows), half, shrinks) for draw in draws]
            found.append((*rule, sweep, curves.size, *np.mean(outcomes, axis=0)))
    table = pd.DataFrame(found, columns=[*_RULE, "sweep", "size", "same", "spent"]).assign(
        all=lambda t: t.spent * t["size"]
    )
    rules = table.groupby(_RULE, sort=False).agg({"same": "min", "all": "sum", "size": "sum"})
    rules["mean"] = table.groupby([*_RULE, "sweep"], sort=False)["spent"].mean().groupby(_RULE, sort=False).mean()
    kept = rules[rules.same >= 0.95].reset_index()
    best = kept.loc[kept.groupby("rungs", sort=False)["mean"].idxmin()].set_index("rungs")
    told = pd.DataFrame(
        {
            "margin": best.margin.map("{:g}/√rows".format),
            **{title: best[title].map({True: "yes", False: "no"}) for title in _RULE[2:]},
            "same winner, worst search": best.same.map("{:.0%}".format),
            "spent, mean of the sweeps": best["mean"].map("{:.0%}".format),
            "of all their epochs": (best["all"] / best["size"]).map("{:.0%}".format),
        }
    )
    return told.reindex(_LADDERS, fill_value="none").reset_index()
