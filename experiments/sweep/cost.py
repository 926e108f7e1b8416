"""What trials will cost: rows to train on, and time where a finished run tells the speed."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch.cli import instantiate_class

from common.errors import InputError
from experiments.sweep.folder import State, SweepFolder
from lightning_modules.peft_adapter import PEFTAdapter
from lightning_modules.peft_methods import METHODS

Speed = dict[tuple[str, str], list[float]]  # (backbone, adapter class) -> seconds per training row, of finished runs
Estimate = tuple[int | None, float | None]  # a trial's rows and seconds, None where they can't be told


@dataclass(frozen=True)
class Cost:
    """One trial's cost, as text for a table."""

    epochs: str
    rows: str
    time: str


@dataclass(frozen=True)
class Costs:
    """All trials' costs, and what they add up to."""

    of_trials: list[Cost]
    summary: str


def estimate_costs(folder: SweepFolder, states: list[State], configs: list[dict[str, Any]]) -> Costs:
    """Rows from the data itself, seconds from finished runs with the same backbone and kind of adapter.

    Args:
        folder: the sweep's folder; runs in it and beside it tell the speed.
        states: where its trials stand.
        configs: their complete settings.
    """
    speeds, rows_of = _speeds(folder.path), _Rows()
    estimates = [_estimate(config, rows_of(_data_of(config)), speeds) for config in configs]
    costs = [
        Cost(
            str(config["trainer"]["max_epochs"]),
            "unknown" if seen is None else f"{seen:,}",
            "unknown" if seconds is None else _duration(seconds),
        )
        for config, (seen, seconds) in zip(configs, estimates, strict=True)
    ]
    left = [estimate for state, estimate in zip(states, estimates, strict=True) if state is not State.FINISHED]
    summary = f"{len(states)} trials, {_total(estimates)}"
    if len(left) < len(states):
        summary += f"; {len(left)} still to run" + (f", {_total(left)}" if left else "")
    if unknown := sum(seconds is None for _, seconds in estimates):
        summary += (
            f". No finished run in {folder.path.parent} tells the speed of {unknown} of them: run the sweep until one "
            "trial of each method has finished, and ask again."
        )
    return Costs(costs, summary)


def _estimate(config: dict[str, Any], rows: int | None, speeds: Speed) -> Estimate:
    seen, known = _rows_seen(config, rows), speeds.get(_kind(config))
    return seen, None if seen is None or not known else seen * sorted(known)[len(known) // 2]


def _total(estimates: list[Estimate]) -> str:
    known = [seconds for _, seconds in estimates if seconds is not None]
    told = f"{sum(seen or 0 for seen, _ in estimates):,} training rows in all"
    if known:
        told += f", about {_duration(sum(known))} one after another"
        told += f" without {len(estimates) - len(known)}" if len(known) < len(estimates) else ""
    return told


def _data_of(config: dict[str, Any]) -> dict[str, Any]:
    """The data part with the backbone, which a config holds once, under model."""
    model, data = config["model"]["init_args"], config["data"]
    linked = {name: model.get(name) for name in ("backbone", "revision")}
    return {**data, "init_args": {**data["init_args"], **linked}}


class _Rows:
    """Training rows of a data config; each distinct one is read once."""

    def __init__(self) -> None:
        self._known: dict[str, int | None] = {}

    def __call__(self, data: dict[str, Any]) -> int | None:
        settings = {name: value for name, value in data["init_args"].items() if name != "seed"}
        key = json.dumps([data["class_path"], settings], sort_keys=True, default=str)
        if key not in self._known:
            self._known[key] = _count(data)
        return self._known[key]


def _count(data: dict[str, Any]) -> int | None:
    instance = instantiate_class((), data)
    try:
        instance.setup()
        return int(instance.row_counts["train_rows"])
    except InputError:
        raise
    except Exception:  # a data module that can't be asked outside a run
        return None


def _rows_seen(config: dict[str, Any], rows: int | None) -> int | None:
    """Rows that a run trains on, each epoch counted, in one process; None where only the run itself can tell."""
    trainer, batch_size = config["trainer"], config["data"]["init_args"].get("batch_size")
    epochs, steps = trainer["max_epochs"], trainer["max_steps"]
    if rows is None or not batch_size:
        return None
    limit = trainer["overfit_batches"] or trainer["limit_train_batches"]
    if limit is not None:  # as Lightning reads it: a whole number of batches, or a share of them
        batches = math.ceil(rows / batch_size)
        rows = min(rows, (min(limit, batches) if isinstance(limit, int) else int(limit * batches)) * batch_size)
    until_steps = steps * trainer["accumulate_grad_batches"] * batch_size if steps >= 0 else math.inf
    until_epochs = rows * epochs if epochs is not None and epochs >= 0 else math.inf
    seen = min(until_steps, until_epochs)
    return int(seen) if seen < math.inf else None


def _kind(config: dict[str, Any]) -> tuple[str, str]:
    """Backbone and adapter as results.json names them."""
    model = config["model"]["init_args"]
    adapter = model.get("adapter")
    if not adapter:
        return model.get("backbone"), "full fine-tuning"
    name = adapter["class_path"].rpartition(".")[2]
    if name == PEFTAdapter.__name__:
        name = METHODS[adapter["init_args"]["method"]].name
    return model.get("backbone"), name


def _speeds(folder: Path) -> Speed:
    speeds: Speed = {}
    for path in [*folder.glob("*/results.json"), *folder.parent.glob("*/results.json")]:
        try:
            results = json.loads(path.read_text())
            seconds, rows = results["wall_seconds"], results["throughput"]["train_rows"]
            kind = (results["backbone"], results["adapter"])
        except (OSError, ValueError, KeyError, TypeError):
            continue  # another file of this name, or one cut short: it tells nothing
        if rows:
            speeds.setdefault(kind, []).append(seconds / rows)
    return speeds


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
