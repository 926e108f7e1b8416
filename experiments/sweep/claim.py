"""sweep.yaml: a folder holds one grid, which may grow when that is asked for."""

from collections.abc import Mapping

from common.errors import InputError, shown
from common.files import write_text
from experiments.config_files import differences, dump_yaml, load_yaml, read_yaml
from experiments.run_folder import RunFolder
from experiments.sweep.folder import FAILURE, SweepFolder
from experiments.sweep.grid import Trial
from experiments.sweep.question import QUESTION, REGISTERED, registration

_TRACES = ("config.yaml", "results.json", FAILURE)  # one of them lies in every trial's folder that was begun
# Where a run lies and how often it is saved doesn't change what comes out.
_WITHOUT_EFFECT = ("runs_dir", "checkpoint_every_n_minutes")
# Mappings that PEFT reads, not constructor arguments: a key that is new there is a setting that is new.
_FREE = ("settings",)
Configs = Mapping[str, Mapping[str, object]]  # of trials, by name


def check_claim(
    folder: SweepFolder, definition: dict[str, object], configs: Configs, command: str, extend: bool
) -> None:
    """Refuses a folder that is neither free nor holds this very grid, or (`extend`) a part of it.

    It may hold another grid, trials that this one lacks or would run with other settings (`configs`), runs that
    no sweep began, or files that aren't whole. The ways out that are named begin with `command`.
    """
    path = folder.path / "sweep.yaml"
    if not path.exists() and RunFolder(folder.path).holds_a_run:
        raise InputError(f"{folder.path} holds a run that isn't a sweep. Choose another --run_name or --runs_dir.")
    asked = load_yaml(dump_yaml(definition))
    there = {name: part for name, part in read_yaml(path).items() if name != REGISTERED} if path.exists() else asked
    lost = sorted(_begun(folder) - set(configs))
    if there.get(QUESTION) != asked.get(QUESTION) and _begun(folder):
        raise InputError(
            f"question is {shown(asked.get(QUESTION))}, but {folder.path} has trials that were run for "
            f"{shown(there.get(QUESTION))}; allowed: the question as it was asked. Nothing was changed: put it "
            "back, or ask the new one of fresh seeds with --run_name NAME."
        )
    changed = _changed_trial(folder, configs)
    if there == asked or (extend and not lost):
        if changed is not None:
            raise changed
        return
    plain = command.replace(" --extend", "")
    raise InputError(
        f"{folder.path} holds another grid (sweep.yaml there -> asked for now):\n  "
        + (_some(differences(there, asked), "\n  ", 3) or "something null in one of them, which the other one lacks")
        + (f"\nTrials there that the grid asked for lacks: {_some(lost, ', ', 5)}" if lost else "")
        + "\nOne folder holds one grid. Choose one:\n"
        + (f"  keep its trials and let the grid grow: {command} --extend\n" if not lost and changed is None else "")
        + f"  keep it and start another: {plain} --run_name NAME\n"
        "  go on with it: give the settings it was begun with\n"
        f"  delete it with all its trials and start anew: {plain} --overwrite"
    )


def claim(folder: SweepFolder, definition: dict[str, object]) -> None:
    """Writes sweep.yaml, which `check_claim` has compared with the one there; a question is registered with it.

    From the first trial on the registration stays as it is, so that what is changed later shows.
    """
    path = folder.path / "sweep.yaml"
    if QUESTION in definition:
        late = path.exists() and _begun(folder)
        kept = read_yaml(path).get(REGISTERED) if late else registration(load_yaml(dump_yaml(definition)))
        definition = {**definition, REGISTERED: kept}
    write_text(path, dump_yaml(definition))


def _begun(folder: SweepFolder) -> set[str]:
    """Names of the trials that have left a trace."""
    return {found.parent.name for name in _TRACES for found in folder.path.glob(f"*/{name}")}


def _some(lines: list[str], separator: str, most: int) -> str:
    more = f" and {len(lines) - most} more" if len(lines) > most else ""
    return separator.join(lines[:most]) + more


def _changed_trial(folder: SweepFolder, configs: Configs) -> InputError | None:
    """What is wrong with the first trial that was begun with other settings, or whose files aren't whole."""
    for name, config in configs.items():
        trial = Trial(name, "", (), {})
        try:
            folder.results(trial)
            folder.failure(trial)
            saved = folder.trial_folder(trial) / "config.yaml"
            there = read_yaml(saved) if saved.exists() else {}
            before = {key: value for key, value in there.items() if key not in _WITHOUT_EFFECT}
            changed = differences(before, _known(before, config))
        except InputError as error:
            return error
        if changed:
            return InputError(
                f"{saved.parent} was run with other settings than the base config gives now:\n  "
                + _some(changed, "\n  ", 7)
                + "\nUndo the change in the base config, choose another --run_name, or delete the sweep: --overwrite."
            )
    return None


def _known(before: Mapping[str, object], after: Mapping[str, object]) -> dict[str, object]:
    """The settings of `after` that `before` has, too: a newer version may know more."""
    pairs = {key: (before[key], after[key]) for key in before.keys() & after.keys()}
    return {
        key: _known(old, new) if isinstance(old, dict) and isinstance(new, dict) and key not in _FREE else new
        for key, (old, new) in pairs.items()
    }
