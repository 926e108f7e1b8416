"""What is trained, in groups with rates of their own, and how its gradients are clipped."""

from typing import Any

from torch import nn
from torch.optim import Optimizer

from callbacks.trained_module import TrainedModule
from lightning_modules.optimization import OptimizerSettings, make_optimizer, make_schedule
from lora.injection import is_inside


class OptimizedModule(TrainedModule):
    """AdamW over head, adapter, rank-allocation weights and backbone, as far as they are trained.

    Attributes:
        optimizer_settings: rates, weight decay and schedule.
        head_modules: module paths of the head; empty before the model is loaded.
    """

    optimizer_settings: OptimizerSettings
    head_modules: tuple[str, ...] = ()

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Trainable parameters by group: head, adapter, allocation, backbone."""
        groups: dict[str, list[nn.Parameter]] = {"head": [], "adapter": [], "allocation": [], "backbone": []}
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                rest = "backbone" if self.adapter is None else "adapter"  # an adapter may train parts of the model
                groups["head" if is_inside(name, self.head_modules) else rest].append(parameter)
        for name, parameter in self.adapter.named_parameters() if self.adapter is not None else ():
            groups["allocation" if name.startswith("rank_allocation.") else "adapter"].append(parameter)
        return groups

    def parameter_counts(self) -> dict[str, int]:
        """Trainable parameters as numbers, with their total; a trained backbone counts as adapter."""
        counts = {name: sum(p.numel() for p in group) for name, group in self.parameter_groups().items()}
        counts["adapter"] += counts.pop("backbone")
        return {**counts, "total": sum(counts.values())}

    def head_optimizer(self) -> Optimizer | None:
        head = self.parameter_groups()["head"]
        return make_optimizer({"head": head}, self.optimizer_settings) if head else None

    def configure_optimizers(self) -> Any:
        optimizer = make_optimizer(self.parameter_groups(), self.optimizer_settings)
        schedule = make_schedule(optimizer, self.optimizer_settings, self.training_steps())
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step", "name": "learning_rate"},
        }

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips in mixed precision, too, where Lightning refuses to: a fused optimizer can take scaled gradients."""
        if not gradient_clip_val:
            return
        precision: Any = self.trainer.precision_plugin
        if (scaler := getattr(precision, "scaler", None)) is not None:
            scaler.unscale_(optimizer)  # it notes that, and the optimizer's step then doesn't divide again
        if gradient_clip_algorithm == "value":
            precision.clip_grad_by_value(optimizer, gradient_clip_val)
        else:
            precision.clip_grad_by_norm(optimizer, gradient_clip_val)
