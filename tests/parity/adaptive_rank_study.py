"""The adaptive-rank study's training loop, written once more: one layer, one mask and one size at a time.

Plain PyTorch and none of this project's code. Its formulas are those of the study's report and public repository:
ranks from a softmax over learnable weights, masks as sums of nested squares, alpha and the budget (there: memory) grown
by an increment after each step, AdamW with weight decay on all that trains, gradients clipped at norm 1, and
discrete ranks in the last epoch.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.reference.looped_mask import looped_mask

TARGETS = ("query", "value", "attention.output.dense", "output.dense")


@dataclass(frozen=True)
class StudySettings:
    """What the study's script is told; budgets are areas, entries of R over all layers."""

    rank_min: int
    rank_max: int
    budget_start: float
    budget_end: float
    learning_rate: float
    head_learning_rate: float
    allocation_learning_rate: float
    linear_schedule: bool
    alpha_min: float = 0.5
    alpha_max: float = 3.0
    epochs_budget_start: int = 0
    epochs_budget_change: int = 0
    epochs_rank_discrete: int = 1
    weight_decay: float = 0.01
    clip_norm: float | None = 1.0
    lora_alpha: float = 16.0
    warmup_fraction: float = 0.06


@dataclass
class Trajectory:
    """What each step trained with and left behind, and the ranks that each epoch's validation saw."""

    losses: list[float] = field(default_factory=list)
    alphas: list[float] = field(default_factory=list)
    budgets: list[float] = field(default_factory=list)
    cores: list[Tensor] = field(default_factory=list)  # R (N, r, r) after each step
    weights: list[Tensor] = field(default_factory=list)  # w (N,) after each step
    heads: list[Tensor] = field(default_factory=list)  # the head's parameters in one vector, after each step
    validated_ranks: list[list[int]] = field(default_factory=list)


