"""Lock files: one process at a time, on one machine or a shared file system."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(path: Path, shared: bool = False, wait: bool = False) -> Iterator[None]:
    """Holds a lock file; the system frees it when the process ends, however it ends.

    Raises:
        BlockingIOError: someone else holds it, and `wait` is false.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(descriptor)


@contextmanager
def one_maker(path: Path) -> Iterator[None]:
    """Lets one process make a cache file while others that want the same one wait; look again inside.

    Where no lock can be had (a cache that can't be written), everyone makes it: that costs time alone.
    """
    lock = path.with_name(f".{path.name}.lock")
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(lock, wait=True))
        except OSError:
            yield
            return
        try:
            yield
        finally:  # who waits holds the unlinked file and finds the cache made; who comes later never asks for it
            lock.unlink(missing_ok=True)
