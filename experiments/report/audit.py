"""What runs were made with, where one row mixes runs that weren't made alike, and what makes a comparison unfair."""

from collections.abc import Iterable, Iterator
from itertools import combinations, groupby

import pandas as pd

from experiments.report.cells import counted, make_table, text
from experiments.report.groups import (
    NOT_STUDIED,
    RANK,
    RANK_AVERAGE,
    RATES,
    SAME_BUDGET,
    Curve,
    Group,
    alike,
    setting_words,
    short,
)
from experiments.report.optimum import curve_optimum
from experiments.report.record import Record

_BUDGETS = (RANK, RANK_AVERAGE, "model.adapter.budget")
_IN_COLUMNS = ("model.adapter", "model.adapter.class_path", "model.adapter.rank_min", "model.adapter.rank_max")
Finding = tuple[str, list[str]]  # a fault, and the rows it concerns


def provenance(records: list[Record]) -> pd.DataFrame:
    """What the runs were made with; where they differ, each value with its number of runs."""

    def told(runs: dict[str, list[Record]]) -> str:
        if len(runs) == 1:
            return next(iter(runs))
        return "; ".join(f"{value} ({counted(len(found), 'run')})" for value, found in runs.items())

    values = {name: told(found) for name, found in _by_fact(records).items()} or {"runs": "none has finished"}
    return pd.DataFrame({"What": values.keys(), "Value": values.values()})


def _by_fact(records: Iterable[Record]) -> dict[str, dict[str, list[Record]]]:
    """What runs were made with -> the values it had -> the runs that had them."""
    found: dict[str, dict[str, list[Record]]] = {}
    for record in records:
        for name, value in _facts(record).items():
            found.setdefault(name, {}).setdefault(value, []).append(record)
    return found


def _facts(record: Record) -> dict[str, str]:
    """What a run with results was made with, by name; a file of trials may tell machine, commit and a note."""
    results = record.results
    if results is None:
        return {}
    data = results.data
    rows = f"{data.train_rows:,} train, {data.validation_rows:,} validation, {data.test_rows:,} test rows"
    device = [name for name in (results.device, results.device_name) if name]
    found = {
        "data": f"{data.name}: {rows}",
        "data folder": text(record.config.get("data.data_dir")),
        "backbone": results.backbone,
        "adapter": results.adapter,
        "device": " ".join([*device, f"× {results.processes}"]),
        **{name: text(results.other.get(name)) for name in ("machine", "commit", "note")},
        **{f"{name} version": version for name, version in results.versions.items()},
    }
    return {name: value for name, value in found.items() if value}


def mixtures(groups: list[Group]) -> pd.DataFrame:
    """Where runs of one row differ in more than the seed: data, versions, device; and seeds that were run twice."""
    found = [(group.label, *told) for group in groups for told in (*_mixed_facts(group), *_repeated_seeds(group))]
    return pd.DataFrame(found, columns=["Method", "What", "Runs"], dtype=str)


def _mixed_facts(group: Group) -> Iterator[tuple[str, str]]:
    for name, by_value in _by_fact(group.records).items():
        if len(by_value) > 1:
            seeds = {value: sorted(record.seed for record in found) for value, found in by_value.items()}
            yield name, "; ".join(f"{value} (seed {str(found)[1:-1]})" for value, found in seeds.items())


def _repeated_seeds(group: Group) -> Iterator[tuple[str, str]]:
    folders: dict[int, list[str]] = {}
    for record in group.records:
        if record.figure("best") is not None:
            folders.setdefault(record.seed, []).append(str(record.folder))
    for seed, found in folders.items():
        if len(found) > 1:
            yield f"seed {seed}", f"run {len(found)} times, counted once with the mean: {', '.join(found)}"


def untold_settings(groups: list[Group]) -> list[str]:
    """What sets rows of one method apart only because the runs of one don't tell it, as older files may not."""
    found: dict[str, None] = {}
    for one, other in combinations([group for group in groups if group.results], 2):
        ours, others = one.first.config, other.first.config
        untold = sorted((ours.keys() ^ others.keys()).difference(NOT_STUDIED))
        told = (ours.keys() & others.keys()).difference(NOT_STUDIED)
        if one.method == other.method and untold and all(ours[name] == others[name] for name in told):
            found |= dict.fromkeys(untold)
    return list(found)


