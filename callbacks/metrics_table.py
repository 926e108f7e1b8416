"""metrics.csv: every logged number, one row per step, readable without any of this project's code."""

import csv
import io
import re
import zlib
from contextlib import suppress
from pathlib import Path

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from common.errors import listing
from common.files import read_text, write_text
from common.terminal import logger


class MetricsTable(Logger):
    """A Lightning logger that writes metrics.csv into the run folder.

    Rows are appended once their step is over; a new metric rewrites the file with one more column. `checksums`, by
    step, are of the rows that were on file at the last `save`: checkpoints keep them.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.path = folder / "metrics.csv"
        self.checksums: dict[int, int] = {}
        self._columns: list[str] = ["step"]
        self._open: dict[str, str] | None = None  # the last row: its step may still log more; all others are on file
        self._open_on_file = False  # whether the file's last row is the open one
        self._begun = False  # whether what the file holds is this run's
        self._outdated = True  # whether the file must be written anew instead of appended to
        self._resumed_step: int | None = None  # where an interrupted run goes on, until its rows are taken up

    @property
    def name(self) -> str:
        return ""

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, params: object, *args: object, **kwargs: object) -> None:
        """Hyperparameters are in config.yaml."""

    @rank_zero_only
    def continue_from(self, step: int, checksums: dict[int, int] | None = None) -> None:
        """Takes up the rows of an interrupted run and forgets those from this step on, once there is a new one.

        Not earlier: a resumption that is refused must cost no row. Rows that were lost or damaged since the
        checkpoint was written at this step, with these checksums of its rows, are named.
        """
        if self.path.exists():
            self._resumed_step = step
        rows = _by_step(self._read()[1]) if self.path.exists() else {}
        # the last row's step may have logged more since
        kept = sorted(checksums or {})[:-1]
        lost = [str(row) for row in kept if row not in rows]
        damaged = [str(row) for row in kept if row in rows and _checksum(rows[row]) != (checksums or {})[row]]
        for steps, fate in ((lost, "lost"), (damaged, "damaged")):
            if steps:
                logger.warning(
                    f"{self.path} has {fate} rows since the checkpoint was written, of the steps "
                    f"{listing(steps, limit=10)}. Training continues. TensorBoard's files hold the same "
                    "figures."
                )

    def _take_up(self) -> None:
        if self._resumed_step is None:
            return
        step, self._resumed_step = self._resumed_step, None
        columns, rows = self._read()
        rows = [row for number, row in _by_step(rows).items() if number < step]
        self._columns = columns
        self._open, self._open_on_file = (rows.pop() if rows else None), False
        self._write(rows)

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self._take_up()
        values = {name: _text(value) for name, value in metrics.items()}
        if new := [name for name in values if name not in self._columns]:
            self._columns.extend(new)
            self._outdated = True
        if self._open is not None and self._open["step"] == str(step):
            self._open.update(values)
            self._outdated |= self._open_on_file
            return
        self._append()
        self._open, self._open_on_file = {"step": str(step), **values}, False

    @rank_zero_only
    def save(self) -> None:
        """Writes the whole table, the open row included.

        Not before this run's first row: Lightning calls this when a fit begins, which may still be refused.
        """
        if self._open is not None:
            self._write_anew()

    def _write_anew(self) -> None:
        self._take_up()
        rows = self._read()[1] if self._begun else []
        self._write(rows[:-1] if self._open_on_file else rows)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self.save()

    def _append(self) -> None:
        if self._outdated:
            self._write_anew()
        elif self._open is not None and not self._open_on_file:
            with self.path.open("a", newline="") as file:
                csv.DictWriter(file, self._columns, lineterminator="\n").writerow(self._open)

    def _read(self) -> tuple[list[str], list[dict[str, str]]]:
        """Columns and whole rows of the file, without empty cells."""
        text = read_text(self.path, "replace").replace("\x00", "\ufffd")  # csv refuses to read on after a NUL
        reader = csv.DictReader(io.StringIO(text))
        columns = list(dict.fromkeys(["step", *(reader.fieldnames or [])]))
        rows: list[dict[str, str]] = []
        with suppress(csv.Error):  # a quotation mark that came in makes one endless cell of what follows
            rows.extend(row for row in reader if None not in row and None not in row.values())
        return columns, [{name: value for name, value in row.items() if value != ""} for row in rows]

    def _write(self, rows: list[dict[str, str]]) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, self._columns, lineterminator="\n")
        writer.writeheader()
        rows = [*rows, *([self._open] if self._open is not None else [])]
        writer.writerows(rows)
        write_text(self.path, text.getvalue())
        self.checksums = {step: _checksum(row) for step, row in _by_step(rows).items()}
        self._begun, self._open_on_file, self._outdated = True, self._open is not None, False


def _by_step(rows: list[dict[str, str]]) -> dict[int, dict[str, str]]:
    return {int(row["step"]): row for row in rows if re.fullmatch(r"\d{1,18}", row.get("step", ""))}


def _checksum(row: dict[str, str]) -> int:
    return zlib.crc32(repr(sorted((name, value) for name, value in row.items() if value != "")).encode())


def _text(value: float) -> str:
    return repr(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(float(value))
