"""What every way of adapting a frozen model has in common; and the scale s of an update."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from common.errors import InputError, one_of
from lora.factors import Factorise, Factors, empty_factors, factorise
from lora.gradient import Directions, GradientPass
from lora.injection import replace_module
from lora.layers import AdaptedLinear
from lora.rank_allocation import RankAllocation

LowRankFactors = dict[str, Factors]
LARGEST_RANK = 2**16  # far beyond any layer; more is a slip that would only fill the memory
_LARGEST_ALPHA = 1e30
ScalingRule = Literal["alpha_over_rank", "alpha_over_sqrt_rank", "constant"]


class Adapter(nn.Module):
    """Adapts a frozen model: replaces layers by adapted ones, and prepares them before each pass.

    Its own parameters are the adapter's and, with learnable ranks, those of `rank_allocation`.
    """

    allocates_ranks = False
    wrap_head = False  # whether the head is adapted like the backbone, instead of trained in full
    layer_names: tuple[str, ...]
    adapted_layers: list[Any]  # the layers in the order of `layer_names`, each with the frozen one as its `base`
    rank_allocation: RankAllocation | None
    fingerprint: Tensor | None  # lora.sketch of the frozen tensors it was trained with
    gradient_pass: GradientPass | None = None  # what it wants to know of the task before training begins
    starts_from_inputs = False  # whether `take_input_directions` must be called before the first step
    has_directions: Tensor  # whether `take_directions` was called; for adapters with a gradient pass

    def __init__(self) -> None:
        super().__init__()
        self.layer_names, self.rank_allocation, self.fingerprint = (), None, None
        self.adapted_layers = []

    def attach(
        self, model: nn.Module, model_type: str, head: Sequence[str] = (), factorise: Factorise = factorise
    ) -> None:
        """Wraps the chosen layers of the model, once.

        Args:
            model: the model to adapt, in place.
            model_type: its architecture, as in `model.config.model_type`.
            head: module paths that train in full and are left alone (or are adapted, with `wrap_head`).
            factorise: makes frozen factors from weights; a caller may pass one that remembers them on disk.
        """
        raise NotImplementedError

    def join_layers(self, model: nn.Module) -> None:
        """Lets layers that read the same tensor compute together, where the method can; after `attach`."""

    def check_fit(self, skeleton: nn.Module, model_type: str, head: Sequence[str]) -> None:
        """Raises what `attach` would for these settings; to be called on an adapter of its own, made for this.

        The skeleton is the model without values (on the meta device), and is changed.
        """
        self.attach(skeleton, model_type, head, empty_factors)

    def check_steps(self, steps: float) -> None:
        """Raises `InputError` for a run of so many optimizer steps if this adapter can't be trained in it."""

    @property
    def lacks_directions(self) -> bool:
        """Whether `take_directions` must be called before training: neither a checkpoint nor an export brought them."""
        return self.gradient_pass is not None and not bool(self.has_directions)

    def take_directions(self, directions: Sequence[Directions]) -> None:
        """Starts from the gradient's directions, `rank` of them for each adapted layer, in the order of the layers."""
        raise NotImplementedError

    def input_directions(self, batches: Iterable[Any], forward: Callable[[Any], Any]) -> dict[str, Tensor]:
        """The leading directions (r, in) of each adapted layer's inputs, for `take_input_directions`.

        `forward` runs the model on a batch of its inputs; as many are taken as are wanted.
        """
        raise NotImplementedError

    def take_input_directions(self, directions: Mapping[str, Tensor]) -> None:
        """Starts from what `input_directions` gave."""
        raise NotImplementedError

    @property
    def name(self) -> str:
        """What results and checkpoints call it."""
        return type(self).__name__

    def update_settings(self) -> dict[str, float | str]:
        """What decides, beside the tensors of an attached adapter, which update they stand for: its scale, say."""
        return {}

    def regularisation(self) -> Tensor | float:
        """What is added to the loss of each training step."""
        return 0.0

    def shortfall(self) -> str | None:
        """What the adapter promised to reach in training and has not reached, or None."""
        return None

    def refresh(self) -> None:
        """Hands each layer what it needs for one forward and backward pass."""
        raise NotImplementedError

    def merge(self) -> None:
        """Lets each layer go on with W + ΔW of the last `refresh` in one product: for evaluation, without gradients."""
        for layer in self.adapted_layers:
            layer.merge()

    def unmerge(self) -> None:
        """Lets each layer go on with W and its update apart; W was never changed."""
        for layer in self.adapted_layers:
            layer.unmerge()

    def discrete_ranks(self) -> dict[str, int]:
        """The rank of each adapted layer at this moment, by full module path."""
        raise NotImplementedError

    def update_factors(self) -> list[Factors]:
        """(A (k, in), B (out, k)) of each layer, whose product B A is its update ΔW at this moment.

        Scale and masks are in them, Gumbel noise isn't: nothing is drawn. Empty if updates aren't such products.
        """
        return []

    def low_rank_factors(self) -> LowRankFactors:
        """The update as plain LoRA, at the discrete ranks of this moment: W + B A, by full module path.

        A is (k, in) and B (out, k), with the scale folded into B; both are copies. A layer of rank 0 has k = 0.
        `InputError`: this adapter's update isn't such a product, or is kept by another library.
        """
        raise InputError(
            f"the adapter is {self.name}, whose update isn't kept as plain LoRA factors; allowed: the adapters of "
            "lora, such as lora.LoRA or lora.AdaptiveLoRAXS."
        )

    def load_low_rank_factors(self, factors: LowRankFactors) -> None:
        """Starts from an update that `low_rank_factors` gave, or that another library trained.

        `InputError`: this adapter can't hold such an update.
        """
        raise InputError(
            f"the adapter is {self.name}, which can't start from plain LoRA factors; allowed: lora.LoRA, or "
            "null to add the update to the weights. Set --model.adapter."
        )


