"""sweep.yaml: a folder holds one grid, which may grow when that is asked for; and what a sweep deletes.

It deletes files that it, its trials or its report wrote; nothing else, and nothing behind a link.
"""

from collections.abc import Mapping
from pathlib import Path

from common.errors import InputError, shown
from common.files import write_text
from experiments.config_files import differences, dump_yaml, load_yaml, read_yaml
from experiments.own_files import OF_A_REPORT, OF_A_RUN, delete, own_files
from experiments.run_folder import RunFolder
from experiments.sweep.folder import FAILURE, LOCKS, LOG, PAUSED, State, SweepFolder
from experiments.sweep.grid import Trial
from experiments.sweep.question import QUESTION, REGISTERED, registration

_TRACES = ("config.yaml", "results.json", FAILURE)  # one of them lies in every trial's folder that was begun
# Where a run lies and how often it is saved doesn't change what comes out.
_WITHOUT_EFFECT = ("runs_dir", "checkpoint_every_n_minutes")
# Mappings that PEFT reads, not constructor arguments: a key that is new there is a setting that is new.
_FREE = ("settings",)
Configs = Mapping[str, Mapping[str, object]]  # of trials, by name
KEPT = ("all", "best", "none")  # what finished trials keep of their checkpoints
_OF_A_TRIAL = (*OF_A_RUN, LOG, FAILURE)
OF_A_SWEEP = ("sweep.yaml", "results.json", *OF_A_REPORT, f"{LOCKS}/*", f"{LOCKS}/.*")


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


def begin_anew(run_folder: Path) -> None:
    """Deletes what a trial left that was stopped before its first checkpoint, but its log and count of attempts."""
    files = own_files(run_folder, _OF_A_TRIAL, "Move it, and run the sweep again.")
    delete(run_folder, [path for path in files if path.name not in (LOG, FAILURE)])


def sweep_files(folder: SweepFolder) -> list[Path]:
    """The files of a sweep with all its trials and its report; refused if the folder is a link or holds others, too."""
    there = [path for path in folder.path.glob("*") if path.name != LOCKS]
    trials = [path.name for path in there if any((path / name).exists() for name in (LOG, FAILURE, PAUSED))]
    if there and not trials and not (folder.path / "sweep.yaml").exists():
        raise InputError(f"{folder.path} holds no sweep, so --overwrite won't delete it. Choose another --run_name.")
    patterns = (*OF_A_SWEEP, *(f"{trial}/{pattern}" for trial in trials for pattern in _OF_A_TRIAL))
    files = own_files(folder.path, patterns, "Move it, or choose another --run_name.")
    return [path for path in files if path.parent.name != LOCKS]  # one of them is ours


def clear(folder: SweepFolder) -> None:
    """Deletes a sweep with all its trials (`sweep_files`), unless somebody runs one of them by hand."""
    files = sweep_files(folder)
    for path in folder.path.glob("*/config.yaml"):
        with RunFolder(path.parent).held():  # refused where a process is at work
            pass
    delete(folder.path, files)


def drop_checkpoints(folder: SweepFolder, trials: list[Trial], kept: str) -> None:
    """Deletes what finished trials needn't keep, for many full ones fill a disk; begun and failed ones need theirs.

    Trials that another process holds are left alone. Of `KEPT`, `best` keeps best.ckpt, or last.ckpt where no
    validation chose a best one.
    """
    for trial in trials if kept != "all" else []:
        # Only finished trials are locked: one that waits could be taken by another process just now.
        if folder.state(trial) is not State.FINISHED or not _needless(folder, trial, kept):
            continue
        with folder.trial_lock(trial) as mine:
            if mine and folder.state(trial) is State.FINISHED:
                for path in _needless(folder, trial, kept):
                    path.unlink(missing_ok=True)


def _needless(folder: SweepFolder, trial: Trial, kept: str) -> list[Path]:
    there = {path.name: path for path in (folder.trial_folder(trial) / "checkpoints").glob("*.ckpt")}
    if kept == "best":
        there.pop("best.ckpt" if "best.ckpt" in there else "last.ckpt", None)
    return list(there.values())
