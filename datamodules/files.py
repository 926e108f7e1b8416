"""One file: text, CSV, tab-separated text, JSON-lines or Parquet, all but Parquet plain or gzip-compressed.

Parquet is read by pyarrow. The text formats are read line by line with Python's own csv and json modules, because a
row that can't be used must be named by its line, and a text must stay as it is written: pyarrow's CSV reader ends rows
at a carriage return within a text and forgives quotation marks that don't fit together, its JSON reader makes dates of
texts that look like one, and neither knows a row's line.
"""

import csv
import gzip
import json
import re
import string
import zlib
from collections import Counter
from collections.abc import Sequence
from itertools import compress
from pathlib import Path
from typing import Any

from common.errors import InputError, listing, one_of, reason
from common.terminal import logger
from datamodules.sources import Table

GZIP_MAGIC = b"\x1f\x8b"
_PACKED = re.compile(rb"(?P<zstd>\x28\xb5\x2f\xfd)|(?P<bzip2>BZh[1-9]1AY&SY)|(?P<xz>\xfd7zXZ\0)|(?P<zip>PK\x03\x04)")
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
SEPARATORS = {".csv": ",", ".tsv": "\t"}
JSON_ENDINGS = (".jsonl", ".json")
COLUMN_ENDINGS = (".parquet", *JSON_ENDINGS)
TABLE_ENDINGS = (*COLUMN_ENDINGS, *SEPARATORS)
_SEPARATOR_LINE = re.compile(r'(?i)"?sep=([^\w"])"?\1*')
csv.field_size_limit(2**31 - 1)  # the module refuses cells over 131,072 characters; texts may be longer


def table_ending(name: str) -> str:
    """The ending that says how a file is read: of plain or .gz files, in small letters."""
    return Path(name.lower().removesuffix(".gz")).suffix


def read_table(path: Path, wanted: Sequence[str], separator: str | None = None) -> Table:
    """Reads a file with named columns by its ending: .parquet, .jsonl, .json, .csv or .tsv.

    No row may lack a column that is `wanted`, once it is there. `separator` is what stands between the cells of a .csv
    or .tsv file, if not comma or tab; only .csv has quoting. `InputError`: another ending, no rows, or a row that can't
    be read (with file and row or line number).
    """
    ending = table_ending(path.name)
    if ending in SEPARATORS:
        return read_delimited(path, separator or SEPARATORS[ending], quoted=ending == ".csv")
    if ending not in COLUMN_ENDINGS:
        raise one_of(f"the ending of {path}", ending, TABLE_ENDINGS)
    table = _read_parquet(path, wanted) if ending == ".parquet" else _read_json_lines(path, wanted)
    if not len(table):
        raise InputError(f"{path} has no rows. Fetch or write it again, or take it away.")
    return table


