"""What runs were made with, and where one row mixes runs that were not made alike."""

from collections import Counter
from collections.abc import Iterable, Iterator

import pandas as pd

from experiments.report.cells import make_table, text
from experiments.report.groups import Group
from experiments.report.record import Record


def provenance(records: list[Record]) -> pd.DataFrame:
    """What the runs were made with; where they differ, each value with its number of runs."""
    counts: dict[str, Counter[str]] = {}
    for record in records:
        for name, value in _facts(record).items():
            counts.setdefault(name, Counter())[value] += 1
    told = {name: _counted(found) for name, found in counts.items()} or {"runs": "none has finished"}
    return pd.DataFrame({"What": told.keys(), "Value": told.values()})


def _counted(counts: Counter[str]) -> str:
    if len(counts) == 1:
        return next(iter(counts))
    return "; ".join(f"{value} ({count} run{'s' if count > 1 else ''})" for value, count in counts.items())


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
    return make_table(found, {"Method": lambda row: row[0], "What": lambda row: row[1], "Runs": lambda row: row[2]})


def _mixed_facts(group: Group) -> Iterator[tuple[str, str]]:
    seeds: dict[str, dict[str, list[int]]] = {}
    for record in group.records:
        for name, value in _facts(record).items():
            seeds.setdefault(name, {}).setdefault(value, []).append(record.seed)
    for name, by_value in seeds.items():
        if len(by_value) > 1:
            yield name, "; ".join(f"{value} (seed {_listed(found)})" for value, found in by_value.items())


def _repeated_seeds(group: Group) -> Iterator[tuple[str, str]]:
    folders: dict[int, list[str]] = {}
    for record in group.records:
        if record.figure("best") is not None:
            folders.setdefault(record.seed, []).append(str(record.folder))
    for seed, found in folders.items():
        if len(found) > 1:
            yield f"seed {seed}", f"run {len(found)} times, counted once with the mean: {', '.join(found)}"


def _listed(seeds: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(seeds)))
