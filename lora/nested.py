"""Nested training (DyLoRA, arXiv 2210.07558): one adapter that works at every rank, for a whole curve of ranks.

Each step trains the leading k directions at a rank k drawn at random, so earlier directions learn to do without
later ones. At rank k an adapter is exactly the fixed-rank one that these settings give for rank k, its scale
included; `scaling: constant` keeps one scale for all ranks.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from common.errors import InputError
from lora.adapter import Adapter
from lora.factors import FactorRule, Factors
from lora.initialization import Initialization
from lora.lora import LoRA
from lora.lora_xs import LoRAXS
from lora.rank_mask import hard_tails, square_masks
from lora.scaling import ScalingRule
from lora.target_names import Targets


class NestedRanks(Adapter):
    """Mixed into a fixed-rank adapter of rank rank_max: what it computes is cut to `active_rank`.

    The rank of each training step is set from outside (callbacks.nested_ranks); evaluation uses rank_max.
    """

    scaling: float
    scaling_at: Callable[[int], float]  # the fixed-rank adapter's

    def request_nesting(self, rank_min: int, rank_max: int, evaluated_ranks: Sequence[int] | None) -> None:
        """Checks and notes the settings.

        Raises:
            InputError: ranks out of order or out of range.
        """
        if not 1 <= rank_min < rank_max:
            raise InputError(
                f"rank_min is {rank_min} and rank_max is {rank_max}; allowed: 1 <= rank_min < rank_max. "
                "For one fixed rank use lora.LoRAXS or lora.LoRA."
            )
        ranks = range(rank_min, rank_max + 1) if evaluated_ranks is None else evaluated_ranks
        if not ranks or not all(rank_min <= rank <= rank_max for rank in ranks):
            raise InputError(
                f"evaluated_ranks is {list(ranks)}; allowed: at least one rank from rank_min ({rank_min}) to rank_max "
                f"({rank_max})."
            )
        self.rank_min, self.rank_max, self.active_rank = rank_min, rank_max, rank_max
        self.evaluated_ranks = tuple(sorted(set(ranks)))

    def use_rank(self, rank: int) -> None:
        """Cuts every layer to the leading `rank` directions from the next `refresh` on."""
        self.active_rank, self.scaling = rank, self.scaling_at(rank)

    def discrete_ranks(self) -> dict[str, int]:
        return dict.fromkeys(self.layer_names, self.active_rank)


class NestedLoRA(NestedRanks, LoRA):
    """LoRA trained at a random rank each step, so that every rank from rank_min to rank_max works afterwards.

    Args:
        rank_min: the smallest rank to train.
        rank_max: the largest one: A is (rank_max, in), B is (out, rank_max).
        evaluated_ranks: ranks to evaluate when training has ended; every one if not given.
        lora_alpha: the number from which the scale s follows. Give this or alpha_per_rank.
        alpha_per_rank: alpha as a multiple of the rank k of the moment: lora_alpha = alpha_per_rank · k.
        scaling: at rank k, s = lora_alpha / k (alpha_over_rank), lora_alpha / √k (alpha_over_sqrt_rank), or
            lora_alpha itself (constant).
        initialization: uniform (A ~ U(−1/√in, 1/√in), B = 0), kaiming (PEFT's name for the same), gaussian
            (A ~ N(0, initial_std²), B = 0), or both_gaussian (A and B ~ N(0, 1): training is expected to fail).
        initial_std: standard deviation of A's initial entries with gaussian; 1 / rank_max if not given.
        dropout: probability with which an entry of x is left out of the update in training.
        targets: names or patterns of the layers to adapt, or `all-linear` (every one of the backbone),
            `attention`, `mlp`, or `default` (query, value and both output projections).
        wrap_head: adapt the head's linear layers, too, with their random start frozen underneath, instead of
            training the head in full.
    """

    def __init__(
        self,
        rank_min: int = 1,
        rank_max: int = 16,
        evaluated_ranks: list[int] | None = None,
        lora_alpha: float | None = None,
        alpha_per_rank: float | None = None,
        scaling: ScalingRule = "alpha_over_rank",
        initialization: Initialization = "uniform",
        initial_std: float | None = None,
        dropout: float = 0.0,
        targets: Targets = "all-linear",
        wrap_head: bool = False,
    ) -> None:
        super().__init__(
            rank_max, lora_alpha, alpha_per_rank, scaling, initialization, initial_std, dropout, targets, wrap_head
        )
        self.request_nesting(rank_min, rank_max, evaluated_ranks)

    def _factors(self) -> list[Factors]:
        k = self.active_rank
        return [(A[:k], B[:, :k]) for A, B in self._pairs()]


class NestedLoRAXS(NestedRanks, LoRAXS):
    """LoRA-XS trained at a random rank each step, so that every rank from rank_min to rank_max works afterwards.

    Args:
        rank_min: the smallest rank to train.
        rank_max: the largest one, and the size of R.
        evaluated_ranks: ranks to evaluate when training has ended; every one if not given.
        lora_alpha: the constant from which the scale s follows.
        scaling: at rank k, s = lora_alpha / k (alpha_over_rank), lora_alpha / √k (alpha_over_sqrt_rank), or
            lora_alpha itself (constant).
        targets: names or patterns of the layers to adapt, or `default` for the architecture's own (query, value
            and both output projections), `attention`, `mlp`, or `all-linear` (every one of the backbone).
        factors: B and A from the truncated SVD of W (svd), or random directions of equal lengths (random).
        initial_std: standard deviation of R's initial entries.
    """

    def __init__(
        self,
        rank_min: int = 1,
        rank_max: int = 25,
        evaluated_ranks: list[int] | None = None,
        lora_alpha: float = 16.0,
        scaling: ScalingRule = "alpha_over_rank",
        targets: Targets = "default",
        factors: FactorRule = "svd",
        initial_std: float = 1e-5,
    ) -> None:
        super().__init__(rank_max, lora_alpha, scaling, targets, factors, initial_std)
        self.request_nesting(rank_min, rank_max, evaluated_ranks)

    def _cores(self) -> Tensor:
        return self.scaling * self.R * self._noiseless_masks()

    def _noiseless_masks(self) -> Tensor:
        return square_masks(hard_tails(torch.tensor([self.active_rank]), self.rank_max)).to(self.R.device)  # (1, r, r)