def read_delimited(
    path: Path,
    separator: str,
    names: Sequence[str] | None = None,
    heading: str | None = None,
    skip_broken: bool = False,
    quoted: bool = True,
) -> Table:
    """Rows of cells between separators.

    Spreadsheets write columns and rows without content at the end, which are left out, and perhaps a first line such as
    `sep=;`, which names the separator. `InputError`: see `read_lines`; quotation marks that don't fit together; a
    column named twice; a broken row; or no row at all.

    Args:
        names: names of the columns; not given: they are in the first row.
        heading: a first row that begins so, whatever the case, is no row but names the columns.
        skip_broken: leave out rows with more or fewer cells than names, instead of refusing them.
        quoted: quotation marks around a cell let it hold separators, line breaks and doubled quotation marks; if not
            so, they are text like any other, as in GLUE's files.
    """
    lines = read_rows(path)
    declared = _SEPARATOR_LINE.fullmatch(lines[0]) if quoted and len(lines) > 1 else None
    rows, starts = _cells(path, lines, declared[1] if declared else separator, quoted, skipped=1 if declared else 0)
    if names is None or (heading is not None and separator.join(rows[0]).lower().startswith(heading)):
        header = rows[0]
        names = names or header[: max(_content(header), min(len(header), max(map(_content, rows))))]
        rows, starts = rows[1:], starts[1:]
    if twice := sorted(name for name, count in Counter(names).items() if count > 1):
        raise InputError(f"{path}, line 1: the header has {listing(twice)} more than once; rename one of them.")
    if not skip_broken:
        while rows and not _content(rows[-1]):
            rows.pop()
        rows = [row[: len(names)] if len(row) > len(names) >= _content(row) else row for row in rows]
    whole = [len(row) == len(names) for row in rows]
    if skip_broken and not all(whole):
        logger.info(f"{path}: left out {whole.count(False)} lines that are pieces of broken rows.")
        rows, starts = list(compress(rows, whole)), list(compress(starts, whole))
    elif not all(whole):
        first = whole.index(False)
        kind = {"\t": "tab", ",": "comma"}.get(separator, repr(separator))
        row = separator.join(rows[first])[:80]
        raise InputError(
            f"{path}, line {starts[first]}: {len(rows[first])} {kind}-separated columns in {row!r}; allowed: "
            f"{len(names)} ({listing(names)}). Correct or remove the row."
        )
    if not rows:
        raise InputError(f"{path} has no rows, only a header. Fetch or write it again, or take it away.")
    columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    return Table(columns, lambda row: f"{path}, line {starts[row]}", str(path))


def _content(row: Sequence[str]) -> int:
    """How many cells of a row are left without the empty ones at its end."""
    return next((place for place in range(len(row), 0, -1) if row[place - 1].strip()), 0)


def _cells(
    path: Path, lines: list[str], separator: str, quoted: bool, skipped: int
) -> tuple[list[list[str]], list[int]]:
    """The cells of each row after the lines that are skipped, and the line it begins on."""
    if not quoted:
        return [line.split(separator) for line in lines], list(range(1, len(lines) + 1))
    rows: list[list[str]] = []
    starts = [1 + skipped]
    # An iterator over lines, not a text stream: only line feeds end a line, so that line numbers are an editor's.
    unread = (f"{line}\n" for line in lines[skipped:])
    reader = csv.reader(unread, delimiter=separator, strict=True, skipinitialspace=True)
    try:
        for cells in reader:
            rows.append(cells)
            starts.append(1 + skipped + reader.line_num)
    except csv.Error as error:
        raise InputError(
            f"{path}, line {starts[-1]}: {lines[starts[-1] - 1][:80]!r} begins a row that can't be read, up to "
            f"line {skipped + reader.line_num}: {error}. Allowed: cells between {separator!r}; a cell with quotation "
            'marks stands in quotation marks itself, each inner one doubled ("say ""hi"""). Correct or remove the row.'
        ) from error
    return rows, starts[:-1]