def method_table(groups: list[Group]) -> pd.DataFrame:
    """What the methods' names stand for: the adapter, and the settings by which methods that have them differ."""
    methods = {group.method: [one for one in groups if one.method == group.method] for group in groups if group.results}
    if len(methods) < 2 or "" in methods:
        return pd.DataFrame()
    settings: dict[str, dict[str, str]] = {}  # by method: those that its runs share
    for method, found in methods.items():
        shared = {name for name in found[0].first.config if len({repr(group.setting(name)) for group in found}) == 1}
        told = {name: found[0].setting(name) for name in shared.difference(NOT_STUDIED, RATES, _BUDGETS, _IN_COLUMNS)}
        settings[method] = {name: short(value) for name, value in told.items() if value not in (None, "None")}
    names = sorted({name for own in settings.values() for name in own})
    differing = [name for name in names if len({own[name] for own in settings.values() if name in own}) > 1]
    words = setting_words(differing)
    return make_table(
        methods,
        {
            "Name": str,
            "Adapter": lambda method: ", ".join({group.results[0].adapter: 0 for group in methods[method]}),
            "Settings in which methods differ": lambda method: ", ".join(
                f"{words[name]} {settings[method][name]}" for name in differing if name in settings[method]
            ),
        },
    )


def audit_table(
    groups: list[Group], curves: list[Curve], compared: list[Group], baseline: Group | None
) -> pd.DataFrame:
    """A row per fault; empty for a clean study. The arguments are a `Study`'s, `curves` its swept ones."""
    found = [_edges(curves, baseline)]
    for same in _by_measure(groups):
        found.append(_tries([*same, *(group for group in groups if group.was_paused and not group.results)]))
    for same in _by_measure(compared):
        found += [_budgets(same, baseline), *_counts(same), *_splits(same)]
    rows = [(fault, "; ".join(concerned)) for fault, concerned in found if concerned]
    return pd.DataFrame(rows, columns=["Not fair", "Rows"], dtype=str)


def _by_measure(groups: list[Group]) -> Iterable[list[Group]]:
    """Groups with results, those that can be compared together."""
    measured = sorted((group for group in groups if group.results), key=lambda group: str(group.measure))
    return (list(found) for _, found in groupby(measured, key=lambda group: group.measure))


def _edges(curves: list[Curve], baseline: Group | None) -> Finding:
    rows = []
    for curve in curves:
        scores = curve.scores()
        tried = [rate for rate, group in curve.groups.items() if rate in scores or group.was_paused]
        place = next((place for place, rate in enumerate(tried) if curve.groups[rate] is curve.chosen), 0)
        if len(tried) < 2 or 0 < place < len(tried) - 1 or curve_optimum(scores).place == "flat":
            continue
        edge = "of two rates" if len(tried) == 2 else "upper edge" if place else "lower edge"
        whose = ", the baseline" if baseline in curve.groups.values() else ""
        rows.append(f"{curve.label} ({tried[place]:g}, {edge}{whose})")
    return "the best rate lies at the edge of its grid: a better one may lie outside", rows


def _tries(groups: list[Group]) -> Finding:
    tries = {label: len(found) for label, found in alike(groups, RATES) if any(group.results for group in found)}
    fewest = min(tries.values())
    rows = [f"{label} ({count})" for label, count in tries.items() if count > fewest]
    return f"more learning rates were tried than for others, which had {fewest}", rows


def _budgets(groups: list[Group], baseline: Group | None) -> Finding:
    """Where ranks vary within a method, budgets are what is studied; full fine-tuning has none."""
    by_method: dict[str, set[str]] = {}
    for group in groups:
        by_method.setdefault(group.method, set()).add(repr([group.setting(name) for name in _BUDGETS]))
    used = {group: group.entries for group in groups if not group.is_full}
    if len(used) < 2 or any(len(settings) > 1 for settings in by_method.values()):
        return "", []
    middle = sorted(used.values())[(len(used) - 1) // 2] if baseline not in used else used[baseline]
    other = {group.label: budget for group, budget in used.items() if abs(budget - middle) > SAME_BUDGET * middle}
    whose = "the baseline's" if baseline in used else "the median"
    fault = f"the budget used is more than 2 % from {whose}, {middle:,.0f} adapter entries"
    return fault, [f"{label} ({budget:,.0f})" for label, budget in other.items()]


def _counts(groups: list[Group]) -> Iterator[Finding]:
    """Parameters and passes that one side has and the other lacks."""
    without = [group.label for group in groups if not any(one.trainable_parameters.head for one in group.results)]
    yield "a head is trained and counted for the others only", without if len(without) < len(groups) else []
    passes = {group: max(one.factors.rows if one.factors else 0 for one in group.results) for group in groups}
    rows = [f"{group.label} ({count:,} rows)" for group, count in passes.items() if count]
    yield "passes over data before training, which the others lack", rows if len(rows) < len(groups) else []


def _splits(groups: list[Group]) -> Iterator[Finding]:
    choosing = [group for group in groups if any(len(results.val_losses or []) > 1 for results in group.results)]
    untested = [group.label for group in choosing if group.values("test").empty]
    yield "no test figure: the best epoch was chosen on the split it is reported on", untested
    both = {group.label: (group.values("test") - group.values("best")).dropna() for group in choosing}
    same = [label for label, differences in both.items() if len(differences) > 1 and not differences.any()]
    yield "the test split gives the validation's figures: epochs were chosen on it", same
