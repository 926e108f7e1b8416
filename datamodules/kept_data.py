"""Keeps the rows and tokens of the last data module for the next one that would read the same."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule

from common.kept import LastMade
from datamodules.tokenized_data import TokenizedDataModule

# What says how rows are batched, and Lightning's own: neither changes what is read. All else counts, private or not: a
# setting left out by mistake would hand over the wrong rows, one too many costs a second reading.
_NO_MATTER = {"seed", "batch_size", "evaluation_batch_size", "batching", "tokenizer", "dropped_train_rows"}
_NO_MATTER |= vars(LightningDataModule()).keys()

_last: LastMade[dict[str, Any]] = LastMade()  # the attributes that reading has set


def keep_data() -> AbstractContextManager[None]:
    """Within it, data modules take over what the last one read, if class, settings and files are the same."""
    return _last.keeping()


def holds_data_of(module: TokenizedDataModule) -> bool:
    """Whether an earlier data module has read what this one would."""
    return _last.is_keeping and _last.get(_key(module)) is not None


@contextmanager
def reading(module: TokenizedDataModule) -> Iterator[bool]:
    """Yields whether rows have to be read, and if so remembers every attribute that reading sets."""
    if not _last.is_keeping:
        yield True
        return
    key = _key(module)
    if (attributes := _last.get(key)) is not None:
        vars(module).update(attributes)
        yield False
        return
    before = dict(vars(module))
    yield True
    _last.put(key, {name: value for name, value in vars(module).items() if value is not before.get(name, before)})


def _key(module: TokenizedDataModule) -> tuple[Any, ...]:
    settings = {name: value for name, value in vars(module).items() if name not in _NO_MATTER}
    named = [Path(value) for value in settings.values() if isinstance(value, str)]
    files = [stamp for path in (*named, *module.places) for stamp in _stamps(path)]
    return type(module), repr(settings), tuple(files)


def _stamps(path: Path) -> list[tuple[str, int, int]]:
    """Name, size and time of change of a file, or of the files in a folder and two levels below."""
    try:
        path = path.expanduser()
        found = [path] if path.is_file() else [file for deep in ("*", "*/*", "*/*/*") for file in path.glob(deep)]
        return sorted((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in found)
    except (OSError, RuntimeError):  # no such path, or one that is being changed
        return []
