"""runs/<sweep>/: one run folder per trial, sweep.yaml, and a results.json made from the trials' own files."""

import fcntl
import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from common.errors import InputError
from common.files import storage_error, write_json
from common.locks import locked
from experiments.results import RunResults, ValidationCurve
from experiments.run_folder import RunFolder
from experiments.sweep.grid import Trial
from experiments.typed_json import Part, read_json

LOCKS = ".locks"
LOG = "log.txt"
FAILURE = "failure.json"
PAUSED = "paused.json"


class State(StrEnum):
    """Where a trial stands, as its folder tells, or how an attempt at it ended."""

    WAITING = "waiting"
    BEGUN = "begun"
    FINISHED = "finished"
    FAILED = "failed"
    PAUSED = "paused"  # at the epoch it was asked to
    STOPPED = "stopped"  # by a signal: the sweep stops, too
    ELSEWHERE = "elsewhere"  # another process is running it


@dataclass(frozen=True, kw_only=True)
class Failure(Part):
    """failure.json: why a trial failed, how often it was tried, and where its output is."""

    error: str
    attempts: int
    log: str = LOG


@dataclass(frozen=True)
class SweepFolder:
    """The folder of one sweep. Whatever reads a trial's files raises `InputError` where one of them isn't whole."""

    path: Path

    def trial_folder(self, trial: Trial) -> Path:
        return self.path / trial.name

    def state(self, trial: Trial) -> State:
        """What a trial's files say."""
        folder = self.trial_folder(trial)
        for name, state in (("results.json", State.FINISHED), (FAILURE, State.FAILED), (PAUSED, State.PAUSED)):
            if (folder / name).exists():
                return state
        return State.BEGUN if (folder / "checkpoints" / "last.ckpt").exists() else State.WAITING

    def results(self, trial: Trial) -> RunResults | None:
        path = self.trial_folder(trial) / "results.json"
        return RunResults.read(path) if path.exists() else None

    def failure(self, trial: Trial) -> Failure | None:
        path = self.trial_folder(trial) / FAILURE
        return Failure.read(path) if path.exists() else None

    def curve(self, trial: Trial) -> ValidationCurve | None:
        """The validation figures of a finished or paused trial."""
        if (results := self.results(trial)) is not None:
            return results.curve
        path = self.trial_folder(trial) / PAUSED
        return ValidationCurve.read(path) if path.exists() else None

    def record_failure(self, trial: Trial, reason: str) -> None:
        """Writes failure.json, and counts the attempt."""
        before = self.failure(trial)
        failure = Failure(error=reason, attempts=1 if before is None else before.attempts + 1)
        write_json(self.trial_folder(trial) / FAILURE, failure.as_plain())

    def record_pause(self, trial: Trial) -> None:
        """Writes paused.json for a trial that hasn't begun."""
        nothing = ValidationCurve(values=[], higher_is_better=True, validation_rows=0)
        write_json(self.trial_folder(trial) / PAUSED, nothing.as_plain())

    def write_results(self, trials: list[Trial]) -> None:
        """Rewrites results.json from the trials' folders; processes that share the sweep take turns."""
        with locked(self.path / LOCKS / "results", wait=math.inf):
            write_json(self.path / "results.json", {"trials": [self._entry(trial) for trial in trials]})

    def _entry(self, trial: Trial) -> dict[str, object]:
        state, failure = self.state(trial), self.failure(trial)
        results = read_json(self.trial_folder(trial) / "results.json") if state is State.FINISHED else None
        entry: dict[str, object] = {"name": trial.name, "method": trial.method or None, "overrides": trial.overrides}
        entry |= {"results": results, "status": results["status"] if results is not None else str(state)}
        if state is State.FAILED and failure is not None:
            entry["error"] = failure.error
        return entry

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
        """Keeps a second sweep out of the folder (`InputError`); the parts of one sweep let each other in."""
        path = self.path / LOCKS / "sweep"
        with ExitStack() as held:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                file = held.enter_context(path.open("a+"))
                fcntl.flock(file, (fcntl.LOCK_SH if is_part else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise InputError(
                    f"another sweep is at work in {self.path}. Wait for it, stop it, or choose another --run_name."
                ) from error
            except OSError as error:
                raise storage_error(Path(error.filename or self.path), error) from error
            yield
