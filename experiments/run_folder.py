"""runs/<run_name>/: where a run's files lie, and what may be done to them."""

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from common.errors import InputError
from common.files import is_plain_name, storage_error
from common.locks import locked
from experiments.config_files import read_yaml
from experiments.own_files import OF_A_RUN, own_files

_CONTENT = ("config.yaml", "checkpoints", "metrics.csv", "results.json", "ranks.json")
_KEYS = {"run_name", "runs_dir", "model", "data", "trainer"}  # other programs write a config.yaml, too
_OF_A_TRIAL = ("log.txt", "failure.json")  # of a sweep's
_LOCK = ".lock"
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
_EMPTY_EVENTS = 256  # bytes: TensorBoard's events before the first figure, and hparams.yaml without any
_PATIENCE_SECONDS = 10.0  # data loading processes of a killed run hold its lock until they notice


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run, runs_dir / run_name."""

    path: Path

    @classmethod
    def of(cls, runs_dir: str, run_name: str) -> "RunFolder":
        """The folder of a run name, which must be a plain folder name."""
        if not is_plain_name(run_name):
            raise InputError(f"run_name is {run_name!r}; allowed: a plain folder name without slashes.")
        if run_name.startswith("-"):
            raise InputError(
                f"run_name is {run_name!r}, which commands would take for an option; allowed: another first letter."
            )
        return cls(Path(runs_dir).expanduser() / run_name)

    @classmethod
    def find(cls, run: str, runs_dir: str) -> "RunFolder":
        """The folder of a run given by path or, below runs_dir, by name; `InputError` lists near names."""
        for path in (Path(run).expanduser(), Path(runs_dir).expanduser() / run):
            if (path / "config.yaml").is_file() and (path / "checkpoints").is_dir():
                return cls(path)
        above = Path(run).expanduser().parent if "/" in run else Path(runs_dir).expanduser()
        known = sorted(path.parent.name for path in above.glob("*/config.yaml"))
        near = get_close_matches(Path(run).name, known, n=3, cutoff=0.4) or known[:10]
        raise InputError(
            f"the run is {run!r}, but there is no folder of that name with a config.yaml and checkpoints; in {above} "
            f"there is {', '.join(near) or 'no run'}. Give a run folder, or a name and --runs_dir."
        )

    def settings(self) -> dict[str, Any]:
        """The settings in config.yaml, for a run that lies here now, wherever it was trained."""
        place = {"runs_dir": str(self.path.parent), "run_name": self.path.resolve().name}
        return {**read_yaml(self.path / "config.yaml"), **place}

    @property
    def checkpoints(self) -> Path:
        """The folder of best.ckpt and last.ckpt."""
        return self.path / "checkpoints"

    @property
    def holds_a_run(self) -> bool:
        """Whether a run was begun here."""
        return any(os.path.lexists(self.path / name) for name in _CONTENT)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keeps any other process from training in this folder; what is left empty is deleted at the end.

        Where the file system has no locks, nothing is kept out. `InputError`: another process is at work here, or the
        folder can't be written to.
        """
        lock = self.path / _LOCK
        made = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        with ExitStack() as stack:
            stack.callback(_remove_empty, made)
            try:
                stack.enter_context(locked(lock, wait=_PATIENCE_SECONDS, discard=True))
            except BlockingIOError as error:
                raise InputError(
                    f"{self.path} is being written by another run ({lock.read_text() or 'unknown'}). Wait for it, "
                    "stop it, or choose another --run_name."
                ) from error
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    told = storage_error(self.path, error)
                    reason = f"{self.path} can't be used as a run folder: {error.strerror}. Choose another --runs_dir."
                    is_told = isinstance(told, InputError) and error.errno != errno.ENOENT  # of /proc, say
                    raise (told if is_told else InputError(reason)) from error
            yield

    @contextmanager
    def begun(self, command: str, overwrite: bool) -> Iterator[list[Path]]:
        """Takes the folder for a new run, as `held` does, and gives the files of a run that is to give way.

        They are still there: `delete` deletes them once the new one is known to begin. `InputError`: the folder holds a
        run, a sweep or other files, or another process is at work here.
        """
        if not overwrite:
            self.refuse_if_occupied(command)
        with self.held():
            if overwrite:
                yield self.files_to_replace()
                return
            self.refuse_if_occupied(command)  # by a run that ended while this one waited
            self.forget_false_start()
            yield []

    def refuse_if_occupied(self, command: str) -> None:
        """Raises `InputError` if the folder holds a run, naming the three ways out, or a sweep."""
        self._refuse_other_things()
        if not self.holds_a_run:
            return
        resume = f"go on with it: {command} --ckpt_path last\n  " if (self.checkpoints / "last.ckpt").exists() else ""
        raise InputError(
            f"{self.path} already holds a run. Choose one:\n  {resume}"
            f"keep it and start another: {command} --run_name NAME\n  "
            f"delete it and start anew: {command} --overwrite"
        )

    def files_to_replace(self) -> list[Path]:
        """The files of the run here, but its lock; what a false start left is deleted.

        `InputError`: the folder holds anything else, is no run's, or a link.
        """
        self._refuse_other_things()
        if not self.holds_a_run and not self.path.is_symlink():
            self.forget_false_start()
        advice = "Move it, or choose another --run_name."
        of_a_trial = _OF_A_TRIAL if (self.path.parent / "sweep.yaml").exists() else ()
        files = [path for path in own_files(self.path, (*OF_A_RUN, *of_a_trial), advice) if path.name != _LOCK]
        figures = [path for path in files if path.parent.name != ".locks"]
        if figures and not self._has_settings():
            raise InputError(
                f"{self.path} holds {figures[0].name}, but no config.yaml that a run wrote, so --overwrite won't "
                f"delete it. {advice}"
            )
        return files

    def _has_settings(self) -> bool:
        with suppress(InputError):
            return read_yaml(self.path / "config.yaml").keys() >= _KEYS
        return False

    def forget_false_start(self) -> None:
        """Deletes what a run has left that stopped before its training began; figures of other programs stay."""
        self.clean_up()
        for path in (*self.path.glob("events.out.tfevents.*"), *self.path.glob("hparams.yaml")):
            if path.stat().st_size < _EMPTY_EVENTS:
                path.unlink()

    def _refuse_other_things(self) -> None:
        if self.path.is_symlink() and not self.path.exists():
            raise InputError(
                f"{self.path} is a link to {self.path.readlink()}, which doesn't exist. Make that folder, delete the "
                "link, or choose another --run_name."
            )
        if (self.path / "sweep.yaml").exists():  # not .locks, which a sweep that was refused here leaves, too
            raise InputError(f"{self.path} holds a sweep with its trials. Choose another --run_name or --runs_dir.")

    def clean_up(self) -> None:
        """Deletes files that a killed run had half written: not where another process may be writing the same run."""
        for folder in (self.path, self.checkpoints):
            for path in folder.glob(".*.partial"):
                if not path.is_dir():  # an export has folders of its own
                    path.unlink(missing_ok=True)

    def checkpoint(self, wanted: str) -> Path:
        """The file that `last`, `best` or a path stands for; `InputError` if there is none."""
        path = self.checkpoints / f"{wanted}.ckpt" if wanted in ("last", "best") else Path(wanted).expanduser()
        if path.is_file():
            return path
        if wanted == "best" and (self.checkpoints / "last.ckpt").is_file():
            raise InputError(
                f"ckpt_path is 'best', but this run has no best epoch yet: there is no file {path}. Go on with the "
                "training (fit, --ckpt_path last), or add --ckpt_path last to use what has been trained so far."
            )
        there = ", ".join(sorted(str(found) for found in self.checkpoints.glob("*.ckpt")))
        raise InputError(
            f"ckpt_path is {wanted!r}, but there is no file {path}; "
            + (f"there is {there}" if there else f"no run was begun in {self.path}")
            + "; allowed: last, best or a file. Check --run_name and --runs_dir, or leave --ckpt_path out to start a "
            "new run."
        )


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()
