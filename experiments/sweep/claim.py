"""sweep.yaml: a folder holds one grid, which may grow when that is asked for."""

from typing import Any

import yaml

from common.errors import InputError
from common.files import write_text
from experiments.config_files import differences, read_yaml
from experiments.run_folder import RunFolder
from experiments.sweep.folder import SweepFolder

_LISTED = 5  # lost trials named in a message
_TRACES = ("config.yaml", "results.json", "failure.json")  # one of them lies in every trial's folder that was begun


def check_claim(
    folder: SweepFolder,
    definition: dict[str, Any],
    configs: dict[str, dict[str, Any]],
    command: str,
    extend: bool,
) -> None:
    """Whether the folder is free, holds this very grid, or (`extend`) a part of it.

    Args:
        folder: the sweep's folder, which may not exist yet.
        definition: the grid as asked for now.
        configs: the complete settings of its trials, by name.
        command: the command as typed, for the ways out.
        extend: let the grid there grow into this one.

    Raises:
        InputError: the folder holds another grid, trials that this one lacks or would run with other settings, or
            runs that no sweep began.
    """
    path = folder.path / "sweep.yaml"
    if not path.exists() and RunFolder(folder.path).holds_a_run:
        raise InputError(f"{folder.path} holds a run that isn't a sweep. Choose another --run_name or --runs_dir.")
    asked = yaml.safe_load(_text(definition))
    there = read_yaml(path) if path.exists() else asked
    lost = sorted(_begun(folder) - set(configs))
    if there == asked or (extend and not lost):
        _check_trials(folder, configs)
        return
    grows = not lost and _agree(folder, configs)
    plain = command.replace(" --extend", "")
    raise InputError(
        f"{folder.path} holds another grid (sweep.yaml there -> asked for now):\n  "
        + "\n  ".join(differences(there, asked) or ["something null in one of them, which the other one lacks"])
        + (f"\nTrials there that the grid asked for lacks: {_listed(lost)}" if lost else "")
        + "\nOne folder holds one grid. Choose one:\n"
        + (f"  keep its trials and let the grid grow: {command} --extend\n" if grows else "")
        + f"  keep it and start another: {plain} --run_name NAME\n"
        "  go on with it: give the settings it was begun with\n"
        f"  delete it with all its trials and start anew: {plain} --overwrite"
    )


def claim(folder: SweepFolder, definition: dict[str, Any]) -> None:
    """Writes sweep.yaml, which `check_claim` has compared with the one there."""
    write_text(folder.path / "sweep.yaml", _text(definition))


def _text(definition: dict[str, Any]) -> str:
    return yaml.safe_dump(definition, sort_keys=False, allow_unicode=True)


def _begun(folder: SweepFolder) -> set[str]:
    return {path.parent.name for name in _TRACES for path in folder.path.glob(f"*/{name}")}


def _check_trials(folder: SweepFolder, configs: dict[str, dict[str, Any]]) -> None:
    for name, config in configs.items():
        folder.check_trial(name, config)


def _agree(folder: SweepFolder, configs: dict[str, dict[str, Any]]) -> bool:
    """Whether the trials that were begun have the settings that they would have now."""
    try:
        _check_trials(folder, configs)
    except InputError:
        return False
    return True


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
