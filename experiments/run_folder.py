"""runs/<run_name>/: where a run's files lie, and what may be done to them."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from common.errors import InputError
from common.files import delete_content, is_plain_name
from common.locks import locked
from experiments.config_files import read_yaml

_CONTENT = ("config.yaml", "checkpoints", "metrics.csv", "results.json", "ranks.json")
_LOCK = ".lock"
_EMPTY_EVENTS = 256  # bytes: TensorBoard's events before the first figure, and hparams.yaml without any
_PATIENCE_SECONDS = 10.0  # data loading processes of a killed run hold its lock until they notice


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run.

    Args:
        path: runs_dir / run_name.
    """

    path: Path

    @classmethod
    def of(cls, runs_dir: str, run_name: str) -> "RunFolder":
        """The folder of a run name.

        Raises:
            InputError: the name isn't a plain folder name.
        """
        if not is_plain_name(run_name):
            raise InputError(f"run_name is {run_name!r}; allowed: a plain folder name without slashes.")
        return cls(Path(runs_dir).expanduser() / run_name)

    @classmethod
    def find(cls, run: str, runs_dir: str) -> "RunFolder":
        """The folder of a run given by path or, below runs_dir, by name.

        Raises:
            InputError: there is no such run; the message lists near names.
        """
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
        """The settings in config.yaml, for a run that lies here now, wherever it was trained.

        Raises:
            InputError: config.yaml can't be read.
        """
        place = {"runs_dir": str(self.path.parent), "run_name": self.path.resolve().name}
        return {**read_yaml(self.path / "config.yaml"), **place}

    @property
    def checkpoints(self) -> Path:
        """The folder of best.ckpt and last.ckpt."""
        return self.path / "checkpoints"

    @property
    def holds_a_run(self) -> bool:
        """Whether a run was begun here."""
        return any((self.path / name).exists() for name in _CONTENT)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keeps any other process from training in this folder; what is left empty is deleted at the end.

        Where the file system has no locks, or the folder can't be written to, nothing is kept out.

        Raises:
            InputError: another process is at work here.
        """
        lock = self.path / _LOCK
        made = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        with ExitStack() as stack:
            try:
                _wait_for(lock, stack)
                lock.write_text(f"process {os.getpid()} on {socket.gethostname()}")
                stack.callback(_remove, lock, made)
            except OSError:
                stack.close()
            yield

    @contextmanager
    def begun(self, command: str, overwrite: bool) -> Iterator[None]:
        """Takes the folder for a new run, as `held` does.

        Args:
            command: what began the run, for messages.
            overwrite: whether a run that is here already gives way; it is still to be deleted, by `clear`.

        Raises:
            InputError: the folder holds a run, a sweep or other files, or another process is at work here.
        """
        if not overwrite:
            self.refuse_if_occupied(command)
        with self.held():
            if overwrite:
                self.refuse_to_clear_others()
            else:
                self.refuse_if_occupied(command)  # by a run that ended while this one waited
                self.forget_false_start()
            yield

    def refuse_if_occupied(self, command: str) -> None:
        """Raises `InputError` if the folder holds a run, naming the three ways out, or a sweep."""
        self._refuse_a_sweep()
        if not self.holds_a_run:
            return
        resume = f"go on with it: {command} --ckpt_path last\n  " if (self.checkpoints / "last.ckpt").exists() else ""
        raise InputError(
            f"{self.path} already holds a run. Choose one:\n  {resume}"
            f"keep it and start another: {command} --run_name NAME\n  "
            f"delete it and start anew: {command} --overwrite"
        )

    def clear(self) -> None:
        """Deletes a run's files; a folder that holds anything else is left alone.

        Raises:
            InputError: the folder holds files but no run.
        """
        self.refuse_to_clear_others()
        if self.holds_a_run:
            delete_content(self.path, kept=_LOCK)
            _remove_empty([self.path])

    def refuse_to_clear_others(self) -> None:
        """Raises `InputError` where `clear` would delete what no run wrote; what a false start left is deleted."""
        self._refuse_a_sweep()
        if not self.holds_a_run:
            self.forget_false_start()
        if not self.path.exists() or all(path.name == _LOCK for path in self.path.iterdir()):
            return
        if not self.holds_a_run:
            raise InputError(
                f"{self.path} holds files but no run, so --overwrite won't delete it. Choose another --run_name."
            )
        if self.path.is_symlink():
            raise InputError(
                f"{self.path} is a link to {self.path.resolve()}, so --overwrite won't delete it. Delete the run "
                "there, or choose another --run_name."
            )

    def forget_false_start(self) -> None:
        """Deletes what a run has left that stopped before its training began; figures of other programs stay."""
        self.clean_up()
        for path in (*self.path.glob("events.out.tfevents.*"), *self.path.glob("hparams.yaml")):
            if path.stat().st_size < _EMPTY_EVENTS:
                path.unlink()

    def _refuse_a_sweep(self) -> None:
        if (self.path / "sweep.yaml").exists():  # not .locks, which a sweep that was refused here leaves, too
            raise InputError(f"{self.path} holds a sweep with its trials. Choose another --run_name or --runs_dir.")

    def clean_up(self) -> None:
        """Deletes files that a killed run had half written: not where another process may be writing the same run."""
        for folder in (self.path, self.checkpoints):
            for path in folder.glob(".*.partial"):
                if not path.is_dir():  # an export has folders of its own
                    path.unlink(missing_ok=True)

    def checkpoint(self, wanted: str) -> Path:
        """The file that `last`, `best` or a path stands for.

        Raises:
            InputError: there is no such file.
        """
        if wanted not in ("last", "best"):
            path = Path(wanted).expanduser()
            if path.is_file():
                return path
            raise InputError(f"ckpt_path is {wanted!r}, but there is no such file; allowed: last, best or a file.")
        path = self.checkpoints / f"{wanted}.ckpt"
        if path.is_file():
            return path
        there = sorted(str(found) for found in self.checkpoints.glob("*.ckpt"))
        raise InputError(
            f"ckpt_path is {wanted!r}, but there is no {path}"
            + (f"; there is {', '.join(there)}." if there else f": no run was begun in {self.path}.")
            + " Check --run_name and --runs_dir, or leave --ckpt_path out to start a new run."
        )


def _wait_for(lock: Path, stack: ExitStack) -> None:
    until = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            stack.enter_context(locked(lock))
            return
        except BlockingIOError as error:
            if time.monotonic() > until:
                raise InputError(
                    f"{lock.parent} is being written by another run ({lock.read_text() or 'unknown'}). Wait for it, "
                    "stop it, or choose another --run_name."
                ) from error
        time.sleep(0.1)


def _remove(lock: Path, folders: list[Path]) -> None:
    lock.unlink(missing_ok=True)
    _remove_empty(folders)


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()
