"""The runs a report is about: read from sweep folders, run folders, folders of runs, or files of trials."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from common.errors import InputError
from experiments.report.record import Record
from experiments.report.trials_file import comparable, read_trials
from experiments.results_file import check_results, check_trial, read_results


def read_records(sources: list[Path]) -> list[Record]:
    """All runs in the folders and files of trials, each once.

    Raises:
        InputError: a source is missing or holds no run, or one of its files isn't whole.
    """
    records: dict[Path, Record] = {}
    for source in sources:
        if not source.exists():
            raise InputError(
                f"there is no folder or file {source}. Pass a sweep's folder, a run's, one that holds runs, or a file "
                "of trials."
            )
        found = _read(source) if source.is_dir() else read_trials(source)
        if not found:
            raise InputError(f"{source} holds no runs: no results.json, no sweep. Run a sweep or a fit first.")
        records |= {record.folder.resolve(): record for record in found}
    return comparable(list(records.values()))


def _read(folder: Path) -> list[Record]:
    summary = folder / "results.json"
    if summary.exists():
        content = read_results(summary)
        return _trials(summary, content["trials"]) if "trials" in content else [_run(folder)]
    if (folder / "config.yaml").exists():
        return [_run(folder)]
    return [record for inner in sorted(folder.iterdir()) if inner.is_dir() for record in _read_inner(inner)]


def _read_inner(folder: Path) -> list[Record]:
    return _read(folder) if any((folder / name).exists() for name in ("results.json", "config.yaml")) else []


def _trials(path: Path, trials: Any) -> list[Record]:
    records = []
    for entry in trials if isinstance(trials, list) else [trials]:
        name = check_trial(entry, str(path))
        results, status = entry["results"], entry.get("status")
        record = Record(
            path.parent / name,
            entry.get("method") or "",
            status or (results["status"] if results else "waiting"),
            results,
            entry["overrides"],
            entry.get("error", ""),
        )
        records.append(record)
    return [_with_likeness(record, records) for record in records]


def _with_likeness(record: Record, records: list[Record]) -> Record:
    def settings(one: Record) -> tuple[str, dict[str, Any]]:
        return one.method, {name: value for name, value in one.overrides.items() if name != "seed_everything"}

    if (record.folder / "config.yaml").exists():
        return record
    alike = (one for one in records if settings(one) == settings(record) and (one.folder / "config.yaml").exists())
    return replace(record, like=next(alike, None))


def _run(folder: Path) -> Record:
    path, failure = folder / "results.json", folder / "failure.json"
    if path.exists():
        results = read_results(path)
        check_results(results, str(path))
        return Record(folder, "", results["status"], results)
    if failure.exists():
        return Record(folder, "", "failed", None, error=str(read_results(failure).get("error", "")))
    return Record(folder, "", "begun", None)
