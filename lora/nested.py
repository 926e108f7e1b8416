"""Nested training (DyLoRA, arXiv 2210.07558): one adapter that works at every rank, for a whole curve of ranks.

Each step trains the leading k directions at a rank k drawn at random, so earlier directions learn to do without
later ones. At rank k an adapter is exactly the fixed-rank one that these settings give for rank k, its scale
included; `scaling: constant` keeps one scale for all ranks.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from common.errors import InputError
from lora.adapter import FixedRank
from lora.factors import Factors
from lora.lora import LoRA
from lora.lora_xs import LoRAXS
from lora.rank_mask import hard_tails, square_masks


class NestedRanks(FixedRank):
    """Mixed into a fixed-rank adapter of rank rank_max: what it computes is cut to `active_rank`.

    The rank of each training step is set from outside (callbacks.nested_ranks); evaluation uses rank_max.
    """

    def request_nesting(self, rank_min: int, rank_max: int, evaluated_ranks: Sequence[int] | None) -> None:
        """Checks and notes the settings; `InputError`: ranks out of order or out of range."""
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
        settings: those of LoRA but its rank; s is that of the rank in use, unless scaling is constant.
    """

    def __init__(
        self,
        rank_min: int = 1,
        rank_max: int = 16,
        evaluated_ranks: list[int] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(rank_max, **settings)
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
        settings: those of LoRAXS but its rank; s is that of the rank in use, unless scaling is constant.
    """

    def __init__(
        self,
        rank_min: int = 1,
        rank_max: int = 25,
        evaluated_ranks: list[int] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(rank_max, **settings)
        self.request_nesting(rank_min, rank_max, evaluated_ranks)

    def _noiseless_masks(self) -> Tensor:
        return square_masks(
            hard_tails(torch.full((1,), self.active_rank, device=self.R.device), self.rank_max)
        )  # (1, r, r)
