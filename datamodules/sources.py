"""Raw text to `Examples`, and what all readers share: lines, labels, messages that name file and line."""

import gzip
import io
import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import InputError
from datamodules.task import Task

GZIP_MAGIC = b"\x1f\x8b"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
CHUNK = 1 << 20
LONGEST_NAME = 60  # characters of a name that a message shows


@dataclass(frozen=True)
class Examples:
    """The rows of one split.

    Attributes:
        texts: first (or only) text of each row.
        pairs: second text of each row, None for single sentences.
        labels: label index of each row, a number for regression, None when the split is unlabelled.
        tags: a group each row belongs to (for example the phenomenon), None when there are none.
    """

    texts: list[str]
    pairs: list[str] | None = None
    labels: list[int] | list[float] | None = None
    tags: list[str] | None = None

    def __len__(self) -> int:
        return len(self.texts)

    def select(self, rows: Sequence[int]) -> "Examples":
        """The given rows, in the given order."""

        def pick(column: list[Any] | None) -> list[Any] | None:
            return None if column is None else [column[row] for row in rows]

        return Examples([self.texts[row] for row in rows], pick(self.pairs), pick(self.labels), pick(self.tags))


def examples_of(
    task: Task,
    texts: Sequence[Sequence[Any]],
    labels: Sequence[Any] | None,
    where: Callable[[int], str],
) -> Examples:
    """Checks the columns of a split and turns them into `Examples`.

    Args:
        task: says how many texts a row has and which labels are allowed.
        texts: one column per text field.
        labels: label column, None for an unlabelled split.
        where: names a row (file and line) in messages.

    Raises:
        InputError: an empty text, something that is not text, or a label outside the task's set.
    """
    for column, field in zip(texts, task.text_fields, strict=True):
        for row, text in enumerate(column):
            check_text(text, field, where, row, may_be_empty=task.name == "qqp")
    parsed: list[Any] | None = None
    if labels is not None:
        parsed = [parse_label(task, label, where, row) for row, label in enumerate(labels)]
    return Examples(list(texts[0]), list(texts[1]) if task.is_pair else None, parsed)


def check_text(text: Any, field: str, where: Callable[[int], str], row: int, may_be_empty: bool = False) -> None:
    """Raises InputError unless `text` is text that can be tokenised.

    `may_be_empty` is for QQP, whose published files have a few empty questions.
    """
    if not isinstance(text, str):
        raise InputError(f"{where(row)}: {field} is {text!r}; allowed: text. Correct or remove the row.")
    if not text.strip() and not may_be_empty:
        raise InputError(f"{where(row)}: {field} is empty ({text!r}); allowed: text. Correct or remove the row.")
    if "\x00" in text or not _encodable(text):
        raise InputError(
            f"{where(row)}: {field} is {text[:60]!r}, which holds a NUL or half of a surrogate pair; "
            "allowed: valid Unicode text. Correct or remove the row."
        )


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def parse_label(task: Task, label: Any, where: Callable[[int], str], row: int) -> int | float:
    """A label index (given as number or name), or a number for regression.

    Raises:
        InputError: anything else.
    """
    if isinstance(label, str) and label in task.label_names:
        return task.label_names.index(label)
    try:
        number = math.nan if label is None or isinstance(label, bool) else float(label)
    except (TypeError, ValueError):
        number = math.nan
    if task.is_regression and math.isfinite(number):
        return number
    if not task.is_regression and number in range(task.num_labels):
        return int(number)
    raise InputError(f"{where(row)}: label is {label!r}; allowed: {task.allowed_labels}. Correct or remove the row.")


def read_lines(path: Path) -> list[tuple[int, str]]:
    """Line numbers and lines of a UTF-8 text file, gzip-compressed or not; without blank lines at the end.

    Only line feeds end a line: text may hold other characters that Python's splitlines would split at.

    Raises:
        InputError: unreadable, empty, damaged gzip, not UTF-8, or with NUL bytes.
    """
    content = _read_bytes(path)
    lines = content.removeprefix(BYTE_ORDER_MARK).split(b"\n")
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise InputError(f"{path} is empty. Fetch the file again, or take it away.")
    return [(number, _decode(path, number, line)) for number, line in enumerate(lines, start=1)]


