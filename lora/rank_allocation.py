"""From learnable weights to ranks under a budget.

Layer i of N is given an area a_i; its rank s_i follows from a_i = c_i · s_i^p. In LoRA-XS the area of rank r is
the r² entries of R that it uses (c = 1, p = 2); in plain LoRA it is r · (in + out) (c = in + out, p = 1).
The areas always sum to the budget M; `area_rules` has the two rules that turn the weights w (N,) into areas.
"""

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from common.errors import InputError, check_one_of
from lora.area_rules import InitialWeights, bounded_areas, initial_weights, softmax_areas
from lora.gradient import ranks_by_energy
from lora.rank_mask import hard_tails, soft_masks, soft_tails, square_masks

AllocationRule = Literal["softmax", "bounded", "fixed_by_energy"]
RULES = ("softmax", "bounded", "fixed_by_energy")
Rounding = Literal["budgeted", "plain"]


class RankAllocation(nn.Module):
    """Learnable rank-allocation weights of N layers under one budget, and the mask tails they imply.

    `alpha`, `budget` and the phase are set from outside (callbacks), once per step; all three are plain numbers.
    `InputError`: the budget has no solution between rank_min and rank_max, or another value is out of range.

    Args:
        coefficients: c (N,), of the area c · r^p of each layer.
        exponent: p, 2 for LoRA-XS or 1 for plain LoRA.
        rank_min: the smallest rank a layer can get; 0 for layers that may be left as they are.
        rank_max: the largest one.
        budget: total area M.
        rule: how weights become areas; with `fixed_by_energy` nothing is learned, ranks are those of `take_energies`.
        start: the initial weights.
        rounding: `budgeted` never exceeds the budget; `plain` rounds each rank alone.
        tau: strength of the Gumbel noise on the soft mask; 0 turns it off.
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
        if not 0 <= rank_min < rank_max:
            raise InputError(
                f"rank_min is {rank_min} and rank_max is {rank_max}; allowed: 0 <= rank_min < rank_max. "
                "For one fixed rank use lora.LoRAXS or lora.LoRA."
            )
        if tau < 0:
            raise InputError(f"tau is {tau}; allowed: 0 (no Gumbel noise) or more.")
        check_one_of("allocation", rule, RULES)
        check_one_of("rounding", rounding, ("budgeted", "plain"))
        self.rank_min, self.rank_max = rank_min, rank_max
        self.rule, self.rounding, self.tau, self.exponent = rule, rounding, tau, exponent
        self.start = start
        self.weights: Tensor
        self.fixed_ranks: Tensor
        if self.is_fixed:
            self.register_buffer("weights", torch.zeros(len(coefficients)))
            self.register_buffer("fixed_ranks", torch.full((len(coefficients),), rank_min))  # until energies are known
        else:
            self.weights = nn.Parameter(initial_weights(start, len(coefficients)))  # (N,)
        self.coefficients = coefficients.double()  # (N,), on the CPU
        self._kept: tuple[Tensor, Tensor, Tensor] | None = None
        # known on the host, so that a step never waits for the device
        total = float(self.coefficients.sum())
        self._budget_range = (total * rank_min**exponent, total * rank_max**exponent)
        self.alpha = 1.0
        self.budget = float(budget)
        self.check_budget(budget)
        self._hard_tails: Tensor | None = None
        self._idle: frozenset[int] | None = None
        self.moment: Tensor | None = None  # alpha and the budget (2,) on the device, for compiled steps

    def note_moment(self) -> None:
        """Brings `moment` up to date, whose numbers a compiled step uses: the host's would be constants in it."""
        if self.moment is None:
            self.moment = torch.zeros(2, dtype=self._area_constants()[0].dtype, device=self.weights.device)
        self.moment[0].fill_(self.alpha)
        self.moment[1].fill_(self.budget)
        self._idle = self.idle_layers  # a compiled step can't read ranks

    def _moment(self) -> tuple[Any, Any]:
        """Alpha and the budget, as numbers or, in a compiled step, as tensors."""
        if self.moment is not None and torch.compiler.is_compiling():
            return self.moment[0].float(), self.moment[1]
        return self.alpha, self.budget

    @property
    def is_fixed(self) -> bool:
        """Whether nothing is learned: ranks follow from the gradient's energies alone."""
        return self.rule == "fixed_by_energy"

    @property
    def needs_energies(self) -> bool:
        """Whether `take_energies` is to be called before training."""
        return self.is_fixed or self.start == "gradient_energy"

    def take_energies(self, energies: Tensor) -> None:
        """Starts from the ranks that share the budget out by energy, or keeps them for good where ranks are fixed.

        Energies are those of each layer's directions (`lora.gradient`), (N, rank_max).
        """
        ranks = ranks_by_energy(
            energies, self.coefficients, self.exponent, self.rank_min, self.rank_max, self.budget
        )  # (N,)
        if self.is_fixed:
            self.keep_ranks(ranks)
        else:
            self.start_from(ranks)

    def keep_ranks(self, ranks: Tensor) -> None:
        """Sets the ranks (N,) of an allocation that isn't learned."""
        self.fixed_ranks.copy_(ranks)
        self._idle = None

    def check_budget(self, budget: float) -> None:
        """Raises `InputError` unless some ranks between rank_min and rank_max have this total area."""
        low, high = self._budget_range
        low = low or float(self.coefficients.min())  # of a single rank: with less, nothing could be adapted
        if not low <= budget <= high:
            raise InputError(
                f"a budget of {budget:,.0f} has no solution for {len(self.coefficients)} layers with ranks "
                f"{self.rank_min} to {self.rank_max}; allowed: {low:,.0f} to {high:,.0f}. Change "
                "rank_average (or budget), rank_min or rank_max."
            )

    def area(self, ranks: Tensor) -> Tensor:
        """Area (N,), float64 on the CPU, of integer or continuous ranks (N,)."""
        return self.coefficients * ranks.detach().cpu().double() ** self.exponent

    def rank_of_area(self, area: float) -> float:
        """The one rank that, in every layer, has this total area."""
        return (area / float(self.coefficients.sum())) ** (1 / self.exponent)

    def ranks(self) -> Tensor:
        """Continuous ranks s (N,), float32, differentiable in the weights."""
        if self.is_fixed:
            return self.fixed_ranks.float()
        coefficients, area_min, span = self._area_constants()
        weights = self.weights.to(area_min.dtype)
        low, high = self._budget_range
        _, budget = self._moment()
        if self.rule == "softmax":
            areas = softmax_areas(weights, budget - low, area_min)
        else:
            areas = bounded_areas(weights, (budget - low) / (high - low), area_min, span, high - low)
        ranks = areas / coefficients
        if self.rank_min == 0:  # the slope of a square root at 0 isn't finite
            ranks = ranks.clamp_min(1e-12)
        return (ranks.sqrt() if self.exponent == 2 else ranks).float()

    @torch.inference_mode(False)
    def _area_constants(self) -> tuple[Tensor, Tensor, Tensor]:
        """Coefficients, smallest areas and spans (N,), in float64 where the device has it: sums stay exact."""
        if self._kept is None or self._kept[0].device != self.weights.device:
            device = self.weights.device
            precision = torch.float32 if device.type == "mps" else torch.float64
            coefficients = self.coefficients.to(device, precision)
            area_min = coefficients * self.rank_min**self.exponent
            self._kept = (coefficients, area_min, coefficients * self.rank_max**self.exponent - area_min)
        return self._kept

    @torch.no_grad()
    def discrete_ranks(self) -> Tensor:
        """Integer ranks (N,) of this moment, int64 on the CPU, between rank_min and rank_max."""
        if self.is_fixed:
            return self.fixed_ranks.cpu()
        ranks = self.ranks().cpu().clamp(self.rank_min, self.rank_max)
        if self.rounding == "plain":
            rounded = ranks.round().long()
            if not rounded.any():  # a model without any update couldn't train on
                rounded[ranks.argmax()] = 1
            return rounded
        return self._round_within_budget(ranks)

    @torch.no_grad()
    def ranks_in_use(self) -> Tensor:
        """Ranks (N,) that the masks of this moment have: continuous while masks are soft, then discrete."""
        return self.discrete_ranks() if self.is_discrete else self.ranks()

    def _round_within_budget(self, ranks: Tensor) -> Tensor:
        """Floors, then one more rank for the largest fractional parts that still fit into the budget."""
        rounded = (ranks + 1e-5).floor()  # a rank that is whole up to float error stays whole
        step = self.area(rounded + 1) - self.area(rounded)  # (N,)
        left = self.budget - float(self.area(rounded).sum())
        fractions = ranks - rounded
        for layer in torch.argsort(fractions, descending=True, stable=True).tolist():
            if fractions[layer] > 0 and step[layer] <= left:
                rounded[layer] += 1
                left -= float(step[layer])
        return rounded.long()

    @torch.no_grad()
    def start_from(self, ranks: Tensor) -> None:
        """Sets the weights so that the ranks are these (N,) if they use the budget up, and no smaller if they don't.

        `InputError`: these ranks, none below rank_min, need more than the budget.
        """
        _, area_min, span = self._area_constants()
        areas = self.area(ranks.clamp(self.rank_min, self.rank_max))  # (N,)
        if (needed := float(areas.sum())) > self.budget * (1 + 1e-9):
            average = self.rank_of_area(needed)
            raise InputError(
                f"the ranks to start from ({int(ranks.min())} to {int(ranks.max())}, none below rank_min "
                f"{self.rank_min} here) need a budget of {math.ceil(needed):,}, this run has {self.budget:,.0f}; "
                f"allowed: {math.ceil(needed)} or more, or some would be cut. Raise --model.adapter.rank_average to "
                f"{math.ceil(average * 1000) / 1000} (or the budget), or lower rank_min."
            )
        room = areas.to(area_min) - area_min  # (N,)
        # softmax shares the budget's room out in proportion to exp(w); bounded fills each layer's own span
        if self.rule == "softmax":
            self.weights.copy_((room / span.max()).clamp_min(1e-12).log())
        else:
            self.weights.copy_((room / span).clamp(1e-12, 1 - 1e-12).logit())

    @property
    def is_discrete(self) -> bool:
        """Whether masks are hard at this moment."""
        return self.is_fixed or self._hard_tails is not None

    def discretise(self) -> None:
        """Makes masks hard, at the discrete ranks of this moment, until `soften` is called."""
        ranks = self.discrete_ranks()
        self._hard_tails = hard_tails(ranks, self.rank_max).to(self.weights.device)
        self._idle = _zeros(ranks)

    def soften(self) -> None:
        """Makes masks soft again, unless ranks are fixed."""
        self._hard_tails = self._idle = None

    @property
    def idle_layers(self) -> frozenset[int]:
        """Places of the layers that have rank 0 for now, so that they can be left out; none while masks are soft."""
        if self._idle is None:
            self._idle = _zeros(self.discrete_ranks()) if self.is_fixed else frozenset()
        return self._idle

    def _given_tails(self) -> Tensor | None:
        """Hard tails (N, rank_max), or None while masks are soft."""
        if self._hard_tails is None and self.is_fixed:
            return hard_tails(self.fixed_ranks, self.rank_max)
        return self._hard_tails

    def tails(self) -> Tensor:
        """Mask tails (N, rank_max): entry j of layer i is the weight with which its rank exceeds j."""
        if (hard := self._given_tails()) is not None:
            return hard + self._nothing()
        return soft_tails(self.ranks(), self._moment()[0], self.rank_min, self.rank_max, self.tau)

    def masks(self) -> Tensor:
        """Square masks (N, rank_max, rank_max) for the cores of LoRA-XS."""
        if (hard := self._given_tails()) is not None:
            return square_masks(hard) + self._nothing()
        return soft_masks(self.ranks(), self._moment()[0], self.rank_min, self.rank_max, self.tau)

    def _nothing(self) -> Tensor:
        # A gradient of zero instead of none: several processes must reduce the same set of gradients.
        return (0 * self.weights).sum()  # in this order: the sum of very large weights isn't finite

    @torch.no_grad()
    def noiseless_tails(self) -> Tensor:
        """The tails of this moment's phase, hard or soft, without noise: for looking at, drawing no random numbers."""
        return self.tails() if self.is_discrete else soft_tails(self.ranks(), self.alpha, self.rank_min, self.rank_max)

    def masks_of(self, tails: Tensor) -> Tensor:
        """What tails (N, r) mask: the cores of LoRA-XS (N, r, r), or the r directions of plain LoRA (N, 1, r)."""
        return square_masks(tails) if self.exponent == 2 else tails[:, None]

    def get_extra_state(self) -> dict[str, float]:
        """The moment the weights belong to: evaluation needs the budget, reports alpha, exports the phase."""
        return {"alpha": self.alpha, "budget": self.budget, "discrete": float(self.is_discrete)}

    def set_extra_state(self, state: dict[str, float]) -> None:
        """Restores what `get_extra_state` gave; the phase follows from the step."""
        self.alpha, self.budget = state["alpha"], state["budget"]
        self._idle = None


def _zeros(ranks: Tensor) -> frozenset[int]:
    return frozenset(layer for layer, rank in enumerate(ranks.tolist()) if rank == 0)
