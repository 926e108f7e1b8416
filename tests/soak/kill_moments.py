"""Where a run is killed: at a hook of a step, or in the middle of writing a file."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer

CRASH = "crash"
SIGNALS = {"SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT, "SIGKILL": signal.SIGKILL}
HOOKS = {
    "batch_start": "on_train_batch_start",
    "before_update": "on_before_optimizer_step",
    "batch_end": "on_train_batch_end",
    "validation": "on_validation_batch_start",
    "epoch_end": "on_train_epoch_end",
    "train_end": "on_train_end",
}
# Moments of writing a file: half of it is written, all of it is written but not yet renamed, it is renamed.
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
        self.step, self.how, self.struck = step, how, False
        setattr(self, HOOKS[hook], self._strike)

    def _strike(self, trainer: Trainer, *_: Any) -> None:
        if self.struck or trainer.global_step < self.step or trainer.sanity_checking:
            return
        self.struck = True
        strike(self.how)


class Announce(Callback):
    """Says that training begins, by making a file.

    Args:
        path: the file.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def on_train_start(self, trainer: Trainer, *_: Any) -> None:
        self.path.touch()


def kill_while_writing(moment: str, nth: int) -> None:
    """From now on, this process is killed at a moment of the nth file that is written whole, from 1.

    Args:
        moment: one of `WRITING`.
        nth: which file, from 1. Files that are written whole are renamed from `.NAME.….partial`.
    """
    replace: Callable[..., None] = os.replace
    seen = 0

    def struck(source: Any, target: Any, **options: Any) -> None:
        nonlocal seen
        seen += str(source).endswith(".partial")
        if moment == "half_written" and seen == nth:
            os.truncate(source, os.path.getsize(source) // 2)
        if moment == "after_rename" or seen != nth:
            replace(source, target, **options)
        if seen == nth:
            strike("SIGKILL")

    os.replace = struck
