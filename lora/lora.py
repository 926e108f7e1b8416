"""LoRA with a fixed rank, and with ranks that allocate themselves."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from common.errors import InputError
from lora.adapter import FixedRank, LowRankFactors, ScalingRule, check_rank, scaling_factor
from lora.area_rules import InitialWeights
from lora.factors import Factorise, Factors, Initialization, check_initialization, factorise, initial_factors
from lora.gradient import Directions
from lora.injection import choose_layers, is_inside, linear_layers_of
from lora.layers import LoRALinear, dense_weight
from lora.learnable_ranks import LearnableRanks
from lora.products.frozen_products import cast_together
from lora.rank_allocation import AllocationRule, RankAllocation, Rounding
from lora.sketch import sketch
from lora.target_names import Targets


class LoRA(FixedRank):
    """LoRA (arXiv 2106.09685): W x + b + s · B A x, with A (rank, in) and B (out, rank) trained.

    Args:
        rank: rank of every update.
        lora_alpha: the number from which the scale s follows. Give this or alpha_per_rank.
        alpha_per_rank: alpha as a multiple of the rank: lora_alpha = alpha_per_rank · rank.
        scaling: s = lora_alpha / rank (alpha_over_rank), lora_alpha / √rank (alpha_over_sqrt_rank: rsLoRA), or
            lora_alpha itself (constant). The rank, here and for alpha_per_rank, is rank_max where ranks allocate
            themselves, and the one in use in nested training.
        initialization: uniform (A ~ U(−1/√in, 1/√in), B = 0), kaiming (PEFT's name for the same), gaussian
            (A ~ N(0, initial_std²), B = 0), both_gaussian (A and B ~ N(0, 1): training is expected to fail) or
            gradient (A's rows are the leading right singular vectors of the task's gradient, as long as uniform ones,
            B = 0).
        initial_std: standard deviation of A's initial entries with gaussian; 1 / rank if not given, as in PEFT.
        dropout: probability with which an entry of x is left out of the update in training.
        targets: names or patterns of the layers to adapt, or `all-linear` (every one of the backbone),
            `attention`, `mlp`, or `default` (query, value and both output projections).
        wrap_head: adapt the head's linear layers, too, with their random start frozen underneath, instead of
            training the head in full.
        gradient_batches: number of training batches that the gradient is averaged over.
        head_warmup_steps: number of steps that the head trains alone before that.
    """

    def __init__(
        self,
        rank: int = 8,
        lora_alpha: float | None = None,
        alpha_per_rank: float | None = None,
        scaling: ScalingRule = "alpha_over_rank",
        initialization: Initialization = "uniform",
        initial_std: float | None = None,
        dropout: float = 0.0,
        targets: Targets = "all-linear",
        wrap_head: bool = False,
        gradient_batches: int = 32,
        head_warmup_steps: int = 60,
    ) -> None:
        super().__init__()
        check_rank(rank)
        self.want_gradient(initialization == "gradient", gradient_batches, head_warmup_steps)
        if not 0 <= dropout < 1:
            raise InputError(f"dropout is {dropout}; allowed: 0 to below 1.")
        check_initialization(initialization, initial_std)
        self.rank, self.dropout, self.targets, self.wrap_head = rank, dropout, targets, wrap_head
        self.initialization, self.initial_std = initialization, initial_std
        _check_alpha(lora_alpha, alpha_per_rank)
        self.scaling_rule, self.lora_alpha, self.alpha_per_rank = scaling, lora_alpha, alpha_per_rank
        self.scaling = self.scaling_at(rank)
        self.A, self.B = nn.ParameterDict(), nn.ParameterDict()

    def scaling_at(self, rank: int) -> float:
        alpha = self.lora_alpha if self.alpha_per_rank is None else self.alpha_per_rank * rank
        assert alpha is not None
        return scaling_factor(self.scaling_rule, alpha, rank)

    def attach(
        self, model: nn.Module, model_type: str, head: Sequence[str] = (), factorise: Factorise = factorise
    ) -> None:
        found = self._find_layers(model, model_type, head)
        for name, base in found.items():
            weight = dense_weight(base)
            A, B = initial_factors(self.initialization, weight.shape, self.rank, self.initial_std)
            key = name.replace(".", "/")  # a parameter's name can't have dots
            self.A[key], self.B[key] = nn.Parameter(A.to(weight.device)), nn.Parameter(B.to(weight.device))
            self.replace_layer(model, name, LoRALinear(base, self.dropout))
        # a wrapped head starts at random: only the backbone's weights must be the same in every run
        self.fingerprint = sketch(dense_weight(base) for name, base in found.items() if not is_inside(name, head))

    def _find_layers(self, model: nn.Module, model_type: str, head: Sequence[str]) -> dict[str, nn.Module]:
        if not self.wrap_head:
            return choose_layers(model, model_type, self.targets, head)
        chosen = {**choose_layers(model, model_type, self.targets), **linear_layers_of(model, head)}
        return {name: module for name, module in model.named_modules() if name in chosen}

    def layer_areas(self) -> tuple[Tensor, int]:
        sides = [sum(dense_weight(layer.base).shape) for layer in self.adapted_layers]
        return torch.tensor(sides), 1  # area r · (in + out): the entries of A and B

    @torch.no_grad()
    def take_directions(self, directions: Sequence[Directions]) -> None:
        for A, found in zip(self.A.values(), directions, strict=True):
            A.copy_(found.V.T / math.sqrt(3))  # the length that uniform rows have on average
        self._took(directions)

    def refresh(self) -> None:
        device = self.adapted_layers[0].weight.device.type
        with torch.autocast(device, enabled=False):  # masks stay in float32
            factors = self._factors()
        if torch.is_autocast_enabled(device) and not torch.compiler.is_compiling():
            dtype = torch.get_autocast_dtype(device)
            cast = iter(cast_together([factor for pair in factors for factor in pair], dtype))
            factors = list(zip(cast, cast, strict=True))
        for layer, (A, B) in zip(self.adapted_layers, factors, strict=True):
            layer.hand_over(A, B, self.scaling)
        self._mark_idle_layers()

    def _pairs(self) -> list[Factors]:
        """A (rank, in) and B (out, rank) of each layer, as they are trained."""
        return list(zip(self.A.values(), self.B.values(), strict=True))

    def _factors(self) -> list[Factors]:
        """A and B of each layer as one pass uses them, scale left out."""
        return self._pairs()

    def _noiseless_factors(self) -> list[Factors]:
        """The same without random numbers."""
        return self._factors()

    @torch.no_grad()
    def update_factors(self) -> list[Factors]:
        return [(A, self.scaling * B) for A, B in self._noiseless_factors()]

    @torch.no_grad()
    def low_rank_factors(self) -> LowRankFactors:
        """A (k, in) and B (out, k) of each layer at its discrete rank k, with the scale in B: ΔW = B A."""
        ranks = self.discrete_ranks()
        pairs = zip(self.layer_names, self._pairs(), strict=True)
        return {name: (A[: ranks[name]].clone(), self.scaling * B[:, : ranks[name]]) for name, (A, B) in pairs}

    @torch.no_grad()
    def load_low_rank_factors(self, factors: LowRankFactors) -> None:
        """Starts from updates that `low_rank_factors` gave; layers without one, and further directions, add nothing.

        `InputError`: a layer that isn't adapted here, or a rank above this adapter's.
        """
        if other := sorted(set(factors) - set(self.layer_names)):
            raise InputError(
                f"the update changes {other[0]} (and {len(other) - 1} more layers) that this run doesn't adapt; "
                "allowed: layers adapted here. Set --model.adapter.targets as the other run had it."
            )
        largest = max(len(A) for A, _ in factors.values())
        if largest > self.rank:
            raise InputError(
                f"the update has rank {largest} in a layer, this adapter has {self.rank}; allowed: {largest} or more. "
                "Set --model.adapter.rank (or rank_max)."
            )
        if self.gradient_pass is not None:
            self.has_directions.fill_(True)
        for name, (own_A, own_B) in zip(self.layer_names, self._pairs(), strict=True):
            own_B.zero_()
            if name in factors:
                A, B = factors[name]
                own_A[: len(A)], own_B[:, : len(A)] = A, B / self.scaling


class AdaptiveLoRA(LearnableRanks, LoRA):
    """LoRA whose ranks allocate themselves: learnable weights share a budget of Σ rank · (in + out).

    The mask of a layer weighs its rank-one terms: the leading k rows of A and columns of B count at rank k. While
    B is 0 the update is 0 whatever the mask, so in the first step the allocation weights have no gradient.

    Args:
        rank_min: the smallest rank a layer can get; with 0 a layer may be left as it is.
        rank_max: the largest one: A is (rank_max, in), B is (out, rank_max).
        rank_average: the budget as the average rank of the layers, weighted by in + out. Give this or budget.
        budget: the budget itself, in entries of A and B used over all layers: parameters.
        allocation: bounded (keeps budget and bounds exactly), softmax (single ranks may exceed rank_max and
            lose budget there; equal weights then mean equal areas, so smaller layers start with higher ranks) or
            fixed_by_energy (ranks follow from the gradient's energies and aren't learned).
        initial_weights: random (N(0, 1)), uniform, quadratic (middle layers first), left_skewed (late layers
            first) or gradient_energy (the ranks of fixed_by_energy, from where they are learned).
        rounding: budgeted (never above the budget) or plain (each rank alone).
        tau: Gumbel noise on the soft masks; 0 for none.
        settings: those of LoRA but its rank, which is rank_max here.
    """

    def __init__(
        self,
        rank_min: int = 1,
        rank_max: int = 16,
        rank_average: float | None = None,
        budget: float | None = None,
        allocation: AllocationRule = "bounded",
        initial_weights: InitialWeights = "random",
        rounding: Rounding = "budgeted",
        tau: float = 0.0,
        **settings: Any,
    ) -> None:
        super().__init__(rank_max, **settings)
        make = partial(RankAllocation, rank_min=rank_min, rank_max=rank_max, rule=allocation, start=initial_weights)
        self.request_ranks(partial(make, rounding=rounding, tau=tau), rank_average, budget)

    def load_low_rank_factors(self, factors: LowRankFactors) -> None:
        raise InputError(
            "the adapter is AdaptiveLoRA, whose masks would change a given update; allowed: lora.LoRA, or null to add "
            "the update to the weights. Set --model.adapter."
        )

    def regularisation(self) -> Tensor | float:
        # gradients of zero for layers of rank 0: several processes must reduce the same set of gradients
        pairs = self._pairs()
        return sum(part[:0].sum() for place in self.allocation.idle_layers for part in pairs[place])

    def _factors(self) -> list[Factors]:
        return self._masked(self.allocation.tails())

    def _noiseless_factors(self) -> list[Factors]:
        return self._masked(self.allocation.noiseless_tails())

    def _masked(self, tails: Tensor) -> list[Factors]:
        columns = tails[..., None].unbind(0)  # N × (r, 1)
        return [(column * A, B) for column, (A, B) in zip(columns, self._pairs(), strict=True)]


def _check_alpha(lora_alpha: float | None, alpha_per_rank: float | None) -> None:
    if (lora_alpha is None) == (alpha_per_rank is None):
        raise InputError(
            f"lora_alpha is {lora_alpha} and alpha_per_rank is {alpha_per_rank}; allowed: exactly one of them, "
            "lora_alpha as a number (such as 32) or alpha_per_rank as a multiple of the rank (such as 10)."
        )
    for name, value in (("lora_alpha", lora_alpha), ("alpha_per_rank", alpha_per_rank)):
        if value is not None and not 0 < value < math.inf:
            raise InputError(f"{name} is {value}; allowed: a finite number above 0.")