def read_text(path: Path) -> str:
    """The whole of a UTF-8 text file, gzip-compressed or not, with line feeds as line ends.

    Raises:
        InputError: unreadable, nothing but blanks, damaged gzip, not UTF-8, or with NUL bytes.
    """
    content = _read_bytes(path).removeprefix(BYTE_ORDER_MARK)
    if not content.strip():
        raise InputError(f"{path} is empty. Fetch the file again, or take it away.")
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = "\x00"
    if "\x00" in text:  # line by line, for the number of the line at fault
        text = "\n".join(_decode(path, number, line) for number, line in enumerate(content.split(b"\n"), start=1))
    return text.replace("\r\n", "\n")


def _decode(path: Path, number: int, line: bytes) -> str:
    if b"\x00" in line:
        raise InputError(
            f"{path}, line {number}: a NUL byte; allowed: UTF-8 text. "
            "If the file is UTF-16, convert it: iconv -f UTF-16 -t UTF-8."
        )
    try:
        return line.removesuffix(b"\r").decode()
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}, line {number}: byte {line[error.start : error.start + 1]!r} is not valid UTF-8; "
            "allowed: UTF-8 text. Convert the file, for example from Latin-1: iconv -f LATIN1 -t UTF-8."
        ) from error


def _read_bytes(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"can't read {path}: {error.strerror}. Check the path and its permissions.") from error
    if content.startswith(GZIP_MAGIC):
        return _decompress(path, content)
    if path.suffix == ".gz" and content:
        raise InputError(f"{path} is not gzip-compressed, though its name says so. Rename it, or fetch it again.")
    return content


def _decompress(path: Path, content: bytes) -> bytes:
    parts: list[bytes] = []
    try:
        with gzip.open(io.BytesIO(content)) as file:
            # read1, not read: it hands over what it has before it meets the damage.
            while chunk := file.read1(CHUNK):
                parts.append(chunk)
    except (EOFError, OSError, zlib.error) as error:
        line = b"".join(parts).count(b"\n") + 1
        raise InputError(
            f"{path}, after line {line}: the gzip data is damaged or cut off ({error}). Fetch the file again."
        ) from error
    return b"".join(parts)


def find_file(folder: Path, names: Sequence[str]) -> Path | None:
    """The first of `names` that is in `folder`, plain or with `.gz`."""
    for name in names:
        for candidate in (folder / name, folder / f"{name}.gz"):
            if candidate.is_file():
                return candidate
    return None


def require_file(folder: Path, names: Sequence[str]) -> Path:
    """`find_file`, or an InputError that lists what was looked for and what is there."""
    path = find_file(folder, names)
    if path is None:
        raise InputError(
            f"{folder} has no {' or '.join(names)} (plain or .gz). It holds: {folder_content(folder)}. "
            "Add the file, or give another --data.data_dir."
        )
    return path


def folder_content(folder: Path) -> str:
    """The names in a folder, for messages."""
    return listing(sorted(entry.name + "/" * entry.is_dir() for entry in folder.iterdir()))


def listing(names: Sequence[str], limit: int = 20) -> str:
    """Names for a message: the first few, each cut to a few words, and how many there are."""
    more = f", … ({len(names)} in all)" if len(names) > limit else ""
    shown = (name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}…" for name in names[:limit])
    return (", ".join(shown) or "nothing") + more


def check_labels(name: str, split: str, task: Task, examples: Examples) -> None:
    """Raises InputError when a split has no labels or only one: nothing could be learnt from it, or chosen by it."""
    if examples.labels is None:
        raise InputError(f"the {split} split of {name} has no labels; allowed: {task.allowed_labels} in each row.")
    found = sorted(set(examples.labels))
    if len(found) < 2:
        label = found[0] if task.is_regression else task.label_names[int(found[0])]
        raise InputError(
            f"all {len(examples)} {split} rows of {name} have the label {label!r}; a {split} split needs at least two "
            f"different labels. Check the file, or take more rows (--data.{split}_rows)."
        )
