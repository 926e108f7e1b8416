"""What adapters whose ranks allocate themselves have in common, whatever a rank costs in them."""

import math
from collections.abc import Sequence
from functools import partial

from torch import nn

from common.errors import InputError
from lora.adapter import FixedRank
from lora.factors import Factorise, factorise
from lora.rank_allocation import RankAllocation


class LearnableRanks(FixedRank):
    """Mixed into a fixed-rank adapter: a `RankAllocation` over its layers, and ranks that follow from it."""

    allocates_ranks = True

    def request_ranks(self, make: "partial[RankAllocation]", rank_average: float | None, budget: float | None) -> None:
        """Notes what makes the allocation; `attach` calls it, once the layers are known.

        `InputError`: both rank_average and budget are given, or neither.
        """
        if (rank_average is None) == (budget is None):
            raise InputError(
                f"rank_average is {rank_average} and budget is {budget}; allowed: exactly one of them, "
                "for example rank_average: 20."
            )
        allocation, initial_weights = make.keywords["rule"], make.keywords["start"]
        by_energy = allocation == "fixed_by_energy" or initial_weights == "gradient_energy"
        if by_energy and (self.gradient_pass is None or self.gradient_pass.batches < 2):
            raise InputError(
                f"allocation is {allocation} and initial_weights is {initial_weights}, but the gradient's energies "
                "aren't known; allowed with factors: gradient (LoRA-XS) or initialization: gradient (LoRA), and "
                "gradient_batches of 2 or more."
            )
        self._make_allocation, self._rank_average, self._budget = make, rank_average, budget

    def attach(
        self, model: nn.Module, model_type: str, head: Sequence[str] = (), factorise: Factorise = factorise
    ) -> None:
        """See `Adapter`; `RankAllocation` says which settings are refused."""
        super().attach(model, model_type, head, factorise)
        coefficients, exponent = self.layer_areas()
        budget = self._budget
        if budget is None:
            assert self._rank_average is not None
            budget = float(coefficients.double().sum()) * math.prod([self._rank_average] * exponent)  # ** may overflow
        self.rank_allocation = self._make_allocation(coefficients, exponent, budget=budget)

    def update_settings(self) -> dict[str, float | str]:
        names = {"allocation": "rule", "rank_min": "rank_min", "rounding": "rounding"}  # ranks follow from them
        ranks = {name: self._make_allocation.keywords[key] for name, key in names.items()}
        return {**super().update_settings(), **ranks}

    @property
    def allocation(self) -> RankAllocation:
        """The rank allocation of an attached adapter."""
        assert self.rank_allocation is not None
        return self.rank_allocation

    def discrete_ranks(self) -> dict[str, int]:
        return dict(zip(self.layer_names, self.allocation.discrete_ranks().tolist(), strict=True))
