"""The runs a report is about: read from sweep folders, run folders, or folders of runs."""

import csv
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from common.errors import InputError
from common.files import is_plain_name
from experiments.config_files import flatten, read_yaml
from experiments.results_file import check_results, read_results

STATUSES = ("finished", "collapsed", "diverged", "budget_missed", "failed", "begun", "waiting")


@dataclass(frozen=True)
class Record:
    """One run, finished or not.

    Attributes:
        folder: its run folder.
        method: the sweep's name for it; empty where there is none.
        status: finished, collapsed, diverged, budget_missed, failed, begun or waiting.
        results: its results.json, or None.
        overrides: what the sweep set.
        error: why it failed.
        like: another seed of the same settings, which tells them when the run came to nothing before it wrote its own.
    """

    folder: Path
    method: str
    status: str
    results: dict[str, Any] | None
    overrides: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    like: "Record | None" = None

    @cached_property
    def config(self) -> dict[str, Any]:
        """config.yaml by command-line name, without init_args; what is known of it where there is none yet."""
        path = self.folder / "config.yaml"
        if not path.exists():
            return {**self.like.config, "seed_everything": self.seed} if self.like else dict(self.overrides)
        return {name.replace(".init_args.", "."): value for name, value in flatten(read_yaml(path)).items()}

    @cached_property
    def ranks(self) -> dict[str, Any] | None:
        """ranks.json of a run that allocates ranks."""
        path = self.folder / "ranks.json"
        content = read_results(path) if path.exists() else None
        return content if content and content["history"] else None

    @cached_property
    def metrics_table(self) -> dict[str, list[tuple[int, float]]]:
        """metrics.csv: (step, value) pairs by metric."""
        path = self.folder / "metrics.csv"
        columns: dict[str, list[tuple[int, float]]] = {}
        if not path.exists():
            return columns
        try:
            with path.open(newline="", encoding="utf-8") as file:
                for row in csv.DictReader(file):
                    for name, text in row.items():
                        if name and name != "step" and text:
                            columns.setdefault(name, []).append((int(row["step"]), float(text)))
        except (ValueError, KeyError, TypeError, csv.Error) as error:
            raise InputError(f"{path} can't be read ({error}): it was changed by hand. Delete this file.") from error
        return columns

    @property
    def seed(self) -> int:
        known = self.overrides if "seed_everything" in self.overrides or self.like else self.config
        seed = self.results["seed"] if self.results else known.get("seed_everything", 0)
        return int(seed or 0)

    @property
    def metric(self) -> dict[str, Any] | None:
        """Name, best, best_epoch and last of the validation metric; None without results."""
        return self.results["metric"] if self.results else None

    @property
    def best(self) -> float | None:
        return self.results["metric"]["best"] if self.results else None

    @property
    def last(self) -> float | None:
        return self.results["metric"]["last"] if self.results else None

    @property
    def test(self) -> float | None:
        """The test figure under the validation metric's name."""
        if not self.results or not self.results.get("test"):
            return None
        return self.results["test"].get(self.results["metric"]["name"])


def read_records(folders: list[Path]) -> list[Record]:
    """All runs in the folders, each once.

    Raises:
        InputError: a folder is missing or holds no run, or one of its files isn't whole.
    """
    records: dict[Path, Record] = {}
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"there is no folder {folder}. Pass a sweep's folder, a run's, or one that holds runs.")
        found = _read(folder)
        if not found:
            raise InputError(f"{folder} holds no runs: no results.json, no sweep. Run a sweep or a fit first.")
        records |= {record.folder.resolve(): record for record in found}
    return list(records.values())


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
        if not isinstance(entry, dict) or not {"results", "overrides"} <= entry.keys():
            raise InputError(f"{path} isn't what a sweep writes. Delete this file and run the sweep again.")
        name = str(entry.get("name") or (entry["results"] or {}).get("run_name"))
        if not is_plain_name(name):
            raise InputError(f"{path} names the trial {name!r}; allowed: folders inside it.")
        results, status = entry["results"], entry.get("status")
        if results is not None:
            check_results(results, f"{path} (trial {name})")
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
