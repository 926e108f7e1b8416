"""What runs were made with, and where one row mixes runs that were not made alike."""

from collections.abc import Iterable
from typing import Any

from experiments.report.groups import Group
from experiments.report.record import Record
from experiments.report.tables import Row, text


def provenance(records: list[Record]) -> list[Row]:
    """What the runs were made with; where they differ, each value with its number of runs."""
    values: dict[str, dict[str, int]] = {}
    for record in records:
        if record.results is None:
            continue
        for name, value in _facts(record, record.results).items():
            counts = values.setdefault(name, {})
            counts[value] = counts.get(value, 0) + 1
    return [{"What": name, "Value": _counted(counts)} for name, counts in values.items()] or [
        {"What": "runs", "Value": "none has finished"}
    ]


def _counted(counts: dict[str, int]) -> str:
    if len(counts) == 1:
        return next(iter(counts))
    return "; ".join(f"{value} ({_number(count)})" for value, count in counts.items())


def _number(runs: int) -> str:
    return "1 run" if runs == 1 else f"{runs} runs"


def _facts(record: Record, results: dict[str, Any]) -> dict[str, str]:
    data = results["data"]
    rows = f"{data['train_rows']:,} train, {data['validation_rows']:,} validation, {data['test_rows']:,} test rows"
    device = [str(results[name]) for name in ("device", "device_name") if results.get(name)]
    found = {
        "data": f"{data['name']}: {rows}",
        "data folder": text(record.config.get("data.data_dir")),
        "backbone": results["backbone"],
        "adapter": results["adapter"],
        "device": " ".join([*device, f"× {results.get('processes', 1)}"]),
        **{name: results.get(name) for name in ("machine", "commit", "note")},  # what a file of trials may tell
        **{f"{name} version": version for name, version in results["versions"].items()},
    }
    return {name: str(value) for name, value in found.items() if value}


def mixtures(groups: list[Group]) -> list[Row]:
    """Where runs of one row differ in more than the seed: data, versions, device; and seeds that were run twice."""
    return [
        {"Method": group.label, "What": what, "Runs": told}
        for group in groups
        for what, told in (*_mixed_facts(group), *_repeated_seeds(group))
    ]


def _mixed_facts(group: Group) -> Iterable[tuple[str, str]]:
    seeds: dict[str, dict[str, list[int]]] = {}
    for record in group.records:
        for name, value in _facts(record, record.results).items() if record.results else ():
            seeds.setdefault(name, {}).setdefault(value, []).append(record.seed)
    for name, by_value in seeds.items():
        if len(by_value) > 1:
            yield name, "; ".join(f"{value} (seed {_listed(found)})" for value, found in by_value.items())


def _repeated_seeds(group: Group) -> Iterable[tuple[str, str]]:
    folders: dict[int, list[str]] = {}
    for record in group.records:
        if record.best is not None:
            folders.setdefault(record.seed, []).append(str(record.folder))
    for seed, found in folders.items():
        if len(found) > 1:
            yield f"seed {seed}", f"run {len(found)} times, counted once with the mean: {', '.join(found)}"


def _listed(seeds: list[int]) -> str:
    return ", ".join(map(str, sorted(seeds)))
