"""B C and C A of all layers in few products, instead of a product with C in every layer and each direction."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class FoldedCore(NamedTuple):
    """What one pass needs of a layer's core C (r, r) between its frozen factors; the core alone has a gradient."""

    up: Tensor  # B C (out, r)
    down: Tensor  # C A (r, in)


class StackedFactors:
    """Copies of the factors A (r, in) and B (out, r) of all layers, those of one shape stacked.

    Args:
        A: of each layer.
        B: of each layer.
        dtype: of the copies.
    """

    def __init__(self, A: Sequence[Tensor], B: Sequence[Tensor], dtype: torch.dtype) -> None:
        self._A, self._B = _stacks(A, dtype), _stacks(B, dtype)

    @torch.no_grad()
    def fold(self, cores: Tensor) -> list[FoldedCore]:
        """With the cores (N, r, r) of a step, in the copies' type."""
        ups: list[Tensor] = [cores] * len(cores)
        downs = ups.copy()
        for places, chosen, B in self._B:
            for place, up in zip(places, torch.bmm(B, cores[chosen]).unbind(0)):
                ups[place] = up
        for places, chosen, A in self._A:
            for place, down in zip(places, torch.bmm(cores[chosen], A).unbind(0)):
                downs[place] = down
        return [FoldedCore(up, down) for up, down in zip(ups, downs)]


def block_diagonals(blocks: Tensor) -> Tensor:
    """(n, m, r, r) -> (n, m r, m r), zero beside the blocks."""
    n, m, r, _ = blocks.shape
    if m == 1:
        return blocks[:, 0]
    places = torch.eye(m, dtype=blocks.dtype, device=blocks.device)[:, None, :, None]  # (m, 1, m, 1)
    return (blocks[:, :, :, None] * places).reshape(n, m * r, m * r)


def _stacks(factors: Sequence[Tensor], dtype: torch.dtype) -> list[tuple[list[int], Tensor, Tensor]]:
    """By shape: the layers' numbers, the same on the device, and the factors (layers, …)."""
    shapes: dict[torch.Size, list[int]] = {}
    for place, factor in enumerate(factors):
        shapes.setdefault(factor.shape, []).append(place)
    device = factors[0].device
    return [
        (places, torch.tensor(places, device=device), torch.stack([factors[place].to(dtype) for place in places]))
        for places in shapes.values()
    ]
