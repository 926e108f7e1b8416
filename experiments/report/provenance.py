"""What runs were made with, and where one row mixes runs that were not made alike."""

from collections.abc import Iterable, Iterator

import pandas as pd

from experiments.report.cells import counted, make_table, text
from experiments.report.groups import Group
from experiments.report.record import Record


def provenance(records: list[Record]) -> pd.DataFrame:
    """What the runs were made with; where they differ, each value with its number of runs."""
    told = {name: _counted(found) for name, found in _by_fact(records).items()} or {"runs": "none has finished"}
    return pd.DataFrame({"What": told.keys(), "Value": told.values()})


def _counted(runs: dict[str, list[Record]]) -> str:
    if len(runs) == 1:
        return next(iter(runs))
    return "; ".join(f"{value} ({counted(len(found), 'run')})" for value, found in runs.items())


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
    return make_table(found, {"Method": lambda row: row[0], "What": lambda row: row[1], "Runs": lambda row: row[2]})


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
