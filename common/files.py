"""Files are written whole or not at all, and caches live in one place."""

import errno
import json
import os
import re
import shutil
import socket
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

from common.errors import InputError
from common.terminal import logger

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the disk, the user's share of it, or the largest file allowed
# What spreadsheets take for the beginning of a formula: the last four are wide signs, as in Chinese settings.
FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_NOT_WRITABLE = {errno.EACCES, errno.EROFS, errno.EPERM}
_GONE = {errno.ENOENT, errno.EIO, errno.ENODEV, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT}
# mkdir says EEXIST of a file where a folder should be
_NO_PATH = {errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTEMPTY, errno.ENXIO}
# What is half written says by whom: machine and process.
_HALF_WRITTEN = re.compile(r"\.([0-9a-f]{8})-(\d+)\.[^.]+\.partial")


def atomic_write(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Calls `write` with a temporary file beside `path`, then renames it over `path`.

    Until the rename the old file stays as it was, so a kill or a full disk costs nothing. `InputError`: the disk is
    full or the folder can't be written to.
    """
    try:
        descriptor, name = tempfile.mkstemp(**_temporary_beside(path))
    except OSError as error:
        raise storage_error(path, error) from error
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files private (0600): give back what the user's umask allows.
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        raise storage_error(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_cache(path: Path, content: bytes, what: str) -> None:
    """Writes a file that can be made again, whole; one that can't be written costs only time, so it is a warning."""
    try:
        atomic_write(path, lambda file: file.write(content))
    except (InputError, OSError) as error:
        logger.warning(f"{what} not cached, so each start takes longer: {error}")


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text whole or not at all."""
    atomic_write(path, lambda file: file.write(text.encode()))


def write_json(path: Path, content: object) -> None:
    """Writes JSON whole or not at all. NaN and infinities become null, so that any reader accepts it."""
    write_text(path, json.dumps(finite(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_text(path: Path, errors: str = "strict") -> str:
    """The UTF-8 text of a file, without the mark that some editors and spreadsheets begin it with.

    `OSError`: it can't be read, or is a pipe or a device, which might never end. `ValueError`: it isn't UTF-8.
    """
    if path.is_fifo() or path.is_char_device():
        raise OSError(errno.ENXIO, "it is no file, but a pipe or a device", str(path))
    return path.read_text(encoding="utf-8-sig", errors=errors)


def load_json(path: Path) -> Any:
    """The content of a JSON file.

    `OSError`: see `read_text`. `ValueError`: it isn't JSON, its parts lie in each other too often, or a text in it is
    none that could be written.
    """
    text = read_text(path)
    try:
        content = json.loads(text)
        if re.search(r"\\u[dD][89a-fA-F]", text):  # maybe half a character: only as an escape can it stand there
            json.dumps(content, ensure_ascii=False).encode()
    except RecursionError as error:
        raise ValueError(str(error)) from error
    return content


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Gives a temporary folder beside `path` to write into, and renames it to `path` when all went well.

    After an error nothing is left of it. `InputError`: `path` exists, the disk is full or the folder above can't be
    written to.
    """
    if os.path.lexists(path):
        raise InputError(
            f"{path} exists already, and nothing is overwritten. Choose another --output, or move it away."
        )
    try:
        temporary = Path(tempfile.mkdtemp(**_temporary_beside(path)))
    except OSError as error:
        raise storage_error(path, error) from error
    try:
        yield temporary
        for place in (temporary, *temporary.rglob("*")):  # mkdtemp and safetensors make theirs private
            place.chmod((0o777 if place.is_dir() else 0o666) & ~_umask())
        temporary.rename(path)
    except OSError as error:
        raise storage_error(path, error) from error
    except Exception as error:
        if "No space left on device" in str(error):  # safetensors has an exception of its own
            raise storage_error(path, OSError(errno.ENOSPC, str(error))) from error
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def is_plain_name(name: object) -> bool:
    """Whether it names something inside a folder: no path, no way up."""
    return isinstance(name, str) and name not in ("", ".", "..") and not {"/", "\\", "\x00"} & set(name)


def cache_directory(name: str) -> Path:
    """A folder for things that can be made again: `$RANKWISE_CACHE/name`, by default below `~/.cache`."""
    chosen = os.environ.get("RANKWISE_CACHE")
    root = Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "rankwise"
    try:
        return root.expanduser() / name
    except RuntimeError:  # nobody's home is known: a folder that can't be made, so that nothing is cached
        return Path(os.devnull) / "rankwise" / name


def _temporary_beside(path: Path) -> dict[str, Any]:
    """How `tempfile` names what becomes `path`; its folder is made, and rid of what killed processes left there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(".*.partial"):
        writer = _HALF_WRITTEN.fullmatch(left.name)
        if writer and writer[1] == _machine() and not _is_running(int(writer[2])):
            with suppress(OSError):
                shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
    return {"dir": path.parent, "prefix": f".{_machine()}-{os.getpid()}.", "suffix": ".partial"}


@cache
def _machine() -> str:
    """Where a process number means the same: the machine, and the container in it."""
    try:
        container = os.readlink("/proc/self/ns/pid")
    except OSError:  # no Linux
        container = ""
    return f"{zlib.crc32(f'{socket.gethostname()} {container}'.encode()):08x}"


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's
        return True
    return True


def finite(content: object) -> Any:
    """The content with null in the place of NaN and infinities, which JSON has no name for."""
    return json.loads(json.dumps(content), parse_constant=lambda name: None)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def storage_error(path: Path, error: OSError) -> OSError | InputError:
    """What to tell when a file couldn't be written: an `InputError` if the disk or the folder is the reason."""
    if error.errno in NO_SPACE:
        return InputError(
            f"no space left to write {path} ({error.strerror}); nothing that was there before is lost. "
            "Free some space, or choose another disk with --runs_dir (runs), --output (exports) or "
            "RANKWISE_CACHE (caches)."
        )
    if error.errno in _NOT_WRITABLE:
        return InputError(
            f"can't write {path}: {error.strerror}. Make the folder writable, or choose another one with "
            "--runs_dir (runs), --output (exports) or RANKWISE_CACHE (caches)."
        )
    if error.errno in _GONE:
        return InputError(
            f"can't reach {path}: {error.strerror}. It was moved or deleted meanwhile, or its disk has gone. Put it "
            "back, or choose another place with --runs_dir (runs), --output (exports) or RANKWISE_CACHE (caches)."
        )
    if error.errno in _NO_PATH:
        return InputError(f"can't use {str(path)[:200]!r} as a path: {error.strerror}. Give another one.")
    return error


def no_access(path: Path, error: BaseException | None) -> InputError | None:
    """What to tell when a file couldn't be read for a reason that isn't its content, so that nobody deletes it."""
    if not isinstance(error, OSError) or error.errno not in _NOT_WRITABLE | _GONE:
        return None
    return InputError(
        f"no access to {path}: {error.strerror}. What it holds may be whole: look at the permissions of the file and "
        "of the folders above it, and at its disk."
    )
