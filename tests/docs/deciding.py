"""The tables of docs/deciding_trials.md, made from the published trials: `python -m tests.docs.deciding`."""

import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from common.files import write_text
from experiments.report.answer import improvement, verdict
from experiments.report.audit import audit_table
from experiments.report.cells import make_table, without_empty_columns
from experiments.report.content import Study, make_study
from experiments.report.drawing import style, write_png
from experiments.report.figures_ranks import agreement_parts
from experiments.report.figures_rates import law_figure
from experiments.report.optimum import find_optimum
from experiments.report.rate_forecast import forecast_table, forecasts
from experiments.report.rate_law import Point, fit_law, law_table, left_out, points_of
from experiments.report.replay import Replay, replays
from experiments.report.statistics import deviation_limit, holm, pairs_for_power, power
from experiments.report.tables import comparable, comparisons
from experiments.sweep.early_exit import least_share
from experiments.sweep.question import Question
from tests.docs.early_exit_rules import rules_table
from tests.docs.published import RESULTS, filled, records

PAGE = RESULTS.parent / "deciding_trials.md"
_ALPHA_RANGE = ("alpha_growth.alpha_min", "alpha_growth.alpha_max", "model.optimizer.schedule")
_RATE_SWEEPS = ("ag_news_minilm_learning_rate", "ag_news_minilm_alpha_10r")
_RATE_SWEEPS += ("wikitext_smollm2_learning_rate", "wikitext_smollm2_alpha_10r")
_REPLAYED = dict.fromkeys((*_RATE_SWEEPS, "ag_news_minilm_rates", "cola_mpnet_rates", "sst2_minilm_rates"), ())
_REPLAYED |= dict.fromkeys(("sst2_minilm_allocation_rates", "directions_sst2_rates", "wikitext_stories_early_exit"), ())
_REPLAYED |= {"cola_mpnet_alpha_range": _ALPHA_RANGE, "sst2_minilm_alpha_range": _ALPHA_RANGE}
_COLA = {
    "the fixed rank's rate, seeds 0 to 4": ("cola_mpnet_equal_budget",),
    "half of it, seeds 0 to 4": ("cola_mpnet_lower_rate",),
    "half of it, seeds 5 to 9": ("cola_mpnet_fresh_seeds",),
    "half of it, all ten": ("cola_mpnet_lower_rate", "cola_mpnet_fresh_seeds"),
}
_PUBLIC = Path(__file__).parents[1] / "reference" / "tinker_sft_rates.csv"


@cache
def study(*names: str, baseline: str | None = None) -> Study:
    """The runs of published files, put in order."""
    return make_study(records(names), baseline)


@cache
def published() -> dict[str, Study]:
    """All published studies, each with its baseline if it has one."""
    found = {}
    for path in sorted(RESULTS.glob("*.json")):
        if '"trials": [' in path.read_text(encoding="utf-8"):
            methods = {record.method for record in records((path.stem,))}
            found[path.stem] = study(path.stem, baseline=next((m for m in ("fixed", "full") if m in methods), None))
    return found


def _range(values: list[float]) -> str:
    """Lowest and highest share, or one where they print alike."""
    return " to ".join(dict.fromkeys(f"{value:.0%}" for value in (min(values), max(values))))


@cache
def _replays() -> list[tuple[str, list[Replay]]]:
    return [(name, replays(study(name).groups, searched)) for name, searched in _REPLAYED.items()]


def rules() -> pd.DataFrame:
    return rules_table([(name, one) for name, searches in _replays() for one in searches])


def replay() -> pd.DataFrame:
    found = _replays()
    spent = np.mean([np.mean([one.spent for one in searches]) for _, searches in found])
    least = np.mean([np.mean([least_share(*one.curves.shape) for one in searches]) for _, searches in found])
    every = [one for _, searches in found for one in searches]
    epochs = [one.curves.size for one in every]
    spent_of_all = np.average([one.spent for one in every], weights=epochs)
    least_of_all = np.average([least_share(*one.curves.shape) for one in every], weights=epochs)
    table = make_table(
        found,
        {
            "sweep": lambda row: row[0],
            "seeds × settings × epochs": lambda row: "; ".join(
                dict.fromkeys(" × ".join(map(str, one.curves.shape)) for one in row[1])
            ),
            "same winner": lambda row: _range([one.same for one in row[1]]),
            "steps spent": lambda row: _range([one.spent for one in row[1]]),
            "least possible": lambda row: _range([least_share(*one.curves.shape) for one in row[1]]),
        },
    )
    table.loc[len(table)] = ["mean of the sweeps", "", "", f"{spent:.0%}", f"{least:.0%}"]
    table.loc[len(table)] = ["all their epochs together", "", "", f"{spent_of_all:.0%}", f"{least_of_all:.0%}"]
    return table


