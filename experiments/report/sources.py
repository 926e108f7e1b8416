"""The runs a report is about: read from sweep folders, run folders, folders of runs, or files of trials.

A file of trials is kept with a paper or a repository; `write_trials` writes it. It holds what tables and figures need
of results.json, config.yaml, metrics.csv and ranks.json: no norms by layer, no weights, and of paths on the machine
that trained only what tells them apart. A sweep's own results.json is such a list, too, beside its runs' folders.
"""

import json
import os
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from common.errors import InputError
from common.files import finite, is_plain_name, load_json, write_text
from experiments.config_files import flatten
from experiments.report.record import Config, RankHistory, Record, read_files, read_run, with_later_settings
from experiments.results import RunResults
from experiments.typed_json import Part, WrongPartError, read_json

# What is alike in most studies, and told once then.
_SHARED = ("data", "backbone", "width", "versions", "device", "device_name", "processes")
_DRAWN = ("train/epoch_loss", "allocation/budget_used")
# Where a run lay, and its name: settings of a machine, not of a study.
_OF_THE_MACHINE = ("runs_dir", "run_name")
_NOT_TRIALS = (OSError, ValueError, TypeError)


@dataclass(frozen=True, kw_only=True)
class ListedTrial(Part):
    """One trial of a list; a sweep's results.json has no settings, metrics and ranks, which lie in the run's folder."""

    name: str | None = None
    method: str | None = None
    status: str | None = None
    overrides: Config
    settings: Config = field(default_factory=dict)  # config.yaml by command-line name, without what all trials share
    # the trial's results.json, without what all trials share; None where it came to nothing
    results: dict[str, Any] | None
    # (step, value) pairs of each metric that is drawn; None for a value that is no number
    metrics: dict[str, list[list[float | None]]] = field(default_factory=dict)
    ranks: RankHistory | None = None
    error: str | None = None

    def record(self, folder: Path, where: str, shared: dict[str, Any], **files: Any) -> Record:
        """The run of this trial, whose folder lies in `folder`, listed in the file `where`.

        `shared` are parts of results.json that all trials have alike, `files` the run's config, ranks and metrics.
        `InputError`: its results lack something, or its name is none of a folder.
        """
        name = self.name or (self.results or {}).get("run_name")
        if not is_plain_name(name):
            raise InputError(f"{where} names the trial {name!r}; allowed: folders inside it.")
        results = None
        if self.results is not None:
            results = RunResults.from_dict({**shared, **self.results}, f"{where} (trial {name})")
        status = self.status or (results.status if results else "waiting")
        known = {"overrides": self.overrides, "error": self.error or "", **files}
        return Record(folder / str(name), self.method or "", status, results, **known)


@dataclass(frozen=True, kw_only=True)
class TrialList(Part):
    """A file of trials, or a sweep's results.json; `about` holds common `settings` and common parts of results.json."""

    ADVICE = "Delete this file and run the sweep again."

    about: dict[str, Any] = field(default_factory=dict)
    trials: list[ListedTrial]


def read_records(sources: list[Path]) -> list[Record]:
    """All runs in the folders and files of trials, each once.

    Beside runs from files, those from folders have their paths cut as the files' are, so that settings compare.
    `InputError`: a source is missing or holds no run, or one of its files isn't whole.
    """
    records: dict[Path, tuple[Record, bool]] = {}
    for source in sources:
        if not source.exists():
            raise InputError(
                f"there is no folder or file {source}. Pass a sweep's folder, a run's, one that holds runs, or a file "
                "of trials."
            )
        found = _read_folder(source) if source.is_dir() else _read_file(source)
        if not found:
            raise InputError(f"{source} holds no runs: no results.json, no sweep. Run a sweep or a fit first.")
        records |= {record.folder.resolve(): (record, source.is_file()) for record in found}
    in_files = [record.config for record, is_in_file in records.values() if is_in_file]
    return [
        record if is_in_file else replace(record, config=_as_long_as(record.config, in_files))
        for record, is_in_file in records.values()
    ]


def _read_folder(folder: Path) -> list[Record]:
    summary = folder / "results.json"
    if summary.exists() and "trials" in read_json(summary):
        of_trials = [trial.record(folder, str(summary), {}, config={}) for trial in TrialList.read(summary).trials]
        records = [replace(record, **read_files(record.folder)) for record in of_trials]
        return [one if one.config else replace(one, config=_known_config(one, records)) for one in records]
    if summary.exists() or (folder / "config.yaml").exists():
        return [read_run(folder)]
    inner = {path.parent for name in ("results.json", "config.yaml") for path in folder.glob(f"*/{name}")}
    return [record for one in sorted(inner) for record in _read_folder(one)]


def _known_config(record: Record, others: list[Record]) -> Config:
    """The settings of a run that came to nothing before it wrote its own: those of another seed, or what was set."""

    def settings(one: Record) -> tuple[str, Config]:
        return one.method, _without(one.overrides, ("seed_everything",))

    alike = next((one.config for one in others if one.config and settings(one) == settings(record)), None)
    if alike is None:
        return flatten(record.overrides)
    return {**alike, "seed_everything": record.overrides.get("seed_everything", 0)}


