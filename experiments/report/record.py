"""One run, as the report sees it."""

import csv
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from common.errors import InputError
from experiments.config_files import flatten, read_yaml
from experiments.results_file import read_results

STATUSES = ("finished", "collapsed", "diverged", "budget_missed", "failed", "begun", "waiting")


@dataclass(frozen=True)
class Record:
    """One run, finished or not.

    Attributes:
        folder: its run folder.
        method: the sweep's name for it; empty where there is none.
        status: finished, collapsed, diverged, budget_missed, failed, begun or waiting.
        results: its results.json, or None.
        overrides: what the sweep set.
        error: why it failed.
        like: another seed of the same settings, which tells them when the run came to nothing before it wrote its own.
    """

    folder: Path
    method: str
    status: str
    results: dict[str, Any] | None
    overrides: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    like: "Record | None" = None

    @cached_property
    def config(self) -> dict[str, Any]:
        """config.yaml by command-line name, without init_args; what is known of it where there is none yet."""
        path = self.folder / "config.yaml"
        if not path.exists():
            return {**self.like.config, "seed_everything": self.seed} if self.like else dict(self.overrides)
        return {name.replace(".init_args.", "."): value for name, value in flatten(read_yaml(path)).items()}

    @cached_property
    def ranks(self) -> dict[str, Any] | None:
        """ranks.json of a run that allocates ranks."""
        path = self.folder / "ranks.json"
        content = read_results(path) if path.exists() else None
        return content if content and content["history"] else None

    @cached_property
    def metrics_table(self) -> dict[str, list[tuple[int, float]]]:
        """metrics.csv: (step, value) pairs by metric."""
        path = self.folder / "metrics.csv"
        columns: dict[str, list[tuple[int, float]]] = {}
        if not path.exists():
            return columns
        try:
            with path.open(newline="", encoding="utf-8") as file:
                for row in csv.DictReader(file):
                    for name, text in row.items():
                        if name and name != "step" and text:
                            columns.setdefault(name, []).append((int(row["step"]), float(text)))
        except (ValueError, KeyError, TypeError, csv.Error) as error:
            raise InputError(f"{path} can't be read ({error}): it was changed by hand. Delete this file.") from error
        return columns

    @property
    def seed(self) -> int:
        known = self.overrides if "seed_everything" in self.overrides or self.like else self.config
        seed = self.results["seed"] if self.results else known.get("seed_everything", 0)
        return int(seed or 0)

    @property
    def metric(self) -> dict[str, Any] | None:
        """Name, best, best_epoch and last of the validation metric; None without results."""
        return self.results["metric"] if self.results else None

    @property
    def best(self) -> float | None:
        return self.results["metric"]["best"] if self.results else None

    @property
    def last(self) -> float | None:
        return self.results["metric"]["last"] if self.results else None

    @property
    def loss(self) -> float | None:
        """The lowest validation loss of an epoch."""
        return self.results["best_val_loss"] if self.results else None

    @property
    def test(self) -> float | None:
        """The test figure under the validation metric's name."""
        if not self.results or not self.results.get("test"):
            return None
        return self.results["test"].get(self.results["metric"]["name"])
