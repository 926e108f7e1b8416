"""Lock files: one process at a time, on one machine or a shared file system; and caches, which one process makes."""

import contextlib
import errno
import hashlib
import math
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from common.errors import InputError
from common.files import write_cache


@contextmanager
def locked(path: Path, wait: float = 0.0, discard: bool = False) -> Iterator[None]:
    """Holds a lock file, which names its holder; the system frees it when the process ends, however it ends.

    `BlockingIOError`: someone else holds it. `InputError`: it is a link, so that what is written to it would replace
    another file's content. `OSError`: there can be no such file, or the file system has no locks.

    Args:
        path: the file; made if there is none.
        wait: for how many seconds to wait for another holder.
        discard: delete the file at the end, while it is still held. Whoever waits for it then asks for a new one,
            because a lock on a deleted file counts for nothing.
    """
    mine: list[os.stat_result] = []

    def note_holder(descriptor: int) -> None:
        mine.append(os.fstat(descriptor))
        if mine[-1].st_nlink > 1:
            raise _linked(path)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, fallback_to_soft=False, on_acquired=note_holder)
    try:
        lock.acquire(timeout=wait)
    except Timeout as error:
        raise BlockingIOError(errno.EWOULDBLOCK, "held by another process", str(path)) from error
    except OSError as error:
        if error.errno == errno.ELOOP:  # the file is never looked for behind a link
            raise _linked(path) from error
        raise
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if discard and os.path.samestat(path.lstat(), mine[-1]):
                path.unlink()
        lock.release()


@contextmanager
def cache_lock(path: Path) -> Iterator[None]:
    """Lets one process make a cache file while others that want the same one wait; look again inside.

    Where no lock can be had (a cache that can't be written), everyone makes it: that costs time alone.
    """
    with ExitStack() as stack:
        with contextlib.suppress(OSError, InputError):
            stack.enter_context(locked(path.with_name(f".{path.name}.lock"), wait=math.inf, discard=True))
        yield


def cached(path: Path, make: Callable[[], bytes], what: str) -> bytes:
    """The content of a cache file, made once per machine; `what` a warning is about if it can't be kept.

    The file begins with a hash of the rest, so that a damaged one is known, and made again.
    """
    if (content := _whole_content(path)) is not None:
        return content
    with cache_lock(path):  # the trials of a sweep ask for the same at the same moment
        if (content := _whole_content(path)) is None:
            content = make()
            write_cache(path, hashlib.sha256(content).digest() + content, what)
    return content


def _whole_content(path: Path) -> bytes | None:
    with contextlib.suppress(OSError):
        content, size = path.read_bytes(), hashlib.sha256().digest_size
        if hashlib.sha256(memoryview(content)[size:]).digest() == content[:size]:
            return content[size:]
    return None


def _linked(path: Path) -> InputError:
    return InputError(f"{path} is a link to another file; allowed: a file of its own. Delete the link.")
