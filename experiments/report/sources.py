"""The runs a report is about: read from sweep folders, run folders, folders of runs, or files of trials."""

from dataclasses import replace
from pathlib import Path

from common.errors import InputError
from experiments.config_files import flatten
from experiments.report.machine_paths import as_long_as
from experiments.report.record import Config, Record, read_files, read_run
from experiments.report.trials_file import TrialList, read_trials
from experiments.typed_json import read_json


def read_records(sources: list[Path]) -> list[Record]:
    """All runs in the folders and files of trials, each once.

    Beside runs from files, those from folders have their paths cut as the files' are, so that settings compare.

    Raises:
        InputError: a source is missing or holds no run, or one of its files isn't whole.
    """
    records: dict[Path, tuple[Record, bool]] = {}
    for source in sources:
        if not source.exists():
            raise InputError(
                f"there is no folder or file {source}. Pass a sweep's folder, a run's, one that holds runs, or a file "
                "of trials."
            )
        found = _read(source) if source.is_dir() else read_trials(source)
        if not found:
            raise InputError(f"{source} holds no runs: no results.json, no sweep. Run a sweep or a fit first.")
        records |= {record.folder.resolve(): (record, source.is_file()) for record in found}
    in_files = [record.config for record, is_in_file in records.values() if is_in_file]
    return [
        record if is_in_file else replace(record, config=as_long_as(record.config, in_files))
        for record, is_in_file in records.values()
    ]


def _read(folder: Path) -> list[Record]:
    summary = folder / "results.json"
    if summary.exists() and "trials" in read_json(summary):
        return _sweep(summary)
    if summary.exists() or (folder / "config.yaml").exists():
        return [read_run(folder)]
    inner = {path.parent for name in ("results.json", "config.yaml") for path in folder.glob(f"*/{name}")}
    return [record for one in sorted(inner) for record in _read(one)]


def _sweep(path: Path) -> list[Record]:
    records = [trial.record(path.parent, str(path), {}, config={}) for trial in TrialList.read(path).trials]
    records = [replace(record, **read_files(record.folder)) for record in records]
    return [record if record.config else replace(record, config=_known_config(record, records)) for record in records]


def _known_config(record: Record, others: list[Record]) -> Config:
    """The settings of a run that came to nothing before it wrote its own: those of another seed, or what was set."""

    def settings(one: Record) -> tuple[str, Config]:
        return one.method, {name: value for name, value in one.overrides.items() if name != "seed_everything"}

    alike = next((one.config for one in others if one.config and settings(one) == settings(record)), None)
    if alike is None:
        return flatten(record.overrides)
    return {**alike, "seed_everything": record.overrides.get("seed_everything", 0)}
