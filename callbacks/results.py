"""results.json and ranks.json: what a run came to, from one source for every figure."""

import platform
import time
from importlib.metadata import version
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer

from callbacks.rank_pictures import rank_map
from common.code_version import code_version
from common.files import write_json, write_whole
from common.memory import peak_resident_bytes
from lightning_modules.adapted_module import AdaptedModule

_PACKAGES = ("torch", "lightning", "transformers", "datasets", "torchmetrics", "tensorboard")


class Results(Callback):
    """Collects figures while a run goes on; `write` puts them into the run folder.

    Epochs are counted from 0, as in metrics.csv. Training time leaves evaluation and checkpoints out.

    Args:
        folder: the run folder.
    """

    def __init__(self, folder: Path, run_name: str, seed: int | None) -> None:
        self.folder, self.run_name, self.seed = folder, run_name, seed
        self.validations: list[dict[str, float]] = []
        self.test: dict[str, Any] | None = None
        self._tag_accuracies: dict[str, float] = {}
        self._code = [code for code in [code_version()] if code is not None]
        self._counts = {"rows": 0, "tokens": 0}
        self._training_seconds = 0.0
        self._wall_seconds = 0.0
        self._started = time.monotonic()
        self._training_since: float | None = None

    def state_dict(self) -> dict[str, Any]:
        return {
            "validations": self.validations,
            "counts": self._counts,
            "training_seconds": self._training_seconds + self._running_seconds(),
            "wall_seconds": self.wall_seconds,
            "code": self._code,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.validations = list(state_dict["validations"])
        self._counts = dict(state_dict["counts"])
        self._training_seconds = state_dict["training_seconds"]
        self._wall_seconds = state_dict["wall_seconds"]
        before = state_dict.get("code", [])  # checkpoints of earlier versions have none
        self._code = [*before, *(code for code in self._code if code not in before[-1:])]

    @property
    def wall_seconds(self) -> float:
        """Seconds since the run began, time between an interruption and its resumption left out."""
        return self._wall_seconds + time.monotonic() - self._started

    def _running_seconds(self) -> float:
        return time.monotonic() - self._training_since if self._training_since is not None else 0.0

    def _stop_clock(self, pl_module: AdaptedModule) -> None:
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize()
        self._training_seconds += self._running_seconds()
        self._training_since = None

    def on_train_start(self, trainer: Trainer, pl_module: AdaptedModule) -> None:
        self._training_since = time.monotonic()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: AdaptedModule) -> None:
        self._training_since = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: AdaptedModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._counts["rows"] += batch["real_rows"] * trainer.world_size
        self._counts["tokens"] += batch["real_tokens"] * trainer.world_size

    def on_validation_start(self, trainer: Trainer, pl_module: AdaptedModule) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        self._stop_clock(pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: AdaptedModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._training_since = time.monotonic()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: AdaptedModule) -> None:
        self._stop_clock(pl_module)
        self.validations.append({"epoch": trainer.current_epoch, **pl_module.validation_figures()})

    def on_test_epoch_end(self, trainer: Trainer, pl_module: AdaptedModule) -> None:
        self._tag_accuracies = pl_module.tag_accuracies()

    def on_test_end(self, trainer: Trainer, pl_module: AdaptedModule) -> None:
        values = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("test")}
        self.test = {name.removeprefix("test/"): value for name, value in values.items()}
        if self._tag_accuracies:
            self.test["accuracy_by_tag"] = self._tag_accuracies

    def metric(self, pl_module: AdaptedModule, name: str) -> dict[str, Any]:
        """Best and last value of the metric that chooses the checkpoint, and the epoch of the best."""
        values = [validation.get(name) for validation in self.validations]
        sign = 1 if pl_module.higher_is_better else -1
        about = {"name": name.partition("/")[2], "higher_is_better": pl_module.higher_is_better}
        known = [(sign * value, -place) for place, value in enumerate(values) if value is not None and value == value]
        if not known:
            return {**about, "best": None, "best_epoch": None, "last": None}
        best, place = max(known)
        return {
            **about,
            "best": sign * best,
            "best_epoch": int(self.validations[-place]["epoch"]),
            "last": values[-1],
        }

    def summary(self, trainer: Trainer, pl_module: AdaptedModule) -> dict[str, Any]:
        """The content of results.json."""
        data = pl_module.data
        split = data.validation_names[0]
        record = pl_module.record
        val_losses = [validation.get(f"{split}/loss") for validation in self.validations]
        seconds = max(self._training_seconds, 1e-9)
        device = trainer.strategy.root_device  # the module itself is back on the CPU once fit or test is over
        return {
            "run_name": self.run_name,
            "seed": self.seed,
            "data": data.summary,
            "backbone": pl_module.backbone_name,
            "adapter": pl_module.adapter.name if pl_module.adapter is not None else "full fine-tuning",
            "metric": self.metric(pl_module, f"{split}/{pl_module.metric_name}"),
            "validations": self.validations,
            "test": self.test,
            "train_losses": record.train_losses,
            "val_losses": val_losses,
            "best_val_loss": min((loss for loss in val_losses if loss is not None and isfinite(loss)), default=None),
            "trainable_parameters": pl_module.parameter_counts(),
            **ranks_summary(pl_module),
            "at_best_epoch": None,  # the same of best.ckpt, which validation and test figures belong to
            "update_norms": record.update_norms,
            "rank_curve": None,  # of nested training: evaluated once the summary stands
            "throughput": {
                "train_samples_per_second": self._counts["rows"] / seconds,
                "train_tokens_per_second": self._counts["tokens"] / seconds,
                "train_rows": self._counts["rows"],
            },
            "wall_seconds": self.wall_seconds,
            "peak_memory_bytes": peak_memory_bytes(device),
            "device": str(device),
            "device_name": device_name(device),
            "processes": trainer.world_size,
            "status": self.status(pl_module),
            "skipped_updates": record.skipped_updates,
            "collapsed_epochs": record.collapsed_epochs,
            "versions": self._versions(),
        }

    def _versions(self) -> dict[str, str]:
        code = {"rankwise": ", then ".join(self._code)} if self._code else {}  # several: resumed with other code
        return {**code, "python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}

    def status(self, pl_module: AdaptedModule) -> str:
        """finished, collapsed (the last validation gave one answer for every row), diverged or budget_missed."""
        if pl_module.record.diverged_at is not None:
            return "diverged"
        if pl_module.adapter is not None and pl_module.adapter.shortfall() is not None:
            return "budget_missed"
        return "collapsed" if pl_module.record.collapsed else "finished"

    def write(self, results: dict[str, Any], trainer: Trainer, pl_module: AdaptedModule, ranks: dict[str, int]) -> None:
        """Writes ranks.json, the rank map and, last, results.json.

        Args:
            results: what `summary` gave.
            ranks: the discrete rank of each adapted layer when training ended.
        """
        if not trainer.is_global_zero:
            return
        write_json(self.folder / "ranks.json", {"layers": ranks, "history": pl_module.record.rank_history})
        if pl_module.rank_allocation is not None:
            allocation = pl_module.rank_allocation
            title = f"{self.run_name}: discrete ranks, average {results['average_rank']:.2f}"
            figure = rank_map({k: float(v) for k, v in ranks.items()}, allocation.rank_min, allocation.rank_max, title)
            write_whole(self.folder / "rank_map.png", lambda file: figure.savefig(file, format="png", dpi=120))
        write_json(self.folder / "results.json", results)


def ranks_summary(pl_module: AdaptedModule) -> dict[str, Any]:
    """Budget, mean of the discrete ranks, and the one rank of all layers that would use as much, as they are now."""
    if pl_module.adapter is None:
        return {"budget": None, "average_rank": None, "equal_area_rank": None}
    ranks = list(pl_module.adapter.discrete_ranks().values())
    average = sum(ranks) / len(ranks)
    allocation = pl_module.rank_allocation
    if allocation is None:
        return {"budget": None, "average_rank": average, "equal_area_rank": average}
    used = float(allocation.area(torch.tensor(ranks)).sum())
    return {
        "budget": {"requested": allocation.budget, "used": used},
        "average_rank": average,
        "equal_area_rank": allocation.rank_of_area(used),
    }


def peak_memory_bytes(device: torch.device) -> int:
    """Most memory held so far: on the accelerator if there is one, else by the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return peak_resident_bytes()


def device_name(device: torch.device) -> str:
    """What the device is, such as NVIDIA H100 80GB HBM3; the processor's kind for a CPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
