"""Keeps the rows and tokens of the last data module for the next one that would read the same."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from lightning.pytorch import LightningDataModule

# What says how rows are batched, and Lightning's own: neither changes what is read.
_NO_MATTER = {"seed", "batch_size", "evaluation_batch_size", "batching", "trainer", "tokenizer", "dropped_train_rows"}


class _Kept(NamedTuple):
    key: tuple[Any, ...]
    attributes: dict[str, Any]


_keeping = False
_kept: _Kept | None = None  # the last one: what neighbouring trials share


@contextmanager
def keep_data() -> Iterator[None]:
    """Within it, data modules take over what the last one read, if class, settings and files are the same."""
    global _keeping, _kept
    _keeping = True
    try:
        yield
    finally:
        _keeping, _kept = False, None


def holds_data_of(module: LightningDataModule) -> bool:
    """Whether an earlier data module has read what this one would."""
    return _kept is not None and _kept.key == _key(module)


@contextmanager
def reading(module: LightningDataModule) -> Iterator[bool]:
    """Yields whether rows have to be read, and if so remembers every attribute that reading sets."""
    global _kept
    if not _keeping:
        yield True
        return
    key = _key(module)
    if _kept is not None and _kept.key == key:
        vars(module).update(_kept.attributes)
        yield False
        return
    before = dict(vars(module))
    yield True
    changed = {name: value for name, value in vars(module).items() if value is not before.get(name, before)}
    _kept = _Kept(key, changed)


def _key(module: LightningDataModule) -> tuple[Any, ...]:
    settings = {
        name: value for name, value in vars(module).items() if name not in _NO_MATTER and not name.startswith("_")
    }
    files = [stamp for value in settings.values() if isinstance(value, str) for stamp in _stamps(Path(value))]
    return type(module), repr(settings), tuple(files)


def _stamps(path: Path) -> list[tuple[str, int, int]]:
    """Name, size and time of change of a file, or of the files in a folder and two levels below."""
    try:
        path = path.expanduser()
        found = [path] if path.is_file() else [file for deep in ("*", "*/*", "*/*/*") for file in path.glob(deep)]
        return sorted((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in found)
    except (OSError, RuntimeError):  # no such path, or one that is being changed
        return []
