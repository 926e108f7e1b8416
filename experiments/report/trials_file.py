"""A study's trials as one small file, to be kept with a paper or a repository: `report` writes it and reads it back.

The file holds what tables and figures need of results.json, config.yaml, metrics.csv and ranks.json: no norms by
layer, no weights, and of paths on the machine that trained only what tells them apart. A sweep's own results.json is
such a list of trials, too, with the folders of its runs beside it.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from common.errors import InputError
from common.files import finite, is_plain_name, write_text
from experiments.config_files import flatten
from experiments.report.machine_paths import short_paths, shorten, shorten_text
from experiments.report.record import Config, RankHistory, Record
from experiments.results import RunResults
from experiments.typed_json import Part, WrongPartError

# What is alike in most studies, and told once then.
_SHARED = ("data", "backbone", "width", "versions", "device", "device_name", "processes")
_DRAWN = ("train/epoch_loss", "allocation/budget_used")
# Where a run lay, and its name: settings of a machine, not of a study.
_OF_THE_MACHINE = ("runs_dir", "run_name")


@dataclass(frozen=True, kw_only=True)
class KeptTrial(Part):
    """One trial of a list; a sweep's results.json has no settings, metrics and ranks, which lie in the run's folder.

    Attributes:
        results: the trial's results.json, without what all trials share; None where it came to nothing.
        settings: config.yaml by command-line name, without what all trials share.
        metrics: (step, value) pairs of each metric that is drawn; None for a value that is no number.
    """

    name: str | None = None
    method: str | None = None
    status: str | None = None
    overrides: Config
    settings: Config = field(default_factory=dict)
    results: dict[str, Any] | None
    metrics: dict[str, list[list[float | None]]] = field(default_factory=dict)
    ranks: RankHistory | None = None
    error: str | None = None

    def record(self, folder: Path, where: str, shared: dict[str, Any], **files: Any) -> Record:
        """The run of this trial, whose folder lies in `folder`, listed in the file `where`.

        Args:
            shared: parts of results.json that all trials have alike.
            files: the run's config, ranks and metrics.

        Raises:
            InputError: its results lack something, or its name is none of a folder.
        """
        name = self.name or (self.results or {}).get("run_name")
        if not is_plain_name(name):
            raise InputError(f"{where} names the trial {name!r}; allowed: folders inside it.")
        results = None
        if self.results is not None:
            results = RunResults.from_dict({**shared, **self.results}, f"{where} (trial {name})")
        status = self.status or (results.status if results else "waiting")
        return Record(
            folder / str(name),
            self.method or "",
            status,
            results,
            overrides=self.overrides,
            error=self.error or "",
            **files,
        )


@dataclass(frozen=True, kw_only=True)
class TrialList(Part):
    """The content of a file of trials, or of a sweep's results.json.

    Attributes:
        about: what all trials share: their `settings`, and parts of results.json.
    """

    ADVICE = "Delete this file and run the sweep again."

    about: dict[str, Any] = field(default_factory=dict)
    trials: list[KeptTrial]


def read_trials(path: Path) -> list[Record]:
    """The runs in a file that `write_trials` wrote.

    Raises:
        InputError: it isn't such a file.
    """
    try:
        content = TrialList.from_plain(json.loads(path.read_text(encoding="utf-8")))
        return [_record(path, place, content.about, trial) for place, trial in enumerate(content.trials)]
    except (OSError, ValueError, TypeError, RecursionError) as error:
        told = f"it {error}" if isinstance(error, WrongPartError) else f"{type(error).__name__}: {error}"
        raise InputError(
            f"{path} is no file of trials ({told}). Pass a file that `report --trials` wrote, or the folder of a sweep "
            "or a run."
        ) from error


def _record(path: Path, place: int, about: dict[str, Any], trial: KeptTrial) -> Record:
    """The run of a trial; its place in the file tells it from one of the same name from another sweep."""
    if trial.ranks is not None and not (trial.ranks.layers and trial.ranks.history):
        raise WrongPartError("has ranks of no layer or no moment")
    tables = {name: pd.DataFrame(points, columns=["step", "value"]) for name, points in trial.metrics.items()}
    return trial.record(
        path / str(place),
        str(path),
        _without(about, ("settings",)),
        config=flatten({**about.get("settings", {}), **trial.settings} or trial.overrides),
        ranks=trial.ranks,
        metrics={name: table.set_index("step")["value"].astype(float) for name, table in tables.items()},
    )


def check_place(path: Path) -> None:
    """Refuses to write over a file that isn't one of trials, such as a sweep's results.json.

    Raises:
        InputError: there is such a file.
    """
    if not path.exists():
        return
    try:
        kept = "about" in json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError, RecursionError):
        kept = False
    if not kept:
        raise InputError(f"--trials is {path}, which exists and is no file of trials. Choose another name.")


def write_trials(path: Path, records: list[Record]) -> None:
    """Writes the runs into one file, a line for each.

    Raises:
        InputError: the file is a folder's, or can't be written.
    """
    outcomes = [record.results.as_plain() for record in records if record.results is not None]
    first = outcomes[0] if outcomes else {}
    told = [name for name in _SHARED if first.get(name) is not None]
    shared = {name: first[name] for name in told if all(outcome.get(name) == first[name] for outcome in outcomes)}
    short = short_paths(record.config for record in records)
    configs = [_without(shorten(record.config, short), _OF_THE_MACHINE) for record in records]
    settings = {
        name: value  # 1 and 1.0 differ: of batches, one is a number and the other a share
        for name, value in configs[0].items()
        if all(name in config and repr(config[name]) == repr(value) for config in configs)
    }
    about = {**shorten(shared, short), "settings": settings}
    pairs = zip(records, configs, strict=True)
    trials = [_trial(record, _without(config, settings), shared, short).as_plain() for record, config in pairs]
    lines = ",\n".join(map(_line, trials))
    write_text(path, f'{{"about": {_line(about)},\n"trials": [\n{lines}\n]}}\n')


def _without(content: dict[str, Any], names: Any) -> dict[str, Any]:
    return {name: value for name, value in content.items() if name not in names}


def _trial(record: Record, settings: Config, shared: dict[str, Any], short: dict[str, str]) -> KeptTrial:
    return KeptTrial(
        name=record.folder.name,
        method=record.method or None,
        status=record.status,
        overrides=shorten(record.overrides, short),
        settings=settings,
        results=None if record.results is None else shorten(_slim(record.results, shared), short),
        metrics={
            name: [[int(step), float(f"{value:.6g}")] for step, value in values.items()]
            for name, values in record.metrics.items()
            if name in _DRAWN or name.startswith("val/")
        },
        ranks=record.ranks and record.ranks.rounded(),
        error=shorten_text(record.error, short) or None,
    )


def _slim(results: RunResults, shared: dict[str, Any]) -> dict[str, Any]:
    """Results without what is told once, and without norms by layer."""
    slim = _without(results.as_plain(), (*shared, "run_name"))
    norms = slim.get("update_norms") or {}
    for when, found in norms.items():
        norms[when] = found and _without(found, ("layers", "relative_layers"))
    return slim


def _line(content: Any) -> str:
    return json.dumps(finite(content), ensure_ascii=False, allow_nan=False)
