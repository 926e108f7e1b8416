"""runs/<sweep>/: one run folder per trial, sweep.yaml, and a results.json made from the trials' own files."""

import math
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from common.errors import InputError
from common.files import delete_content, storage_error, write_json
from common.locks import locked
from experiments.config_files import differences, read_yaml
from experiments.results_file import check_failure, check_results, read_results
from experiments.run_folder import RunFolder
from experiments.sweep.grid import Trial

LOCKS = ".locks"
_ENTRANCE_SECONDS = 2.0  # parts of an array that start together pass the entrance one after the other


class State(StrEnum):
    """Where a trial stands, as its folder tells."""

    WAITING = "waiting"
    BEGUN = "begun"
    FINISHED = "finished"
    FAILED = "failed"


@dataclass(frozen=True)
class SweepFolder:
    """The folder of one sweep.

    Args:
        path: runs_dir / sweep name.
    """

    path: Path

    def trial_folder(self, trial: Trial) -> Path:
        return self.path / trial.name

    def state(self, trial: Trial) -> State:
        """What a trial's files say."""
        folder = self.trial_folder(trial)
        if (folder / "results.json").exists():
            return State.FINISHED
        if (folder / "failure.json").exists():
            return State.FAILED
        return State.BEGUN if (folder / "checkpoints" / "last.ckpt").exists() else State.WAITING

    def clear(self) -> None:
        """Deletes a sweep with all its trials.

        Raises:
            InputError: the folder holds something else, or somebody runs one of the trials by hand.
        """
        self.refuse_to_clear_others()
        for path in self.path.glob("*/config.yaml"):
            with RunFolder(path.parent).held():  # refuses where a process is at work
                pass
        delete_content(self.path, kept=LOCKS)  # one of them is ours

    def refuse_to_clear_others(self) -> None:
        """Raises `InputError` where `clear` would delete what no sweep wrote."""
        empty = all(path.name == LOCKS for path in self.path.glob("*"))
        if not empty and not (self.path / "sweep.yaml").exists():
            raise InputError(f"{self.path} holds no sweep, so --overwrite won't delete it. Choose another --run_name.")

    def check_trial(self, name: str, config: dict[str, Any]) -> None:
        """Refuses a begun trial whose base config has changed since.

        Args:
            name: the trial's.
            config: its complete settings, as they would be now.

        Raises:
            InputError: its config.yaml says something else, or its results.json or failure.json isn't whole.
        """
        folder = self.path / name
        for file, check in ((folder / "results.json", check_results), (folder / "failure.json", check_failure)):
            if file.exists():
                check(read_results(file), str(file))
        saved = folder / "config.yaml"
        if not saved.exists():
            return
        changed = differences(*_common(read_yaml(saved), config))
        if changed:
            raise InputError(
                f"{folder} was run with other settings than the base config gives now:\n  "
                + "\n  ".join(changed)
                + "\nUndo the change in the base config, choose another --run_name, or delete the sweep: --overwrite."
            )

    def collect(self, trials: list[Trial]) -> dict[str, Any]:
        """The content of the sweep's results.json."""
        return {"trials": [self._entry(trial) for trial in trials]}

    def _entry(self, trial: Trial) -> dict[str, Any]:
        folder, state = self.trial_folder(trial), self.state(trial)
        results = read_results(folder / "results.json") if state is State.FINISHED else None
        entry = {"name": trial.name, "method": trial.method or None, "overrides": trial.overrides, "results": results}
        entry["status"] = results["status"] if results is not None else str(state)
        if state is State.FAILED:
            entry["error"] = read_results(folder / "failure.json")["error"]
        return entry

    def write_results(self, trials: list[Trial]) -> None:
        """Rewrites results.json from the trials' folders; processes that share the sweep take turns."""
        with locked(self.path / LOCKS / "results", wait=math.inf):
            write_json(self.path / "results.json", self.collect(trials))

    @contextmanager
    def trial_lock(self, trial: Trial) -> Iterator[bool]:
        """Whether this process may run the trial: no other one does, neither for a sweep nor by hand."""
        try:
            with locked(self.path / LOCKS / trial.name):
                yield not self._run_by_hand(trial)
        except BlockingIOError:
            yield False

    def _run_by_hand(self, trial: Trial) -> bool:
        try:
            with RunFolder(self.trial_folder(trial)).held():
                return False
        except InputError:
            return True

    @contextmanager
    def sweep_lock(self, is_part: bool) -> Iterator[None]:
        """Keeps a second sweep out of the folder; the parts of one sweep let each other in.

        A whole sweep stays in the entrance, so that nobody else gets in. A part only passes through it, and holds a
        lock of its own from then on.

        Raises:
            InputError: another sweep is at work here, or the folder can't be written to.
        """
        locks = self.path / LOCKS
        with ExitStack() as held:
            try:
                with ExitStack() as entrance:
                    entrance.enter_context(locked(locks / "sweep", wait=_ENTRANCE_SECONDS))
                    if is_part:
                        held.enter_context(locked(locks / f".part.{uuid.uuid4().hex}", discard=True))
                    else:
                        for part in locks.glob(".part.*"):
                            with locked(part, discard=True):  # held by a part that is at work, or left by a killed one
                                pass
                        held.enter_context(entrance.pop_all())
            except BlockingIOError as error:
                raise InputError(
                    f"another sweep is at work in {self.path}. Wait for it, stop it, or choose another --run_name."
                ) from error
            except OSError as error:
                raise storage_error(Path(error.filename or self.path), error) from error
            yield


# Where a run lies and how often it is saved doesn't change what comes out.
_WITHOUT_EFFECT = ("runs_dir", "checkpoint_every_n_minutes")
# Mappings that PEFT reads, not constructor arguments: a key that is new there is a setting that is new.
_FREE = ("settings",)


def _common(saved: dict[str, Any], asked: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both configs, reduced to the settings that the saved one has: a newer version may know more."""

    def kept(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
        return {
            key: kept(value, after[key]) if _is_group(key, value) and isinstance(after[key], dict) else after[key]
            for key, value in before.items()
            if key in after
        }

    saved = {key: value for key, value in saved.items() if key not in _WITHOUT_EFFECT}
    return saved, kept(saved, asked)


def _is_group(key: str, value: Any) -> bool:
    return isinstance(value, dict) and key not in _FREE