def _read_json_lines(path: Path, wanted: Sequence[str]) -> Table:
    records: list[dict[str, Any]] = []
    for number, line in enumerate(read_rows(path), start=1):
        try:
            records.append(record := json.loads(line, object_pairs_hook=_once))
            fault = "" if isinstance(record, dict) else "a JSON object"
        except (ValueError, RecursionError) as error:  # thousands of brackets in one another
            fault = f"JSON ({error})"
        if fault:
            raise InputError(f"{path}, line {number}: {line[:60]!r} is not {fault}; allowed: one JSON object per line.")
    needed = [name for name in wanted if any(name in record for record in records)]
    columns = {name: [record.get(name) for record in records] for name in records[0]}
    table = Table(columns, lambda row: f"{path}, line {row + 1}", str(path))
    for row, record in enumerate(records):
        if missing := [name for name in needed if name not in record]:
            found = f"no {' and no '.join(missing)} among {listing(list(record))}"
            raise table.row_error(row, found, f"{', '.join(needed)} in every line")
    return table


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; `ValueError`: it has one name twice."""
    if twice := [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]:
        raise ValueError(f"{twice[0]!r} is given twice")
    return dict(pairs)


def _read_parquet(path: Path, wanted: Sequence[str]) -> Table:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
        # the other columns stay as they are: Python may not know their values, such as a date in the year 20,000
        columns = {name: table[name].to_pylist() if name in wanted else table[name] for name in table.column_names}
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        raise InputError(f"{path} can't be read as Parquet: {reason(error)}. Fetch or write the file again.") from error
    return Table(columns, lambda row: f"{path}, row {row + 1}", str(path))


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 text file as they are; after a line feed at its end comes one more, empty line.

    Only line feeds end a line: text may hold other characters that Python's splitlines would split at. In a file
    without any, carriage returns do, as old spreadsheets write them. `InputError`: unreadable, nothing but blanks,
    damaged gzip, not UTF-8, or with NUL bytes.
    """
    content = _read_content(path)
    if b"\n" not in content.strip():
        content = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if (place := content.find(b"\x00")) >= 0:
        raise InputError(
            f"{path}, line {_line(content, place)}: a NUL byte; allowed: UTF-8 text. "
            "If the file is UTF-16, convert it: iconv -f UTF-16 -t UTF-8."
        )
    try:
        return [line.removesuffix("\r") for line in content.decode().split("\n")]
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}, line {_line(content, error.start)}: byte {content[error.start : error.start + 1]!r} is not valid "
            "UTF-8; allowed: UTF-8 text. Convert the file, for example from Latin-1: iconv -f LATIN1 -t UTF-8."
        ) from error


def _line(content: bytes, place: int) -> int:
    return content.count(b"\n", 0, place) + 1


def read_rows(path: Path) -> list[str]:
    """`read_lines` without blank lines at the end."""
    lines = read_lines(path)
    while not lines[-1].strip(string.whitespace):
        lines.pop()
    return lines


def _read_content(path: Path) -> bytes:
    """The bytes of a file, decompressed and without byte order mark; InputError if there are none but blanks."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"can't read {path}: {error.strerror}. Check the path and its permissions.") from error
    if content.startswith(GZIP_MAGIC):
        try:
            content = gzip.decompress(content)
        except (EOFError, OSError, zlib.error) as error:
            raise InputError(f"{path}: the gzip data is damaged or cut off ({error}). Fetch the file again.") from error
    elif path.suffix == ".gz" and content:
        raise InputError(f"{path} is not gzip-compressed, though its name says so. Rename it, or fetch it again.")
    if other := _PACKED.match(content):
        raise InputError(f"{path} is a {other.lastgroup} archive; allowed: plain text, or .gz. Unpack it.")
    if (packed := path.with_name(f"{path.name}.gz")).is_file():
        logger.info(f"{path} is read, and {packed.name} beside it is not.")
    content = content.removeprefix(BYTE_ORDER_MARK)
    if not content.strip():
        raise InputError(f"{path} is empty. Fetch the file again, or take it away.")
    return content


def read_predict_table(path: Path, fields: Sequence[str], separator: str | None, advice: str) -> Table:
    """The rows to predict on: of a table by the columns `fields`; of any other file one a line, pairs with a tab.

    `InputError`: a missing or empty file, a missing column, or for pairs a line without exactly one tab.
    """
    if not path.is_file():
        endings = ", ".join(TABLE_ENDINGS)
        raise InputError(
            f"predict_file is '{path}', which is not a file; allowed: a text file, or a table ({endings})."
        )
    if table_ending(path.name) in TABLE_ENDINGS:
        table = read_table(path, fields, separator)
        table.require(fields, advice)
        return table
    if len(fields) > 1:
        return read_delimited(path, "\t", fields, quoted=False)
    # In single sentences a tab is text like any other.
    return Table({fields[0]: read_rows(path)}, lambda row: f"{path}, line {row + 1}", str(path))
