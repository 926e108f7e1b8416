"""Keeps the random generators' states, so that a resumed run draws what the undisturbed one would have."""

import random
from typing import Any, cast

import numpy
import torch
from lightning.pytorch import Callback, Trainer

from callbacks.trained_module import TrainedModule

_KEY = "random_states"


class RandomState(Callback):
    """Saves every process's generator states in the checkpoint, and restores them when training goes on.

    With another number of processes there is no state to restore: each then goes on from its own fresh seed.
    """

    def __init__(self) -> None:
        self._restored: dict[str, Any] | None = None

    def on_save_checkpoint(self, trainer: Trainer, pl_module: TrainedModule, checkpoint: dict[str, Any]) -> None:
        states: list[Any] = [None] * trainer.world_size
        if trainer.world_size == 1:
            states = [_generator_states()]
        else:
            torch.distributed.all_gather_object(states, _generator_states())
        checkpoint[_KEY] = states

    def on_load_checkpoint(self, trainer: Trainer, pl_module: TrainedModule, checkpoint: dict[str, Any]) -> None:
        """Takes up this process's states, to be restored when training begins."""
        if trainer.state.fn == "fit" and len(checkpoint[_KEY]) == trainer.world_size:
            self._restored = checkpoint[_KEY][trainer.global_rank]

    def on_train_start(self, trainer: Trainer, pl_module: TrainedModule) -> None:
        # not earlier: setting up models and loaders may draw numbers
        if self._restored is not None:
            _restore(self._restored)
            self._restored = None


def _generator_states() -> dict[str, Any]:
    name, keys, position, has_gauss, gauss = cast(Any, numpy.random.get_state(legacy=True))
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "python": random.getstate(),
        "numpy": (name, torch.tensor(keys.tolist()), position, has_gauss, gauss),
    }


def _restore(states: dict[str, Any]) -> None:
    torch.set_rng_state(states["torch"])
    if states["cuda"] and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, *rest = states["numpy"]
    numpy.random.set_state((name, keys.numpy().astype("uint32"), *rest))
