"""Notes what a run of the whole command line trains on, starts from and comes to, for a second implementation."""

import json
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback

import cli
from lora.nested import NestedRanks


class Recorder(Callback):
    """Put into a run by its class path; `Recorder.latest` is the last one made."""

    latest: "Recorder"

    def __init__(self) -> None:
        Recorder.latest = self
        self.start: dict[str, torch.Tensor] = {}  # every weight, trained or not, by its name in the module
        self.epochs: list[list[dict[str, Any]]] = []
        self.losses: list[float] = []
        self.alphas: list[float] = []
        self.budgets: list[float] = []
        self.ranks_drawn: list[int] = []  # of nested training, for each step
        self.validated_ranks: list[list[int]] = []
        self.trained: list[dict[str, torch.Tensor]] = []  # what trains, after each step

    def on_fit_start(self, trainer, pl_module) -> None:
        self.start = {name: value.clone() for name, value in pl_module.state_dict().items() if torch.is_tensor(value)}

    def on_train_epoch_start(self, trainer, pl_module) -> None:
        self.epochs.append([])

    def on_before_backward(self, trainer, pl_module, loss) -> None:
        if isinstance(pl_module.adapter, NestedRanks):
            self.ranks_drawn.append(pl_module.adapter.active_rank)

    def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
        if (allocation := pl_module.rank_allocation) is not None:
            self.alphas.append(allocation.alpha)
            self.budgets.append(allocation.budget)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        self.epochs[-1].append({"inputs": batch["inputs"], "labels": batch["labels"]})
        self.losses.append(float(outputs["loss"]))
        trained = {name: value for name, value in pl_module.named_parameters() if value.requires_grad}
        self.trained.append({name: value.detach().clone() for name, value in trained.items()})

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0) -> None:
        if pl_module.adapter is not None and not trainer.sanity_checking and batch_idx == 0 == dataloader_idx:
            self.validated_ranks.append(list(pl_module.adapter.discrete_ranks().values()))

    def series(self, name: str) -> list[torch.Tensor]:
        """A trained tensor after each step."""
        return [step[name] for step in self.trained]


def record(config: str, runs_dir: Path, *options: str) -> Recorder:
    """Runs `fit` with a config, as a user would, and gives what was noted."""
    callbacks = json.dumps([{"class_path": "tests.parity.recorder.Recorder"}])
    own = ["--runs_dir", str(runs_dir), f"--trainer.callbacks+={callbacks}"]
    own += ["--trainer.accelerator", "cpu", "--trainer.devices", "1"]
    assert cli.main(["fit", "--config", config, *own, *options]) == 0
    return Recorder.latest
