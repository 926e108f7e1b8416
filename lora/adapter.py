"""What every way of adapting a frozen model has in common."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from lora.rank_allocation import RankAllocation


class Adapter(nn.Module):
    """Adapts a frozen model: replaces layers by adapted ones, and prepares them before each pass.

    Its own parameters are the adapter's and, with learnable ranks, those of `rank_allocation`.
    `adapted_layers` are the layers in the order of `layer_names`; each has the frozen one as its `base`.
    """

    allocates_ranks = False
    wrap_head = False  # whether the head is adapted like the backbone, instead of trained in full
    layer_names: tuple[str, ...]
    adapted_layers: list[Any]
    rank_allocation: RankAllocation | None
    fingerprint: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.layer_names, self.rank_allocation, self.fingerprint = (), None, None
        self.adapted_layers = []

    def attach(self, model: nn.Module, model_type: str, head: Sequence[str], factorise: Callable[..., Any]) -> None:
        """Wraps the chosen layers of the model, once.

        Args:
            model: the model to adapt, in place.
            model_type: its architecture, as in `model.config.model_type`.
            head: module paths that train in full and are left alone (or are adapted, with `wrap_head`).
            factorise: makes frozen factors from weights; a caller may pass one that remembers them on disk.
        """
        raise NotImplementedError

    @property
    def name(self) -> str:
        """What results and checkpoints call it."""
        return type(self).__name__

    def check_ready_to_train(self) -> None:
        """Raises `InputError` if something this adapter needs in training is missing."""

    def regularisation(self) -> Tensor | float:
        """What is added to the loss of each training step."""
        return 0.0

    def shortfall(self) -> str | None:
        """What the adapter promised to reach in training and has not reached, or None."""
        return None

    def refresh(self) -> None:
        """Hands each layer what it needs for one forward and backward pass."""
        raise NotImplementedError

    def discrete_ranks(self) -> dict[str, int]:
        """The rank of each adapted layer at this moment, by full module path."""
        raise NotImplementedError

    def update_factors(self) -> list[tuple[Tensor, Tensor]]:
        """(A (k, in), B (out, k)) of each layer, whose product B A is its update ΔW at this moment.

        Scale and masks are in them, Gumbel noise isn't: nothing is drawn. Empty if updates aren't such products.
        """
        return []
