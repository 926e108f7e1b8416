"""Where a run is killed: at a hook of a step, or in the middle of writing a file."""

import os
import signal
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer

import common.files

CRASH = "crash"
SIGNALS = {"SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT, "SIGKILL": signal.SIGKILL}
HOOKS = ("batch_start", "before_update", "batch_end", "validation", "epoch_end", "train_end")
# The moments of writing a file whole: half of it written, all of it but not renamed yet, renamed.
WRITING = ("half_written", "before_rename", "after_rename")


class CrashError(RuntimeError):
    """What ends a run like an error in someone's callback."""


def strike(how: str) -> None:
    """Ends this process by a signal, or by an exception."""
    if how == CRASH:
        raise CrashError("a callback crashed")
    os.kill(os.getpid(), SIGNALS[how])


class KillAt(Callback):
    """Strikes at a hook, the first time it comes at this step or later.

    Args:
        hook: one of `HOOKS`.
        step: optimizer steps done.
        how: SIGTERM, SIGINT, SIGKILL or crash.
    """

    def __init__(self, hook: str, step: int, how: str) -> None:
        self.hook, self.step, self.how = hook, step, how

    def _strike(self, hook: str, trainer: Trainer) -> None:
        if hook == self.hook and trainer.global_step >= self.step and not trainer.sanity_checking:
            self.hook = "done"
            strike(self.how)

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        self._strike("batch_start", trainer)

    def on_before_optimizer_step(self, trainer: Trainer, *_: Any) -> None:
        self._strike("before_update", trainer)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self._strike("batch_end", trainer)

    def on_validation_batch_start(self, trainer: Trainer, *_: Any) -> None:
        self._strike("validation", trainer)

    def on_train_epoch_end(self, trainer: Trainer, *_: Any) -> None:
        self._strike("epoch_end", trainer)

    def on_train_end(self, trainer: Trainer, *_: Any) -> None:
        self._strike("train_end", trainer)


class Announce(Callback):
    """Says that training begins, by making a file.

    Args:
        path: the file.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def on_train_start(self, trainer: Trainer, *_: Any) -> None:
        self.path.touch()


def kill_while_writing(moment: str, nth: int, only: str = "") -> None:
    """From now on, this process is killed at a moment of the nth file that is written whole.

    Args:
        moment: one of `WRITING`.
        nth: which one, from 1.
        only: counts only files whose name holds this text.
    """
    write_whole, seen = common.files.write_whole, 0

    def counted(path: Path, write: Any) -> None:
        nonlocal seen
        seen += only in path.name
        if seen != nth or only not in path.name:
            return write_whole(path, write)
        if moment == "after_rename":
            write_whole(path, write)
            return strike("SIGKILL")

        def struck(file: Any) -> None:
            write(file)
            if moment == "half_written":
                file.truncate(file.tell() // 2)
            file.flush()
            strike("SIGKILL")

        return write_whole(path, struck)

    _replace_everywhere(write_whole, counted)


def _replace_everywhere(function: Any, other: Any) -> None:
    import sys

    for module in list(sys.modules.values()):
        if getattr(module, "write_whole", None) is function:
            module.write_whole = other  # type: ignore[attr-defined]
