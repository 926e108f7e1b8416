"""Text files whose rows are cells between separators: CSV with its quoting, and tab-separated text without."""

import csv
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from common.errors import InputError
from datamodules.sources import listing, read_lines

SEPARATORS = {".csv": ",", ".tsv": "\t"}


class Row(NamedTuple):
    """A row and the number of the line it begins on."""

    line: int
    cells: list[str]


def read_rows(path: Path, separator: str) -> list[Row]:
    """All rows of a file, plain or gzip-compressed.

    Quotation marks around a cell let it hold separators, line breaks and doubled quotation marks. Where the separator
    is a tab they are text like any other, as in GLUE's files.

    Raises:
        InputError: see `read_lines`; or quotation marks that don't fit together.
    """
    lines = read_lines(path)
    if separator == "\t":
        return [Row(number, line.split("\t")) for number, line in lines]
    return _read_quoted(path, lines, separator)


def _read_quoted(path: Path, lines: Sequence[tuple[int, str]], separator: str) -> list[Row]:
    rows: list[Row] = []
    start = 1
    # An iterator over lines, not a text stream: only line feeds end a line, so that line numbers are an editor's.
    reader = csv.reader((f"{line}\n" for _, line in lines), delimiter=separator, strict=True, skipinitialspace=True)
    with _cells_of_any_length():
        try:
            for cells in reader:
                rows.append(Row(start, cells))
                start = reader.line_num + 1
        except csv.Error as error:
            raise InputError(
                f"{path}, line {start}: {lines[start - 1][1][:80]!r} begins a row that can't be read, up to line "
                f"{reader.line_num}: {error}. Allowed: cells between {separator!r}; a cell with quotation marks stands "
                'in quotation marks itself, each inner one doubled ("say ""hi"""). Correct or remove the row.'
            ) from error
    return rows


@contextmanager
def _cells_of_any_length() -> Iterator[None]:
    """The csv module refuses cells over 131,072 characters; a document may be longer."""
    limit = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        yield
    finally:
        csv.field_size_limit(limit)


def check_widths(path: Path, rows: Sequence[Row], header: Sequence[str], separator: str = "\t") -> None:
    """Raises InputError for a row that has more or fewer cells than `header`."""
    kind = {"\t": "tab", ",": "comma"}.get(separator, repr(separator))
    for row in rows:
        if len(row.cells) != len(header):
            raise InputError(
                f"{path}, line {row.line}: {len(row.cells)} {kind}-separated columns in "
                f"{separator.join(row.cells)[:80]!r}; allowed: {len(header)} ({listing(header)}). "
                "Correct or remove the row."
            )
