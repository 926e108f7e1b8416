"""From learnable weights to ranks under a budget.

Layer i of N is given an area a_i; its rank s_i follows from a_i = c_i · s_i^p. In LoRA-XS the area of rank r is
the r² entries of R that it uses (c = 1, p = 2); in plain LoRA it is r · (in + out) (c = in + out, p = 1).
The areas always sum to the budget M; two rules turn the weights w (N,) into areas:

softmax   a_i = min_i + (M − Σ min) · softmax(w)_i                    (the original rule; may exceed rank_max)
bounded   a_i = min_i + (max_i − min_i) · σ(w_i − τ), Σ a_i = M       (τ is the one scalar that makes it so)
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from common.errors import InputError, one_of
from lora.rank_mask import hard_tails, soft_tails

AllocationRule = Literal["softmax", "bounded"]
InitialWeights = Literal["random", "uniform", "quadratic", "left_skewed"]
Rounding = Literal["budgeted", "plain"]


def softmax_areas(weights: Tensor, budget: float, area_min: Tensor) -> Tensor:
    """Areas (N,) that sum to the budget; each is at least `area_min` (N,), none is bounded above."""
    return area_min + (budget - area_min.sum()) * torch.softmax(weights, dim=0)


class _BoundedAreas(torch.autograd.Function):
    """min + (max − min) · σ(w − τ), with τ from a monotone root search and its derivative implicit.

    With d = (max − min) · σ'(w − τ), the implicit function theorem gives ∂a/∂w = diag(d) − d dᵀ / Σd.
    """

    @staticmethod
    def forward(ctx, weights: Tensor, area_min: Tensor, area_max: Tensor, budget: float) -> Tensor:
        span = area_max - area_min  # (N,)
        share = torch.sigmoid(weights - _shift(weights, span, budget - area_min.sum()))  # (N,)
        ctx.save_for_backward(span * share * (1 - share))
        return area_min + span * share

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (d,) = ctx.saved_tensors
        mean = (d * gradient).sum() / d.sum().clamp_min(torch.finfo(d.dtype).tiny)
        return d * (gradient - mean), None, None, None


def _shift(weights: Tensor, span: Tensor, target: Tensor) -> Tensor:
    """The τ for which Σ span · σ(w − τ) = target: a search on ever finer grids, then Newton steps.

    No value is read on the host, so an accelerator isn't made to wait.
    """
    smallest = 4 * torch.finfo(weights.dtype).eps  # a budget at either end leaves every share there
    share = (target / span.sum()).clamp(smallest, 1 - smallest)
    offset = torch.logit(share)
    low, high = weights.min() - offset, weights.max() - offset
    grid = torch.linspace(0, 1, 65, dtype=weights.dtype, device=weights.device)
    for _ in range(4):  # the bracket shrinks by 64 each time
        points = low + (high - low) * grid  # (65,), the sum falls as τ rises
        sums = torch.sigmoid(weights - points[:, None]) @ span  # (65,)
        cell = ((sums >= target).sum() - 1).clamp(0, 63)
        low, high = points[cell], points[cell + 1]
    shift = (low + high) / 2
    for _ in range(3):
        value = torch.sigmoid(weights - shift)
        slope = (span * value * (1 - value)).sum().clamp_min(torch.finfo(span.dtype).tiny)
        shift = torch.clamp(shift + ((span * value).sum() - target) / slope, low, high)
    return shift


def bounded_areas(weights: Tensor, budget: float, area_min: Tensor, area_max: Tensor) -> Tensor:
    """Areas (N,) that sum to the budget and keep to their bounds; every weight has a gradient inside them."""
    return _BoundedAreas.apply(weights, area_min, area_max, budget)


def initial_weights(rule: InitialWeights, layers: int) -> Tensor:
    """Initial allocation weights (N,), float32. `random` draws from torch's global generator."""
    position = torch.arange(layers, dtype=torch.float32)
    spread = layers / (4 * math.sqrt(10))
    match rule:
        case "random":
            return torch.randn(layers)
        case "uniform":
            return torch.zeros(layers)
        case "quadratic":
            return torch.exp(-((position - layers // 2) ** 2) / (2 * (2 * spread) ** 2))
        case "left_skewed":
            centre = 3 * layers / 4
            width = torch.where(position < centre, 3 * spread, spread)
            return torch.exp(-((position - centre) ** 2) / (2 * width**2))
        case _:
            raise one_of("initial_weights", rule, ("random", "uniform", "quadratic", "left_skewed"))


class RankAllocation(nn.Module):
    """Learnable rank-allocation weights of N layers under one budget, and the mask tails they imply.

    `alpha`, `budget` and the phase are set from outside (callbacks), once per step; all three are plain numbers.

    Args:
        coefficients: c (N,) of the area c · r^p of each layer.
        exponent: p, 2 for LoRA-XS, 1 for plain LoRA.
        rank_min: the smallest rank a layer can get, at least 1.
        rank_max: the largest one.
        budget: total area M.
        rule: how weights become areas.
        start: the initial weights.
        rounding: `budgeted` never exceeds the budget; `plain` rounds each rank alone.
        tau: strength of the Gumbel noise on the soft mask; 0 turns it off.

    Raises:
        InputError: the budget has no solution between rank_min and rank_max, or another value is out of range.
    """

    def __init__(
        self,
        coefficients: Tensor,
        exponent: int,
        rank_min: int,
        rank_max: int,
        budget: float,
        rule: AllocationRule = "softmax",
        start: InitialWeights = "random",
        rounding: Rounding = "budgeted",
        tau: float = 0.0,
    ) -> None:
        super().__init__()
        if not 1 <= rank_min < rank_max:
            raise InputError(
                f"rank_min is {rank_min} and rank_max is {rank_max}; allowed: 1 <= rank_min < rank_max. "
                "For one fixed rank use the adapter lora.LoRAXS."
            )
        if tau < 0:
            raise InputError(f"tau is {tau}; allowed: 0 (no Gumbel noise) or more.")
        if rule not in ("softmax", "bounded"):
            raise one_of("allocation", rule, ("softmax", "bounded"))
        if rounding not in ("budgeted", "plain"):
            raise one_of("rounding", rounding, ("budgeted", "plain"))
        self.rank_min, self.rank_max = rank_min, rank_max
        self.rule, self.rounding, self.tau, self.exponent = rule, rounding, tau, exponent
        self.weights = nn.Parameter(initial_weights(start, len(coefficients)))  # (N,)
        self.coefficients: Tensor
        self.register_buffer("coefficients", coefficients.float(), persistent=False)  # (N,)
        self.alpha = 1.0
        self.budget = float(budget)
        self.check_budget(budget)
        self._hard_tails: Tensor | None = None

    def check_budget(self, budget: float) -> None:
        """Raises `InputError` unless some ranks between rank_min and rank_max have this total area."""
        layers = len(self.coefficients)
        low, high = (float(self.area(torch.full((layers,), rank)).sum()) for rank in (self.rank_min, self.rank_max))
        if not low <= budget <= high:
            raise InputError(
                f"a budget of {budget:,.0f} has no solution for {layers} layers with ranks {self.rank_min} to "
                f"{self.rank_max}; allowed: {low:,.0f} to {high:,.0f}. Change rank_average (or budget), rank_min "
                "or rank_max."
            )

    def area(self, ranks: Tensor) -> Tensor:
        """Area (N,) of integer or continuous ranks (N,), in the ranks' own precision (float64 for integers)."""
        ranks = ranks if ranks.is_floating_point() else ranks.double()
        return self.coefficients.to(ranks) * ranks**self.exponent

    def ranks(self) -> Tensor:
        """Continuous ranks s (N,), float32, differentiable in the weights."""
        # Sums over layers are kept in float64 where the device has it, so that the budget is met exactly.
        precision = torch.float32 if self.weights.device.type == "mps" else torch.float64
        weights, coefficients = self.weights.to(precision), self.coefficients.to(precision)
        area_min = coefficients * self.rank_min**self.exponent
        if self.rule == "softmax":
            areas = softmax_areas(weights, self.budget, area_min)
        else:
            areas = bounded_areas(weights, self.budget, area_min, coefficients * self.rank_max**self.exponent)
        return ((areas / coefficients) ** (1 / self.exponent)).float()

    @torch.no_grad()
    def discrete_ranks(self) -> Tensor:
        """Integer ranks (N,) of this moment, int64 on the CPU, between rank_min and rank_max."""
        ranks = self.ranks().cpu().clamp(self.rank_min, self.rank_max)
        if self.rounding == "plain":
            return ranks.round().long()
        return self._round_within_budget(ranks)

    def _round_within_budget(self, ranks: Tensor) -> Tensor:
        """Floors, then one more rank for the largest fractional parts that still fit into the budget."""
        rounded = (ranks + 1e-5).floor()  # a rank that is whole up to float error stays whole
        coefficients = self.coefficients.cpu().double()
        step = coefficients * ((rounded.double() + 1) ** self.exponent - rounded.double() ** self.exponent)  # (N,)
        left = self.budget - float((coefficients * rounded.double() ** self.exponent).sum())
        fractions = ranks - rounded
        for layer in torch.argsort(fractions, descending=True, stable=True).tolist():
            if fractions[layer] > 0 and step[layer] <= left:
                rounded[layer] += 1
                left -= float(step[layer])
        return rounded.long()

    @property
    def is_discrete(self) -> bool:
        """Whether masks are hard at this moment."""
        return self._hard_tails is not None

    def discretise(self) -> None:
        """Makes masks hard, at the discrete ranks of this moment, until `soften` is called."""
        self._hard_tails = hard_tails(self.discrete_ranks(), self.rank_max).to(self.weights.device)

    def soften(self) -> None:
        """Makes masks soft again."""
        self._hard_tails = None

    def tails(self) -> Tensor:
        """Mask tails (N, rank_max): entry j of layer i is the weight with which its rank exceeds j."""
        if self._hard_tails is not None:
            # A gradient of zero instead of none: several processes must reduce the same set of gradients.
            return self._hard_tails + 0 * self.weights.sum()
        return soft_tails(self.ranks(), self.alpha, self.rank_min, self.rank_max, self.tau)

    def expected_tails(self) -> Tensor:
        """The soft tails without noise, whatever the phase: for looking at, drawing no random numbers."""
        return soft_tails(self.ranks(), self.alpha, self.rank_min, self.rank_max)

    def get_extra_state(self) -> dict[str, float]:
        """The moment the weights belong to: evaluation needs the budget, reports need alpha."""
        return {"alpha": self.alpha, "budget": self.budget}

    def set_extra_state(self, state: dict[str, float]) -> None:
        """Restores what `get_extra_state` gave."""
        self.alpha, self.budget = state["alpha"], state["budget"]
