"""AdaLoRA (arXiv 2303.10512) as PEFT has it, with what PEFT leaves to the training loop."""

from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn

from common.errors import InputError
from lightning_modules.peft_methods import ADAPTER_NAME

# PEFT has no public way to save what it has measured: attributes of its rank allocator, by their names in checkpoints.
_MEASURED = {"importance": "exp_avg_ipt", "uncertainty": "exp_avg_unc"}
_LATEST = "ipt"  # overwritten at every step, but PEFT takes a missing entry for a first step


def check_schedule(tinit: int, tfinal: int, steps: float) -> None:
    """Raises `InputError` if AdaLoRA's tinit and tfinal leave no steps in between in which ranks are cut."""
    if tinit < 0 or tfinal < 0 or steps - tfinal < max(tinit + 1, 2):
        raise InputError(
            f"AdaLoRA's tinit is {tinit} and tfinal is {tfinal}, but the run has {steps} optimizer steps; allowed: "
            "0 or more, and together fewer than the run's steps (at least 2 before the last tfinal): ranks are "
            "cut in between. Lower model.adapter.settings.tinit or tfinal, or train for more epochs."
        )


class AdaLoRABudget(nn.Module):
    """The rank budget of a model with PEFT's AdaLoRA layers: its schedule, and its state in checkpoints.

    The budget is a number of ranks over all layers: init_r · N during the first tinit steps, then falling as a cubic to
    target_r · N, which is reached tfinal steps before the end. callbacks.AdaLoRAAllocation drives it. PEFT's
    AdaLoraModel, the tuner, holds the model, so it must not become a submodule of this one.
    """

    def __init__(self, tuner: Any, layers: dict[str, Any]) -> None:
        super().__init__()
        self._settings = tuner.peft_config[ADAPTER_NAME]
        self._allocator = tuner.rankallocator
        self._update_and_allocate = tuner.update_and_allocate
        self._layers = layers
        self.is_scheduled = False
        if lacking := [name for name in (*_MEASURED.values(), _LATEST) if not hasattr(self._allocator, name)]:
            raise InputError(
                f"PEFT {version('peft')} no longer keeps {lacking[0]}, the importance of AdaLoRA's ranks, which a "
                "checkpoint must hold; allowed: the versions of PEFT that `pip install -e '.[peft]'` takes."
            )

    @property
    def target(self) -> int:
        return self._settings.target_r * len(self._layers)

    @property
    def final_step(self) -> int:
        """The step from which ranks stay as they are; known once the budget is scheduled."""
        return self._settings.total_step - self._settings.tfinal

    def budget_at(self, step: int) -> int:
        """The budget that the schedule asks for after so many optimizer steps."""
        return self._allocator.budget_schedule(step)[0]

    def schedule(self, steps: int) -> None:
        """Fits the schedule to a run of so many optimizer steps, which `check_schedule` has accepted."""
        self._settings.total_step = steps
        self._to_device()
        self.is_scheduled = True

    def allocate(self, step: int) -> None:
        """Notes which ranks matter and cuts the others to the budget; gradients are still there, steps count from 1."""
        for layer in self._layers.values():
            for factors in (layer.lora_A, layer.lora_B, layer.lora_E):
                if (gradient := factors[ADAPTER_NAME].grad) is not None:
                    # of an update that was left out (callbacks.divergence): averages would be NaN from here on
                    gradient.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)
        self._update_and_allocate(step)

    def regularisation(self) -> Tensor:
        """orth_reg_weight · the mean of ‖AAᵀ − I‖ and ‖BᵀB − I‖ over all layers (arXiv 2303.10512), as PEFT has it."""
        A = [layer.lora_A[ADAPTER_NAME] for layer in self._layers.values()]  # (r, in)
        B = [layer.lora_B[ADAPTER_NAME] for layer in self._layers.values()]  # (out, r)
        with torch.autocast(A[0].device.type, enabled=False):
            grams = torch.stack([*(a @ a.T for a in A), *(b.T @ b for b in B)])  # (2N, r, r)
            identity = torch.eye(grams.shape[-1], device=grams.device)
            return self._settings.orth_reg_weight * (grams - identity).flatten(1).norm(dim=1).mean()

    def ranks(self) -> dict[str, int]:
        """The rank in use in each layer; a cut direction has the singular value 0."""
        if self._settings.rank_pattern is None:  # singular values start at 0, too
            return dict.fromkeys(self._layers, self._settings.init_r)
        return {name: int(layer.lora_E[ADAPTER_NAME].count_nonzero()) for name, layer in self._layers.items()}

    def shortfall(self) -> str | None:
        """A message if the ranks in use aren't the target budget, None if they are."""
        used = sum(self.ranks().values())
        if used == self.target:
            return None
        when = f"at step {self.final_step} of {self._settings.total_step}" if self.is_scheduled else "in training"
        return (
            f"AdaLoRA has {used:,} ranks in use over {len(self._layers)} layers, but its target is {self.target:,} "
            f"(target_r x layers), due {when}: training stopped before, or the ranks' importance could not be "
            "measured. Weights and results are written, with status budget_missed. Let the run go on to its end "
            "(--ckpt_path last), or lower the learning rate if the loss wasn't finite."
        )

    def get_extra_state(self) -> dict[str, Any]:
        measured = {name: dict(getattr(self._allocator, theirs)) for name, theirs in _MEASURED.items()}
        return {"rank_pattern": self._settings.rank_pattern, **measured}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self._settings.rank_pattern = state["rank_pattern"]
        for name, theirs in _MEASURED.items():
            setattr(self._allocator, theirs, dict(state[name]))
        latest = {name: torch.zeros_like(value) for name, value in state["importance"].items()}
        setattr(self._allocator, _LATEST, latest)
        self._to_device()

    def _to_device(self) -> None:
        device = next(iter(self._layers.values())).lora_E[ADAPTER_NAME].device
        for theirs in _MEASURED.values():
            measured = getattr(self._allocator, theirs)
            measured.update({name: value.to(device) for name, value in measured.items()})
