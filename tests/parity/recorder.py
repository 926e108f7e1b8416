"""Notes what a run of the whole command line trains on, starts from and comes to, for a second implementation."""

import json
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback
from transformers import BertConfig, BertModel

from lora.nested import NestedRanks
from tests import tiny
from tests.command_line import run


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

    def load_head(self, model: torch.nn.Module) -> None:
        """Gives another implementation's classifier the weights that the run's one started with."""
        for name, parameter in model.named_parameters():
            if name.startswith("classifier."):
                adapted = f"model.{name.replace('classifier.', 'classifier.base.')}"
                parameter.data.copy_(self.start.get(adapted, self.start.get(f"model.{name}")))

    def series(self, name: str) -> list[torch.Tensor]:
        """A trained tensor after each step."""
        return [step[name] for step in self.trained]


def save_backbone(folder: Path, width: int = 34) -> Path:
    """A BERT without dropout, and with weights so large that clipping matters.

    Up to a width of 35 the randomised SVD of rank 25 is an exact one, so that two implementations have equal factors.
    """
    torch.manual_seed(0)
    settings = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "initializer_range": 0.2}
    settings |= {"hidden_size": width, "intermediate_size": 2 * width, "num_attention_heads": 2, "num_hidden_layers": 2}
    settings |= {"vocab_size": len(tiny.WORDS) + 4, "max_position_embeddings": 64}
    BertModel(BertConfig(**settings)).save_pretrained(folder)
    tiny.save_tokenizer(folder)
    return folder


def record(config: str, runs_dir: Path, *options: str) -> Recorder:
    """Runs `fit` with a config, as a user would, and gives what was noted."""
    callbacks = json.dumps([{"class_path": "tests.parity.recorder.Recorder"}])
    own = [f"--trainer.callbacks+={callbacks}", "--trainer.accelerator=cpu", "--trainer.devices=1"]
    own += ["--trainer.logger=false", "--data.batch_size=8"]
    assert run("fit", config, runs_dir, *own, *options) == 0
    return Recorder.latest
