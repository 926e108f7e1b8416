"""A study's trials as one small file, to be kept with a paper or a repository: `report` writes it and reads it back.

The file holds what tables and figures need of results.json, config.yaml, metrics.csv and ranks.json: no norms by
layer, no weights, and of paths on the machine that trained only what tells them apart.
"""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from common.errors import InputError
from common.files import finite, write_text
from experiments.report.machine_paths import as_long_as, short_paths, shorten, shorten_text
from experiments.report.record import Record
from experiments.results_file import check_trial

# What is alike in most studies, and told once then.
_SHARED = ("data", "backbone", "versions", "device", "device_name", "processes")
_DRAWN = ("train/epoch_loss", "allocation/budget_used")
# Where a run lay, and its name: settings of a machine, not of a study.
_OF_THE_MACHINE = ("runs_dir", "run_name")


@dataclass(frozen=True)
class KeptRecord(Record):
    """One run as a file of trials tells it; its folder need not exist.

    Attributes:
        kept_config: what `config` is.
        kept_ranks: what `ranks` is.
        kept_metrics: what `metrics_table` is.
    """

    kept_config: dict[str, Any] = field(default_factory=dict)
    kept_ranks: dict[str, Any] | None = None
    kept_metrics: dict[str, list[tuple[int, float]]] = field(default_factory=dict)

    @cached_property
    def config(self) -> dict[str, Any]:
        return self.kept_config

    @cached_property
    def ranks(self) -> dict[str, Any] | None:
        return self.kept_ranks

    @cached_property
    def metrics_table(self) -> dict[str, list[tuple[int, float]]]:
        return self.kept_metrics


def read_trials(path: Path) -> list[Record]:
    """The runs in a file that `write_trials` wrote.

    Raises:
        InputError: it isn't such a file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        about, entries = content.get("about", {}), content["trials"]
        return [_record(path, place, about, entry) for place, entry in enumerate(entries)]
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} is no file of trials ({type(error).__name__}: {error}). Pass a file that `report --trials` "
            "wrote, or the folder of a sweep or a run."
        ) from error


def comparable(records: list[Record]) -> list[Record]:
    """Runs from folders beside runs from files of trials: with paths cut as theirs are, so that settings compare."""
    kept = [record.config for record in records if isinstance(record, KeptRecord)]
    if not kept:
        return records
    return [
        record if isinstance(record, KeptRecord) else _with_config(record, as_long_as(record.config, kept))
        for record in records
    ]


def _with_config(record: Record, config: dict[str, Any]) -> KeptRecord:
    known = {part.name: getattr(record, part.name) for part in fields(Record)}
    return KeptRecord(**known, kept_config=config, kept_ranks=record.ranks, kept_metrics=record.metrics_table)


def _record(path: Path, place: int, about: dict[str, Any], entry: dict[str, Any]) -> Record:
    """The run of an entry; its place in the file tells it from one of the same name from another sweep."""
    shared = {name: value for name, value in about.items() if name != "settings"}
    if entry["results"] is not None:
        entry = {**entry, "results": {**shared, **entry["results"]}}
    name = check_trial(entry, str(path))
    settings = {**about.get("settings", {}), **entry.get("settings", {})}
    results, ranks = entry["results"], entry.get("ranks")
    if ranks is not None and not (ranks["layers"] and ranks["history"]):
        raise ValueError(f"no ranks in trial {name}")
    return KeptRecord(
        folder=path / str(place) / name,
        method=entry.get("method") or "",
        status=entry.get("status") or (results["status"] if results else "waiting"),
        results=results,
        overrides=entry["overrides"],
        error=entry.get("error") or "",
        kept_config=settings or dict(entry["overrides"]),
        kept_ranks=ranks,
        kept_metrics={
            metric: [(int(step), math.nan if value is None else float(value)) for step, value in points]
            for metric, points in entry.get("metrics", {}).items()
        },
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
    except (OSError, ValueError, TypeError):
        kept = False
    if not kept:
        raise InputError(f"--trials is {path}, which is there and no file of trials. Choose another name.")


def write_trials(path: Path, records: list[Record]) -> None:
    """Writes the runs into one file, a line for each.

    Raises:
        InputError: the file is a folder's, or can't be written.
    """
    outcomes = [record.results for record in records if record.results is not None]
    shared = {name: outcomes[0][name] for name in _SHARED if _alike(outcome.get(name) for outcome in outcomes)}
    short = short_paths(record.config for record in records)
    configs = [_of_the_study(record.config, short) for record in records]
    settings = _shared_settings(configs)
    about = {**shorten(shared, short), "settings": settings}
    own = [{name: v for name, v in config.items() if name not in settings} for config in configs]
    pairs = zip(records, own, strict=True)
    lines = ",\n".join(_line(_entry(record, theirs, shared, short)) for record, theirs in pairs)
    write_text(path, f'{{"about": {_line(about)},\n"trials": [\n{lines}\n]}}\n')


def _alike(values: Iterable[Any]) -> bool:
    found = list(values)
    return bool(found) and found[0] is not None and all(value == found[0] for value in found)


def _of_the_study(config: dict[str, Any], short: dict[str, str]) -> dict[str, Any]:
    return {name: value for name, value in shorten(config, short).items() if name not in _OF_THE_MACHINE}


def _shared_settings(configs: list[dict[str, Any]]) -> dict[str, Any]:
    """What all configs have alike; 1 and 1.0 differ: of batches, one is a number and the other a share."""
    return {name: v for name, v in configs[0].items() if all(name in c and repr(c[name]) == repr(v) for c in configs)}


def _entry(record: Record, settings: dict[str, Any], shared: dict[str, Any], short: dict[str, str]) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": record.folder.name,
        "method": record.method or None,
        "status": record.status,
        "overrides": shorten(record.overrides, short),
        "settings": settings,
        "results": None if record.results is None else shorten(_slim(record.results, shared), short),
        "metrics": _drawn(record.metrics_table),
    }
    if record.ranks is not None:
        entry["ranks"] = record.ranks
    if record.error:
        entry["error"] = shorten_text(record.error, short)
    return entry


def _slim(results: dict[str, Any], shared: dict[str, Any]) -> dict[str, Any]:
    """Results without what is told once, and without norms by layer."""
    slim = {name: value for name, value in results.items() if name not in shared and name != "run_name"}
    norms = slim.get("update_norms")
    if isinstance(norms, dict):
        slim["update_norms"] = {when: _without_layers(value) for when, value in norms.items()}
    return slim


def _without_layers(norms: Any) -> Any:
    return {name: v for name, v in norms.items() if not isinstance(v, dict)} if isinstance(norms, dict) else norms


def _drawn(metrics: dict[str, list[tuple[int, float]]]) -> dict[str, list[tuple[int, float]]]:
    """What figures are drawn from."""
    return {name: v for name, v in metrics.items() if name in _DRAWN or name.startswith("val/")}


def _line(content: Any) -> str:
    return json.dumps(finite(content), ensure_ascii=False, allow_nan=False)
