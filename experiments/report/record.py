"""One run, as the report sees it, and how it is read from its folder."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import pandas as pd

from common.errors import InputError
from experiments.config_files import flatten, read_yaml
from experiments.results import RunResults
from experiments.typed_json import Part, WrongPartError, read_json

UNSOUND = ("collapsed", "diverged")
STATUSES = ("finished", "collapsed", "diverged", "budget_missed", "failed", "begun", "paused", "waiting")

Config = dict[str, Any]  # settings by command-line name, without init_args

# Settings that earlier versions didn't have, and what their runs were trained with.
_ADDED_LATER: Config = {
    "data.length_multiple": 1,
    "model.backbone_dtype": "float32",
    "model.compile": False,
    "model.cuda_graphs": False,
    "model.gradient_checkpointing": False,
    "model.quantization": "None",
}


@dataclass(frozen=True, kw_only=True)
class RankMoment(Part):
    """The ranks that all layers use at a step: continuous at first, then discrete."""

    epoch: int
    step: int
    alpha: float
    budget: float
    ranks: list[float]


@dataclass(frozen=True, kw_only=True)
class RankHistory(Part):
    """ranks.json: each layer's discrete rank at the end, and the ranks in use over time."""

    ADVICE = "Delete this file: the report then leaves out its ranks."

    layers: dict[str, float]
    history: list[RankMoment]

    @classmethod
    def from_plain(cls, content: object, name: str = "") -> Self:
        found = super().from_plain(content, name)
        for moment in found.history:
            if len(moment.ranks) != len(found.layers):
                told = f"{len(found.layers)} layers, but {len(moment.ranks)} ranks at step {moment.step}"
                raise WrongPartError(f"has {told}")
            if not moment.alpha > 0:
                raise WrongPartError(f"says alpha is {moment.alpha} at step {moment.step}")
        return found

    def rounded(self) -> Self:
        """The same with ranks over time to three decimals: no picture shows more."""
        moments = [replace(moment, ranks=[round(rank, 3) for rank in moment.ranks]) for moment in self.history]
        return replace(self, history=moments)


@dataclass(frozen=True, eq=False)
class Record:
    """One run, finished or not."""

    folder: Path  # its run folder; that of a run read from a file of trials need not exist
    method: str  # the sweep's name for it; empty where there is none
    status: str  # one of `STATUSES`
    results: RunResults | None
    config: Config  # config.yaml; what is known of it where there is none yet
    overrides: Config = field(default_factory=dict)  # what the sweep set
    error: str = ""  # why it failed
    ranks: RankHistory | None = None  # ranks.json of a run that allocates ranks
    metrics: dict[str, pd.Series] = field(default_factory=dict)  # metrics.csv: values by step, of each metric

    @property
    def seed(self) -> int:
        seed = self.results.seed if self.results else self.config.get("seed_everything")
        return seed if isinstance(seed, int) else 0

    def figure(self, kind: str) -> float | None:
        """The validation metric (best or last), the lowest validation loss (loss), or the test figure of the metric."""
        if self.results is None:
            return None
        metric = self.results.metric
        figures = {"best": metric.best, "last": metric.last, "loss": self.results.best_val_loss}
        return self.results.test_figures.get(metric.name) if kind == "test" else figures[kind]

    def by_epoch(self, name: str) -> pd.Series | None:
        """The values of train/epoch_loss, or of a validation figure, by epoch from 1, as results.json has them."""
        if self.results is None:
            return None
        found = {int(entry["epoch"] or 0) + 1: entry.get(name) for entry in self.results.validations}
        if name == "train/epoch_loss":
            found = dict(enumerate(self.results.train_losses or [], start=1))
        return pd.Series(found, dtype=float).dropna()


def with_later_settings(config: Config) -> Config:
    """The settings of a run, and those that its version did not have, without which runs of two versions differ."""
    if not config:  # nothing is known of it yet
        return config
    told = {name.rpartition(".")[0] for name in config}  # a setting with parts of its own
    return {name: value for name, value in _ADDED_LATER.items() if name not in told} | config


def read_run(folder: Path) -> Record:
    """The run in a folder; `InputError`: one of its files is damaged, or it has results and no config.yaml."""
    results, failure = folder / "results.json", folder / "failure.json"
    if not (folder / "config.yaml").exists():
        raise InputError(
            f"{folder} holds results, but no config.yaml, which tells the run's settings. Put that file back, or give "
            "the report other folders."
        )
    found = RunResults.read(results) if results.exists() else None
    error = str(read_json(failure).get("error", "")) if failure.exists() and found is None else ""
    status = found.status if found else "failed" if failure.exists() else "begun"
    return Record(folder, "", status, found, error=error, **read_files(folder))


def read_files(folder: Path) -> dict[str, Any]:
    """The parts of a record that come from config.yaml, ranks.json and metrics.csv, by name.

    `InputError`: one of these files is damaged.
    """
    path, ranks_path = folder / "config.yaml", folder / "ranks.json"
    config = flatten(read_yaml(path)) if path.exists() else {}
    ranks = RankHistory.read(ranks_path) if ranks_path.exists() else None
    return {
        "config": with_later_settings({name.replace(".init_args.", "."): value for name, value in config.items()}),
        "ranks": ranks if ranks and ranks.history else None,
        "metrics": _read_metrics(folder / "metrics.csv"),
    }


def _read_metrics(path: Path) -> dict[str, pd.Series]:
    if not path.exists() or path.stat().st_size == 0:
        return {}
    try:
        # as text: an empty cell wasn't measured, "nan" was
        table = pd.read_csv(path, dtype=str, keep_default_na=False, index_col=False, encoding="utf-8").fillna("")
        steps, columns = table.pop("step"), {name: column[column != ""] for name, column in table.items()}
        return {
            str(name): pd.Series(column.astype(float).to_numpy(), index=steps[column.index].astype(int))
            for name, column in columns.items()
            if len(column)
        }
    except (ValueError, KeyError, OverflowError) as error:
        raise InputError(f"{path} can't be read ({error}): it was changed by hand. Delete this file.") from error
