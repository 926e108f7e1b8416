"""metrics.csv: every logged number, one row per step, readable without any of this project's code."""

import csv
import io
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from common.files import write_text


class MetricsTable(Logger):
    """A Lightning logger that writes metrics.csv into the run folder.

    Rows are appended once their step is over; a new metric rewrites the file with one more column.

    Args:
        folder: the run folder.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.path = folder / "metrics.csv"
        self._columns: list[str] = ["step"]
        self._rows: list[dict[str, str]] = []  # the last one is open: its step may still log more
        self._on_file = 0  # rows that the file holds
        self._outdated = True  # whether the file must be written anew instead of appended to

    @property
    def name(self) -> str:
        return ""

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Hyperparameters are in config.yaml."""

    @rank_zero_only
    def continue_from(self, step: int) -> None:
        """Reads the rows of an interrupted run and forgets those from this step on."""
        if not self.path.exists():
            return
        with self.path.open(newline="") as file:
            reader = csv.DictReader(file)
            self._columns = list(reader.fieldnames or ["step"])
            rows = [row for row in reader if None not in row.values() and (row.get("step") or "").isdigit()]
        self._rows = [{k: v for k, v in row.items() if v != ""} for row in rows if int(row["step"]) < step]
        self.flush()

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        values = {name: _text(value) for name, value in metrics.items()}
        if new := [name for name in values if name not in self._columns]:
            self._columns.extend(new)
            self._outdated = True
        if self._rows and self._rows[-1]["step"] == str(step):
            self._rows[-1].update(values)
            self._outdated |= self._on_file == len(self._rows)
            return
        self._append()
        self._rows.append({"step": str(step), **values})

    @rank_zero_only
    def flush(self) -> None:
        """Writes the whole table, the open row included."""
        text = io.StringIO()
        writer = csv.DictWriter(text, self._columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows)
        write_text(self.path, text.getvalue())
        self._on_file, self._outdated = len(self._rows), False

    @rank_zero_only
    def finalize(self, status: str) -> None:
        if self._rows:
            self.flush()

    def _append(self) -> None:
        if self._outdated:
            self.flush()
            return
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self._columns, lineterminator="\n").writerows(self._rows[self._on_file :])
        self._on_file = len(self._rows)


def _text(value: float) -> str:
    return repr(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(float(value))
