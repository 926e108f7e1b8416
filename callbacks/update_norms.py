"""Records how large the adapter's updates are, before training, over time and at the end."""

from dataclasses import asdict

from lightning.pytorch import Trainer
from torch import Tensor
from torch.optim import Optimizer

from callbacks.trained_module import StepCallback, TrainedModule
from common.errors import InputError
from lora import update_norm


class UpdateNorms(StepCallback):
    """Logs ‖s · B A‖ (‖s · B (R ∘ mask) A‖ in LoRA-XS) of each layer and in total, also relative to the frozen ‖W‖.

    Soft masks count as they are; nothing is read from the device between two logged steps. Full fine-tuning has none
    here: its W₀ isn't kept (callbacks.weight_changes.WeightChanges reads it again).

    Args:
        every_n_steps: how often norms are logged.
    """

    def __init__(self, every_n_steps: int = 50) -> None:
        if every_n_steps < 1:
            raise InputError(f"every_n_steps is {every_n_steps}; allowed: 1 or more.")
        self.every_n_steps = every_n_steps
        self._weights: Tensor | None = None

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: TrainedModule, optimizer: Optimizer) -> None:
        # of the first step, and not earlier: alpha and budget, on which soft masks depend, are set by now
        if trainer.global_step or pl_module.record.initial_norms is not None:
            return
        if (norms := self._norms(pl_module)) is not None:
            pl_module.record.initial_norms = asdict(norms)
            _log(pl_module, norms, step=0)

    def on_step_end(self, trainer: Trainer, pl_module: TrainedModule) -> None:
        if trainer.global_step % self.every_n_steps == 0 and (norms := self._norms(pl_module)) is not None:
            _log(pl_module, norms)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: TrainedModule) -> None:
        # not when training ends: a run killed after its last epoch doesn't train again
        if (norms := self._norms(pl_module)) is not None:
            pl_module.record.final_norms = asdict(norms)

    def _norms(self, pl_module: TrainedModule) -> update_norm.AdapterNorms | None:
        adapter = pl_module.adapter
        if adapter is None or not adapter.adapted_layers:
            return None
        if self._weights is None:
            self._weights = update_norm.weight_norms(adapter)
        return update_norm.update_norms(adapter, self._weights)


def _log(pl_module: TrainedModule, norms: update_norm.AdapterNorms, step: int | None = None) -> None:
    metrics = {f"update_norm/{name}": norm for name, norm in norms.layers.items()}
    metrics |= {"update_norm/total": norms.total, "update_norm/relative_total": norms.relative}
    pl_module.log_now(metrics, step)
