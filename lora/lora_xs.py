"""LoRA-XS with a fixed rank, and with ranks that allocate themselves."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from common.errors import InputError
from lora.adapter import FixedRank, LowRankFactors, ScalingRule, check_rank, scaling_factor
from lora.area_rules import InitialWeights
from lora.export import fold
from lora.factors import Factorise, FactorRule, Factors, factorise
from lora.gradient import Directions
from lora.injection import choose_layers
from lora.joint_layers import Folding, JointLayers, join_layers
from lora.layers import LoRAXSLinear, dense_weight
from lora.learnable_ranks import LearnableRanks
from lora.products.frozen_products import is_packable
from lora.products.stored_linear import StoredLinear
from lora.rank_allocation import AllocationRule, RankAllocation, Rounding
from lora.sketch import sketch, sketch_factors
from lora.target_names import Targets


class LoRAXS(FixedRank):
    """LoRA-XS (arXiv 2405.17604): W x + b + s · B R A x, with B and A frozen and only R (rank, rank) trained.

    Args:
        rank: size of R in every layer.
        lora_alpha: the constant from which the scale s follows.
        scaling: s = lora_alpha / rank (alpha_over_rank, the study's), lora_alpha / √rank, or lora_alpha itself
            (constant). The rank is rank_max where ranks allocate themselves, and the one in use in nested training.
        targets: names or patterns of the layers to adapt, or `default` for the architecture's own (query, value
            and both output projections), `attention`, `mlp`, or `all-linear` (every one of the backbone).
        factors: B and A from the truncated SVD of W (svd), random directions of equal lengths (random), or the leading
            singular directions of the task's gradient (gradient), for which training begins with a pass over batches.
        initial_std: standard deviation of R's initial entries; with gradient R starts at zero.
        gradient_batches: number of training batches that the gradient is averaged over.
        head_warmup_steps: number of steps that the head trains alone before that.
        initial_step: with gradient, R starts at -initial_step · S / S₁ of the gradient's singular values S (LoRA-SB).
    """

    def __init__(
        self,
        rank: int = 20,
        lora_alpha: float = 16.0,
        scaling: ScalingRule = "alpha_over_rank",
        targets: Targets = "default",
        factors: FactorRule = "svd",
        initial_std: float = 1e-5,
        gradient_batches: int = 32,
        head_warmup_steps: int = 60,
        initial_step: float = 0.0,
    ) -> None:
        super().__init__()
        check_rank(rank)
        self.want_gradient(factors == "gradient", gradient_batches, head_warmup_steps)
        self.initial_step = initial_step
        if initial_step < 0 or (initial_step and factors != "gradient"):
            raise InputError(f"initial_step is {initial_step}; allowed: 0, or more with factors: gradient.")
        if initial_std < 0:
            raise InputError(f"initial_std is {initial_std}; allowed: 0 or more.")
        self.rank, self.targets, self.factors, self.initial_std = rank, targets, factors, initial_std
        self.scaling_rule, self.lora_alpha = scaling, lora_alpha
        self.scaling = self.scaling_at(rank)
        self.joints: list[JointLayers] = []
        self._folding = Folding()

    def scaling_at(self, rank: int) -> float:
        return scaling_factor(self.scaling_rule, self.lora_alpha, rank)

    def attach(
        self, model: nn.Module, model_type: str, head: Sequence[str] = (), factorise: Factorise = factorise
    ) -> None:
        found = choose_layers(model, model_type, self.targets, head, self.rank)
        weights = [dense_weight(layer) for layer in found.values()]
        factors = factorise(weights, self.rank, self.factors)
        for (name, base), (A, B) in zip(found.items(), factors, strict=True):
            layer = LoRAXSLinear(base, A, B)
            self.replace_layer(model, name, layer)
            if self.gradient_pass is not None:
                layer.keep_factors(A, B)
        # factors of the gradient are in the checkpoint: the weights must be the same
        self.fingerprint = sketch_factors(factors) if self.gradient_pass is None else sketch(weights)
        self.R = nn.Parameter(torch.randn(len(found), self.rank, self.rank) * self.initial_std)  # (N, r, r)

    def layer_areas(self) -> tuple[Tensor, int]:
        return torch.ones(len(self.layer_names)), 2  # area r²: the entries of R

    @torch.no_grad()
    def take_directions(self, directions: Sequence[Directions]) -> None:
        for layer, found in zip(self.adapted_layers, directions, strict=True):
            layer.keep_factors(found.V.T.contiguous(), found.U.contiguous())
        steps = torch.stack([torch.diag(found.S / found.S[0]) for found in directions])  # (N, r, r)
        self.R.copy_(-self.initial_step * steps)
        self._took(directions)

    def refresh(self) -> None:
        device = self.R.device.type
        with torch.autocast(device, enabled=False):  # R and masks stay in float32
            cores, masks = self.scaling * self.R, self._masks()  # (N, r, r)
            cores = cores * masks if isinstance(masks, Tensor) else cores
        if torch.is_autocast_enabled(device):
            cores = cores.to(torch.get_autocast_dtype(device))  # once, not in every layer
        # unbind: indexing in the loop would allocate a full (N, r, r) gradient per layer
        for layer, core in zip(self.adapted_layers, cores.unbind(0), strict=True):
            layer.core, layer.folded = core, None
        if not torch.compiler.is_compiling():
            self._fold(cores)
        self._mark_idle_layers()

    def join_layers(self, model: nn.Module) -> None:
        self.joints, self._folding = join_layers(model), Folding()

    def _fold(self, cores: Tensor) -> None:
        self.joints = [joint for joint in self.joints if joint.refresh()]
        if isinstance(self.adapted_layers[0].base, StoredLinear):  # which computes with the core itself
            return
        weight = self.adapted_layers[0].weight
        if torch.is_autocast_enabled(weight.device.type) and not is_packable(weight, cores.dtype):
            self._folding.hand_over(cores, self.adapted_layers, self.joints)

    @torch.no_grad()
    def update_factors(self) -> list[Factors]:
        cores = self.scaling * self.R * self._noiseless_masks()  # (N, r, r)
        return [(layer.A, layer.B @ core) for layer, core in zip(self.adapted_layers, cores, strict=True)]

    def _masks(self) -> Tensor | float:
        """Of R, for a pass: (N, r, r), one for all layers, or 1."""
        return self._noiseless_masks()

    def _noiseless_masks(self) -> Tensor | float:
        return 1.0

    def low_rank_factors(self) -> LowRankFactors:
        frozen = self.frozen_factors()
        return {name: fold(*frozen[name], block, self.scaling) for name, block in self.blocks().items()}

    def blocks(self) -> dict[str, Tensor]:
        """R (k, k) of each layer at its discrete rank k, by full module path; copies."""
        ranks = self.discrete_ranks().items()
        return {name: R[:k, :k].detach().clone() for (name, k), R in zip(ranks, self.R, strict=True)}

    def frozen_factors(self) -> dict[str, Factors]:
        """A (k, in) and B (out, k) of each layer at its discrete rank k, by full module path.

        All of them where ranks are learned between directions of the gradient: no rule makes those that ranks may
        reach when training goes on.
        """
        ranks = self.discrete_ranks().items()
        if self.gradient_pass is not None and not self._keeps_ranks():
            ranks = dict.fromkeys(self.layer_names, self.rank).items()
        return {
            name: (layer.A[:k], layer.B[:, :k]) for (name, k), layer in zip(ranks, self.adapted_layers, strict=True)
        }

    @torch.no_grad()
    def load_blocks(self, blocks: dict[str, Tensor], factors: dict[str, Factors] | None = None) -> None:
        """Starts from R blocks (k, k) that `blocks` gave: in the leading corner of R, zeros around them.

        `InputError`: other layers, blocks larger than R, or factors that are missing.

        Args:
            blocks: R by full module path.
            factors: `frozen_factors` that they were trained between; needed where these come from a gradient, and then
                of size `rank`: what lies beyond was not exported.
        """
        if other := sorted(set(blocks) ^ set(self.layer_names)):
            raise InputError(
                f"the exported adapter and this run differ in {len(other)} adapted layers, such as {other[0]}; "
                "allowed: the same layers. Set --model.adapter.targets as the exported run had it."
            )
        largest = max(len(block) for block in blocks.values())
        if largest > self.rank:
            raise InputError(
                f"the exported adapter has rank {largest} in a layer, but R has size {self.rank} here; allowed: "
                f"{largest} or more. Set --model.adapter.rank (or rank_max)."
            )
        if self.gradient_pass is not None:
            self._load_factors(factors or {})
        self.R.zero_()
        for name, R in zip(self.layer_names, self.R, strict=True):
            R[: len(blocks[name]), : len(blocks[name])] = blocks[name]

    def _keeps_ranks(self) -> bool:
        return self.rank_allocation is not None and self.rank_allocation.is_fixed

    def _load_factors(self, factors: dict[str, Factors]) -> None:
        for name, layer in zip(self.layer_names, self.adapted_layers, strict=True):
            A, B = factors.get(name, (layer.A[:0], layer.B[:, :0]))
            if len(A) < self.rank and not self._keeps_ranks():  # further ones would be zero, and never learn
                raise InputError(
                    f"the exported adapter has {len(A)} directions in {name}, this run has rank {self.rank}; allowed "
                    f"with factors: gradient: {len(A)} at most. Set --model.adapter.rank (or rank_max), or go on with "
                    "--model.adapter lora.LoRA."
                )
            full_A, full_B = torch.zeros_like(layer.A), torch.zeros_like(layer.B)
            full_A[: len(A)], full_B[:, : len(A)] = A[: self.rank], B[:, : self.rank]
            layer.keep_factors(full_A, full_B)
        self.has_directions.fill_(True)


class AdaptiveLoRAXS(LearnableRanks, LoRAXS):
    """LoRA-XS whose ranks allocate themselves: learnable weights share a budget of Σ rank² among the layers.

    Args:
        rank_min: the smallest rank a layer can get; with 0 a layer may be left as it is.
        rank_max: the largest one, and the size of R.
        rank_average: the budget as an average rank: N · rank_average². Give this or budget.
        budget: the budget itself, in entries of R used over all layers.
        allocation: softmax (the study's; single ranks may exceed rank_max and lose budget there), bounded (keeps
            budget and bounds exactly) or fixed_by_energy (ranks follow from the gradient's energies, nothing is
            learned).
        initial_weights: random (N(0, 1)), uniform, quadratic (middle layers first), left_skewed (late layers
            first) or gradient_energy (the ranks of fixed_by_energy, from where they are learned).
        rounding: budgeted (never above the budget) or plain (each rank alone).
        tau: Gumbel noise on the soft masks; 0 for none.
        settings: those of LoRAXS but its rank, which is rank_max here.
    """

    def __init__(
        self,
        rank_min: int = 5,
        rank_max: int = 25,
        rank_average: float | None = None,
        budget: float | None = None,
        allocation: AllocationRule = "softmax",
        initial_weights: InitialWeights = "random",
        rounding: Rounding = "budgeted",
        tau: float = 0.0,
        **settings: Any,
    ) -> None:
        super().__init__(rank_max, **settings)
        make = partial(RankAllocation, rank_min=rank_min, rank_max=rank_max, rule=allocation, start=initial_weights)
        self.request_ranks(partial(make, rounding=rounding, tau=tau), rank_average, budget)

    def _masks(self) -> Tensor:
        return self.allocation.masks()

    def _noiseless_masks(self) -> Tensor:
        return self.allocation.masks_of(self.allocation.noiseless_tails())

    @torch.no_grad()
    def load_blocks(self, blocks: dict[str, Tensor], factors: dict[str, Factors] | None = None) -> None:
        """Starts from R blocks (see `LoRAXS`), at their ranks or, with a larger budget, above.

        `InputError`: see `LoRAXS`; also a budget too small for their ranks, whose masks would cut the update.
        """
        super().load_blocks(blocks, factors)
        ranks = torch.tensor([len(blocks[name]) for name in self.layer_names])
        if self.allocation.is_fixed:
            self.allocation.keep_ranks(ranks)
        else:
            self.allocation.start_from(ranks)