class FixedRank(Adapter):
    """What LoRA and LoRA-XS have in common: updates of one rank and scale, in layers of this project.

    Adapters with other ranks build on it: `rank` is then the largest one.
    """

    rank: int
    scaling: float

    def scaling_at(self, rank: int) -> float:
        """The scale s that these settings give an adapter of another rank."""
        raise NotImplementedError

    def layer_areas(self) -> tuple[Tensor, int]:
        """c (N,) and p of the area c · r^p that rank r has in each adapted layer; p is 2 or 1."""
        raise NotImplementedError

    def update_settings(self) -> dict[str, float | str]:
        return {"scale": self.scaling_at(self.rank)}

    def discrete_ranks(self) -> dict[str, int]:
        return dict.fromkeys(self.layer_names, self.rank)

    def want_gradient(self, wanted: bool, batches: int, head_warmup_steps: int) -> None:
        """Notes that training is to begin with a gradient pass, if it is wanted.

        `InputError`: see `GradientPass.wanted`.
        """
        self.gradient_pass = GradientPass.wanted(wanted, batches, head_warmup_steps)
        if wanted:
            self.register_buffer("has_directions", torch.zeros((), dtype=torch.bool))

    def _took(self, directions: Sequence[Directions]) -> None:
        self.has_directions.fill_(True)
        if self.rank_allocation is not None and self.rank_allocation.needs_energies:
            self.rank_allocation.take_energies(torch.stack([found.energies for found in directions]))

    def _mark_idle_layers(self) -> None:
        """Nothing is computed for layers that have rank 0, and nothing below the lowest other one is differentiated."""
        if self.rank_allocation is not None and self.rank_allocation.rank_min == 0:
            for place, layer in enumerate(self.adapted_layers):
                layer.idle = place in self.rank_allocation.idle_layers

    def replace_layer(self, model: nn.Module, name: str, layer: AdaptedLinear) -> None:
        """Puts an adapted layer in the place of its frozen one, the next in the order of `layer_names`."""
        replace_module(model, name, layer)
        self.layer_names += (name,)
        self.adapted_layers.append(layer)


def check_rank(rank: int) -> None:
    """Raises `InputError` unless the rank is one that an update can have."""
    if not 1 <= rank <= LARGEST_RANK:
        raise InputError(f"rank is {rank}; allowed: 1 or more, up to {LARGEST_RANK:,}.")


def scaling_factor(rule: ScalingRule, lora_alpha: float, rank: int) -> float:
    """The scale s of an update: alpha / r (LoRA), alpha / √r (rsLoRA, arXiv 2312.03732), or alpha itself.

    `InputError`: alpha isn't above 0: nothing would be learned, or the sign turned.
    """
    if not 0 < lora_alpha < _LARGEST_ALPHA:
        raise InputError(f"lora_alpha is {lora_alpha}; allowed: a number above 0 that float32 holds, such as 16.")
    match rule:
        case "alpha_over_rank":
            return lora_alpha / rank
        case "alpha_over_sqrt_rank":
            return lora_alpha / rank**0.5
        case "constant":
            return lora_alpha
        case _:
            raise one_of("scaling", rule, ("alpha_over_rank", "alpha_over_sqrt_rank", "constant"))