def _read_file(path: Path) -> list[Record]:
    try:
        content = TrialList.from_plain(load_json(path))
        return [_kept_record(path, place, content.about, trial) for place, trial in enumerate(content.trials)]
    except _NOT_TRIALS as error:
        told = f"it {error}" if isinstance(error, WrongPartError) else f"{type(error).__name__}: {error}"
        raise InputError(
            f"{path} is no file of trials ({told}). Pass a file that `report --trials` wrote, or the folder of a sweep "
            "or a run."
        ) from error


def _kept_record(path: Path, place: int, about: dict[str, Any], trial: ListedTrial) -> Record:
    """The run of a trial; its place in the file tells it from one of the same name from another sweep."""
    if trial.ranks is not None and not (trial.ranks.layers and trial.ranks.history):
        raise WrongPartError("has ranks of no layer or no moment")
    tables = {name: pd.DataFrame(points, columns=["step", "value"]) for name, points in trial.metrics.items()}
    return trial.record(
        path / str(place),
        str(path),
        _without(about, ("settings",)),
        config=with_later_settings(flatten({**about.get("settings", {}), **trial.settings} or trial.overrides)),
        ranks=trial.ranks,
        metrics={name: table.set_index("step")["value"].astype(float) for name, table in tables.items()},
    )


def check_place(path: Path) -> None:
    """Refuses to write over a file that isn't one of trials, such as a sweep's results.json.

    `InputError`: there is such a file.
    """
    if not path.exists():
        return
    with suppress(*_NOT_TRIALS):
        if "about" in load_json(path):
            return
    raise InputError(f"--trials is {path}, which exists and is no file of trials. Choose another name.")


def write_trials(path: Path, records: list[Record]) -> None:
    """Writes the runs into one file, a line for each; `InputError`: the file is a folder's, or can't be written."""
    outcomes = [record.results.as_plain() for record in records if record.results is not None]
    first = outcomes[0] if outcomes else {}
    told = [name for name in _SHARED if first.get(name) is not None]
    shared = {name: first[name] for name in told if all(outcome.get(name) == first[name] for outcome in outcomes)}
    short = _short_paths(record.config for record in records)
    configs = [_without(_shorten(record.config, short), _OF_THE_MACHINE) for record in records]
    settings = {
        name: value  # 1 and 1.0 differ: of batches, one is a number and the other a share
        for name, value in configs[0].items()
        if all(name in config and repr(config[name]) == repr(value) for config in configs)
    }
    about = {**_shorten(shared, short), "settings": settings}
    pairs = zip(records, configs, strict=True)
    trials = [_trial(record, _without(config, settings), shared, short).as_plain() for record, config in pairs]
    lines = ",\n".join(map(_line, trials))
    write_text(path, f'{{"about": {_line(about)},\n"trials": [\n{lines}\n]}}\n')


def _line(content: Config) -> str:
    return json.dumps(finite(content), ensure_ascii=False, allow_nan=False)


def _without(content: Config, names: Collection[str]) -> Config:
    return {name: value for name, value in content.items() if name not in names}


def _trial(record: Record, settings: Config, shared: dict[str, Any], short: dict[str, str]) -> ListedTrial:
    results, error = None, record.error
    if record.results is not None:  # what is told once is left out, and norms by layer
        results = _shorten(_without(record.results.as_plain(), (*shared, "run_name")), short)
        norms = results.get("update_norms") or {}
        for when, found in norms.items():
            norms[when] = found and _without(found, ("layers", "relative_layers"))
    for path in sorted(short, key=len, reverse=True):
        error = error.replace(path, short[path])
    return ListedTrial(
        name=record.folder.name,
        method=record.method or None,
        status=record.status,
        overrides=_shorten(record.overrides, short),
        settings=settings,
        results=results,
        metrics={
            name: [[int(step), float(f"{value:.6g}")] for step, value in values.items()]
            for name, values in record.metrics.items()
            if name in _DRAWN or name.startswith("val/")
        },
        ranks=record.ranks and record.ranks.rounded(),
        error=error or None,
    )


def _short_paths(configs: Iterable[Config]) -> dict[str, str]:
    """Each path in the configs (the data folder, or what is absolute) below the folder that holds its setting's."""
    found: dict[str, set[str]] = {}
    for config in configs:
        for name, value in config.items():
            if _is_path(name, value):
                found.setdefault(name, set()).add(value)
    short: dict[str, str] = {}
    for paths in found.values():
        root = os.path.commonpath([os.path.dirname(_whole(path)) for path in paths])
        short |= {path: os.path.relpath(_whole(path), root) for path in paths}
    return short


def _shorten(settings: Config, short: dict[str, str]) -> Config:
    return {name: short.get(value, value) if isinstance(value, str) else value for name, value in settings.items()}


def _as_long_as(settings: Config, others: Iterable[Config]) -> Config:
    """The settings with paths cut to as many folders as shortened paths of the same settings have in `others`."""
    lengths: dict[str, int] = {}
    for other in others:
        for name in settings.keys() & other.keys():
            if _is_path(name, settings[name]) and isinstance(other[name], str):
                lengths[name] = max(lengths.get(name, 0), len(Path(other[name]).parts))
    cut = {name: str(Path(*Path(_whole(settings[name])).parts[-length:])) for name, length in lengths.items()}
    return {**settings, **cut}


def _is_path(name: str, value: object) -> bool:
    if not isinstance(value, str) or value == "None":
        return False
    return name == "data.data_dir" or os.path.isabs(os.path.expanduser(value))


def _whole(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))