def singular_factors(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """A (rank, in), which carries the singular values, and B (out, rank), from the exact SVD of the transposed weight.

    Signs are not unique: here the largest entry of each left vector is positive.
    """
    left, values, right = torch.linalg.svd(weight.detach().double().T, full_matrices=False)
    left, values, right = left[:, :rank], values[:rank], right[:rank].T
    signs = torch.stack([column[column.abs().argmax()].sign() for column in left.T])
    return (left * values * signs).T.float(), (right * signs).float()


class StudyLinear(nn.Module):
    """W x + b + s · B (R ∘ mask) A x."""

    def __init__(self, base: nn.Linear, core: Tensor, scale: float) -> None:
        super().__init__()
        self.base, self.scale = base, scale
        self.A, self.B = singular_factors(base.weight, len(core))
        self.R = nn.Parameter(core.clone())
        self.mask = torch.ones_like(core)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.scale * (((x @ self.A.T) @ (self.R * self.mask).T) @ self.B.T)


def adapt(model: nn.Module, cores: Tensor, scale: float) -> list[StudyLinear]:
    """Freezes all but the classifier and wraps the target layers, in the model's order; R from `cores` (N, r, r)."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name.startswith("classifier")
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and name.endswith(TARGETS)]
    layers = []
    for name, core in zip(names, cores, strict=True):
        parent, _, child = name.rpartition(".")
        layer = StudyLinear(model.get_submodule(name), core, scale)
        setattr(model.get_submodule(parent), child, layer)
        layers.append(layer)
    return layers


def square(rank: int, size: int) -> Tensor:
    """The hard mask (size, size) of a rank; one above the size is cut off."""
    mask = torch.zeros(size, size)
    mask[:rank, :rank] = 1
    return mask


class StudyRun:
    """The model, what trains, and the two things that move with the steps: alpha and the budget.

    Args:
        model: a sequence classifier, whose head is called `classifier`; changed in place.
        cores: R (N, r, r) to start from.
        weights: the rank-allocation weights (N,) to start from; None for runs whose ranks are given.
        settings: see `StudySettings`.
    """

    def __init__(self, model: nn.Module, cores: Tensor, weights: Tensor | None, settings: StudySettings) -> None:
        self.model, self.settings = model, settings
        self.layers = adapt(model, cores, settings.lora_alpha / settings.rank_max)
        self.head = [parameter for name, parameter in model.named_parameters() if name.startswith("classifier")]
        self.allocation = None if weights is None else nn.Parameter(weights.clone())
        groups = [(self.head, settings.head_learning_rate), ([x.R for x in self.layers], settings.learning_rate)]
        if self.allocation is not None:
            groups.append(([self.allocation], settings.allocation_learning_rate))
        self.trained = [parameter for parameters, _ in groups for parameter in parameters]
        self.rates = [rate for _, rate in groups]
        self.optimizer = torch.optim.AdamW(
            [{"params": parameters, "lr": rate} for parameters, rate in groups], weight_decay=settings.weight_decay
        )
        self.alpha, self.budget = settings.alpha_min, settings.budget_start

    def ranks(self) -> Tensor:
        """Continuous ranks s (N,)."""
        assert self.allocation is not None
        rank_min = self.settings.rank_min
        shares = torch.softmax(self.allocation, dim=0)
        return torch.sqrt(rank_min**2 + (self.budget - len(shares) * rank_min**2) * shares)

    def set_masks(self, discrete: bool, drawn: int | None) -> None:
        """Masks of one step: soft or discrete at the allocated ranks, or hard at a rank drawn for all layers."""
        size = self.settings.rank_max
        ranks = [None] * len(self.layers) if drawn is not None else list(self.ranks())
        for layer, rank in zip(self.layers, ranks, strict=True):
            if rank is None:
                layer.mask = square(drawn, size)
            elif discrete:
                layer.mask = square(int(rank.round()), size)
            else:
                layer.mask = looped_mask(rank, self.alpha, self.settings.rank_min, size)

    def step(self, batch: dict[str, Any], rate_factor: float) -> float:
        """One step of the optimizer; gives the loss."""
        loss = functional.cross_entropy(self.model(**batch["inputs"]).logits, batch["labels"])
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.settings.clip_norm is not None:
            clip(self.trained, self.settings.clip_norm)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * rate_factor
        self.optimizer.step()
        return float(loss.detach())

    def validated_ranks(self) -> list[int]:
        """What a validation at this moment sees."""
        return self.ranks().detach().round().clamp(max=self.settings.rank_max).int().tolist()


def train(run: StudyRun, epochs: list[list[dict[str, Any]]], drawn: list[int] | None = None) -> Trajectory:
    """Trains as the study does, on these batches.

    Args:
        run: the model and where it starts from.
        epochs: the batches of each epoch: model inputs, and labels (rows,).
        drawn: the rank of all layers in each step; None for ranks that allocate themselves.
    """
    settings, trajectory = run.settings, Trajectory()
    steps = sum(map(len, epochs))
    factors = rate_factors(steps, settings)
    for epoch, batches in enumerate(epochs):
        discrete = epoch >= len(epochs) - settings.epochs_rank_discrete
        budget_moves = 0 <= epoch - settings.epochs_budget_start < settings.epochs_budget_change
        for batch in batches:
            step = len(trajectory.losses)
            run.set_masks(discrete, None if drawn is None else drawn[step])
            trajectory.alphas.append(run.alpha)
            trajectory.budgets.append(run.budget)
            trajectory.losses.append(run.step(batch, factors[step]))
            trajectory.cores.append(torch.stack([layer.R.detach().clone() for layer in run.layers]))
            trajectory.heads.append(torch.cat([parameter.detach().flatten() for parameter in run.head]))
            if run.allocation is not None:
                trajectory.weights.append(run.allocation.detach().clone())
            run.alpha += (settings.alpha_max - settings.alpha_min) / steps
            if budget_moves:
                change = settings.budget_end - settings.budget_start
                run.budget += change / (settings.epochs_budget_change * len(batches))
        if run.allocation is not None:
            trajectory.validated_ranks.append(run.validated_ranks())
    return trajectory


def clip(parameters: list[nn.Parameter], largest: float) -> None:
    """Scales all gradients down so that their common norm is at most this large."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
    if norm > largest:
        for gradient in gradients:
            gradient *= largest / (norm + 1e-6)


def rate_factors(steps: int, settings: StudySettings) -> list[float]:
    """What each step's rates are multiplied with: up from 0 over the warm-up and then down to 0, or 1."""
    if not settings.linear_schedule:
        return [1.0] * steps
    warmup = int(settings.warmup_fraction * steps)
    up = [step / warmup for step in range(warmup)]
    return up + [(steps - step) / (steps - warmup) for step in range(warmup, steps)]
