"""Numbers that go wrong: an update whose loss or gradients aren't finite is never made."""

import math
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.optim import Optimizer

from callbacks.trained_module import StepCallback, TrainedModule
from callbacks.training_record import TrainingRecord
from common.errors import InputError
from common.terminal import logger
from lora.products.torch_internals import largest_values

# torch.amp.GradScaler begins with a factor of 2^16 and halves it after each overflow: these are no divergence.
_SCALER_SETTLES = 20


class Divergence(StepCallback):
    """Leaves out every update with a NaN or an infinity in the loss or a gradient; then stops the run, or goes on.

    A loss that isn't finite counts because `AdaptedModule.training_step` passes it on to every gradient, and so
    all processes agree. Nothing waits for an accelerator: the fused optimizer reads there whether to update (as with
    `torch.amp.GradScaler`), and the host looks at the logging interval and before each checkpoint.

    Args:
        skip_at_most: updates in a row that may be left out before the run stops as diverged. With 0 it stops at once.
    """

    def __init__(self, skip_at_most: int = 0) -> None:
        if skip_at_most < 0:
            raise InputError(f"skip_at_most is {skip_at_most}; allowed: 0 (stop at once) or more.")
        self.skip_at_most = skip_at_most
        self._in_a_row: Tensor | int = 0  # updates left out up to now; on the device while training

    def state_dict(self) -> dict[str, int]:
        return {"in_a_row": int(self._in_a_row)}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self._in_a_row = state_dict["in_a_row"]

    def on_train_start(self, trainer: Trainer, pl_module: TrainedModule) -> None:
        self._parts = _parts(pl_module)
        device = pl_module.device
        self._in_a_row = torch.tensor(int(self._in_a_row), device=device)
        pl_module.record.has_diverged = torch.zeros((), dtype=torch.bool, device=device)
        self._nothing = torch.zeros(1, device=device, dtype=self._parts[0][1].dtype)
        self._losses: list[Tensor] = []  # of the micro-batches of a step
        self._forget_report(device)

    def _forget_report(self, device: torch.device) -> None:
        """What is reported next: the first step left out since the last one, where, and its loss."""
        self._step = torch.full((), -1, device=device)
        self._left_out = torch.zeros((), dtype=torch.int64, device=device)
        self._seen = self._nothing.new_zeros(sum(len(names) for names, _ in self._parts) + 1)  # `_largest_values`

    def on_before_backward(self, trainer: Trainer, pl_module: TrainedModule, loss: Tensor) -> None:
        self._losses.append(loss.detach())

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: TrainedModule, optimizer: Optimizer) -> None:
        largest = self._largest_values()
        left_out = (largest - largest != 0).any()  # NaN for an infinity, too
        first = left_out & (self._step < 0)
        self._step = torch.where(first, trainer.global_step, self._step)
        self._seen = torch.where(first, largest, self._seen)
        self._left_out = self._left_out + left_out
        scaler = _scaler(trainer) is not None
        limit = max(self.skip_at_most, _SCALER_SETTLES if scaler else 0)
        left_out = left_out | pl_module.record.has_diverged  # and then for good
        self._in_a_row = (self._in_a_row + 1) * left_out
        pl_module.record.has_diverged = self._in_a_row > limit
        if not scaler:  # else it leaves updates out itself
            optimizer.grad_scale = None  # type: ignore[attr-defined]
            optimizer.found_inf = left_out.float()  # type: ignore[attr-defined]

    def _largest_values(self) -> Tensor:
        """The largest absolute gradient of each part, NaN if there is one in it, and the step's loss (parts + 1,)."""
        pieces: list[Tensor] = []
        for names, parameter in self._parts:
            gradient = parameter.grad.detach() if parameter.grad is not None else self._nothing.expand(len(names))
            pieces += gradient.unbind(0) if len(names) > 1 else [gradient]
        loss, self._losses = sum(self._losses[1:], start=self._losses[0]), []
        return torch.stack([*largest_values(pieces), loss.to(self._nothing)])

    def on_step_end(self, trainer: Trainer, pl_module: TrainedModule) -> None:
        every = 1 if looks_at_every_step(pl_module.device) else trainer.log_every_n_steps  # type: ignore[attr-defined]
        if trainer.global_step % max(every, 1) == 0:
            self.look(trainer, pl_module.record)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: TrainedModule) -> None:
        self.look(trainer, pl_module.record)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: TrainedModule, checkpoint: dict[str, Any]) -> None:
        self.look(trainer, pl_module.record)  # the record, which the checkpoint will hold, has all updates left out

    def look(self, trainer: Trainer, record: TrainingRecord) -> None:
        """Reads what the device has noted since the last look, says it, and stops the run if it has diverged."""
        if not isinstance(self._in_a_row, Tensor) or record.diverged_at is not None:
            return
        step, left_out, stopped = torch.stack([self._step, self._left_out, record.has_diverged.long()]).tolist()
        if step < 0:
            return
        where = _describe([name for names, _ in self._parts for name in names], self._seen.tolist())
        self._forget_report(self._in_a_row.device)
        if stopped:
            record.diverged_at, trainer.should_stop = step, True
            logger.warning(
                f"Step {step}: {where}. The run has diverged and stops here; no weight has changed since, and no "
                "best.ckpt or last.ckpt is written any more."
            )
        elif _scaler(trainer) is None:
            record.skipped_updates += left_out
            logger.warning(f"Step {step}: {where}. Its update was left out ({record.skipped_updates} so far).")


def looks_at_every_step(device: torch.device) -> bool:
    """Whether a look costs nothing: the host waits for every other device."""
    return device.type == "cpu"


def is_sound(pl_module: TrainedModule) -> bool:
    """Whether a checkpoint of this moment may replace an older one: the run hasn't diverged, and all is finite."""
    if pl_module.record.has_diverged:
        return False
    trained = {name: weight.detach() for name, weight in pl_module.named_parameters() if weight.requires_grad}
    broken = [name for name, weight in trained.items() if not weight.isfinite().all()]
    if broken:
        logger.warning(f"{broken[0]} (and {len(broken) - 1} more) holds NaN or infinity: no checkpoint is written.")
    return not broken


def _scaler(trainer: Trainer) -> torch.amp.GradScaler | None:
    return getattr(trainer.precision_plugin, "scaler", None)


def _parts(pl_module: TrainedModule) -> list[tuple[list[str], nn.Parameter]]:
    """What is told apart: each trained parameter by its name, one that holds all adapted layers by the layers'."""
    layers = pl_module.adapter.layer_names if pl_module.adapter is not None else ()
    parts = []
    for name, parameter in pl_module.named_parameters():
        if not parameter.requires_grad:
            continue
        stacked = name in ("adapter.R", "adapter.rank_allocation.weights")
        parts.append(([f"{name} of {layer}" for layer in layers] if stacked else [name], parameter))
    return parts


def _describe(names: list[str], seen: list[float]) -> str:
    *largest, loss = seen
    found = [name for name, value in zip(names, largest, strict=True) if not math.isfinite(value)]
    if not math.isfinite(loss):
        return f"the loss is {loss}, and with it the gradient of {found[0]} and {len(found) - 1} more of {len(names)}"
    more = f" and {len(found) - 1} more of {len(names)}" if len(found) > 1 else ""
    return f"the gradient of {found[0]}{more} holds NaN or infinity, while the loss is {loss:.6g}"