def power_of_cola() -> pd.DataFrame:
    rows = []
    for label, names in _COLA.items():
        for figure, title in (("best", "best epoch"), ("test", "test")):
            question = Question(("adaptive_softmax", "fixed"), figure, 1.0)
            found = improvement(question, study(*names).groups, study(*names).compared)
            rows.append((f"{label}: {title}", question, found, float(found.by_seed.std())))
    return make_table(
        rows,
        {
            "pilot": lambda row: row[0],
            "seeds": lambda row: str(row[2].pairs),
            "deviation of differences": lambda row: f"{row[3]:.2f}",
            "power for +1.0": lambda row: f"{power(row[3], 1.0, row[2].pairs):.0%}",
            "seeds for 80 % power": lambda row: str(pairs_for_power(row[3], 1.0)),
            "by the 80 % limit": lambda row: str(pairs_for_power(deviation_limit(row[3], row[2].pairs), 1.0)),
            "answer": lambda row: verdict(row[1], row[2]).partition(": ")[2].partition(f", {row[2].pairs} ")[0] + ")",
        },
    )


def multiplicity() -> pd.DataFrame:
    rows = []
    for name, one in published().items():
        groups = comparable(one.compared, one.baseline) if one.baseline else []
        found = [c for group in groups for c in comparisons(group, one.baseline) if c.difference.pairs > 1]
        if len(found) > 1:
            corrected = holm(c.difference.p_value for c in found)
            kept = [c for c, p in zip(found, corrected, strict=True) if p < 0.05]
            better, worse = (
                "; ".join(dict.fromkeys(c.group.method for c in kept if sign * c.difference.mean > 0)) or "none"
                for sign in (one.baseline.sign, -one.baseline.sign)
            )
            low = sum(c.difference.p_value < 0.05 for c in found)
            rows.append((name, str(len(found)), str(low), str(len(kept)), better, worse))
    titles = ("study", "comparisons", "p below 0.05", "after Holm's correction", "better", "worse")
    return pd.DataFrame(rows, columns=titles, dtype=str)


def _points() -> list[Point]:
    return points_of(study(*_RATE_SWEEPS).records)


def public_points() -> list[Point]:
    """Optima inside their grids in the public table, an intercept for each model; alpha is constant there."""
    found = []
    for (model, rank), rows in pd.read_csv(_PUBLIC).groupby(["model", "rank"], sort=False):
        optimum = find_optimum(rows["rate"], -rows["nll"])
        if optimum.place == "inside":
            found.append(Point(model, f"rank {rank}", rank, 32 / rank, float(np.log10(optimum.rate)), np.nan))
    return found


def law() -> pd.DataFrame:
    tables = {"published sweeps": law_table(fit_law(_points())), "public table": law_table(fit_law(public_points()))}
    tables["public table"].iloc[:, 0] = "rank, alpha as it is"
    return pd.concat([table.assign(source=name) for name, table in tables.items()])[["source", *tables["public table"]]]


def ranks_left_out() -> pd.DataFrame:
    """By how much the law misses each rank, in the published sweeps and in the public table."""
    rows = []
    for source, points in (("published sweeps", _points()), ("public table", public_points())):
        found = left_out(points)
        rank = found["Left out"].str.extract(r"rank (\d+)", expand=False).astype(int)
        off = found["Off by"].str.rstrip("×").astype(float).groupby(rank)
        rows += [(source, str(name), str(len(one)), f"{one.median():.2f}×", f"{one.max():.2f}×") for name, one in off]
    return pd.DataFrame(rows, columns=["source", "rank left out", "curves", "off by, median", "largest"])


def forecast() -> pd.DataFrame:
    return forecast_table(forecasts(_points()))


def audit() -> pd.DataFrame:
    """Each fault, and the studies that have it with the number of their rows."""
    found: dict[str, list[str]] = {}
    for name, one in published().items():
        faults = audit_table(one.groups, one.curves if one.is_rate_study else [], one.compared, one.baseline)
        told = [(fault.partition(", ")[0], len(rows.split("; "))) for fault, rows in faults.to_numpy()]
        for fault, rows in told or [("nothing", 0)]:
            found.setdefault(fault, []).append(f"{name} ({rows})" if rows else name)
    return make_table(found.items(), {"not fair": lambda row: row[0], "studies (rows)": lambda row: "; ".join(row[1])})


def signal() -> pd.DataFrame:
    rows = []
    for group in study("cola_mpnet_equal_budget").groups:
        ranks = [[one.other.get(name) for one in group.results] for name in ("final_ranks", "start_ranks")]
        if all(one is not None for found in ranks for one in found) and group.results[0].budget:
            ends, starts = (np.array(found, dtype=float) for found in ranks)
            rows.append({"method": group.method, **agreement_parts(ends, starts.clip(4, 19))})
    return pd.DataFrame(rows).fillna("nothing moved")


TABLES: dict[str, Callable[[], pd.DataFrame]] = {
    **{made.__name__: made for made in (replay, rules, multiplicity, law, forecast, audit, signal)},
    **{"power": power_of_cola, "left_out": ranks_left_out},
}


def with_tables(page: str) -> str:
    """The page with its tables made anew."""
    return filled(page, lambda name: without_empty_columns(TABLES[name]()))


def main() -> int:
    """Writes the tables into the page, and draws the law."""
    with style():
        write_png(law_figure(fit_law(_points())), RESULTS / "learning_rate_law.png")
    write_text(PAGE, with_tables(PAGE.read_text(encoding="utf-8")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
