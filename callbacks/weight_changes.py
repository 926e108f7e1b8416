"""Records how far full fine-tuning has moved the weights, to be compared with the updates of an adapter."""

from dataclasses import asdict
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer

from callbacks.trained_module import TrainedModule
from common.errors import InputError
from lora.injection import choose_layers
from lora.layers import dense_weight
from lora.update_norm import AdapterNorms, norms_of


class WeightChanges(Callback):
    """Records ‖W − W₀‖ of the backbone's linear layers in full fine-tuning, as results.json's `update_norms`.

    These are the layers that LoRA adapts with `all-linear`. W₀ is read from the backbone again after each epoch, so
    that nothing is kept while training: it takes as long as loading the model, and its memory for that moment.
    """

    def on_fit_start(self, trainer: Trainer, pl_module: TrainedModule) -> None:
        if pl_module.adapter is not None:
            raise InputError(
                f"WeightChanges is given with the adapter {pl_module.adapter.name}, under which weights are frozen; "
                "allowed: full fine-tuning (model.adapter null). Take it out of trainer.callbacks; update_norms has "
                "the norms of an adapter."
            )

    def on_train_epoch_end(self, trainer: Trainer, pl_module: TrainedModule) -> None:
        # before training nothing has changed: there are no initial norms
        pl_module.record.final_norms = asdict(_changes(pl_module))


@torch.no_grad()
def _changes(pl_module: TrainedModule) -> AdapterNorms:
    start: Any
    # a head is drawn at random when a model is loaded: that must not change what training draws
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        start, head = pl_module.load_model()
    layers = choose_layers(start, start.config.model_type, "all-linear", head)
    weights = [dense_weight(layer) for layer in layers.values()]
    trained = [dense_weight(pl_module.model.get_submodule(name)).cpu() for name in layers]
    changes = [(now - before).norm() for now, before in zip(trained, weights, strict=True)]
    return norms_of(list(layers), torch.stack(changes), torch.stack([before.norm() for before in weights]))
