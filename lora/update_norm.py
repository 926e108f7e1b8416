"""How large the updates ΔW = s · B A are beside the frozen weights, without working out an (out, in) matrix."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lora.adapter import Adapter
from lora.layers import dense_weight


@dataclass(frozen=True)
class AdapterNorms:
    """Frobenius norms ‖ΔW‖ of the updates, over all layers and by layer, and relative to the frozen ‖W‖.

    The total of several layers is that of one matrix with all their entries: √Σ ‖ΔW‖².
    """

    total: float
    relative: float
    layers: dict[str, float]
    relative_layers: dict[str, float]


def product_norms(factors: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """‖B A‖ (N,) of pairs A (k, in), B (out, k): ‖B A‖² = Σ (Bᵀ B) ∘ (A Aᵀ), Gram matrices of size (k, k).

    Pairs of the same shapes are worked out in one batch.
    """
    alike: dict[tuple[torch.Size, torch.Size], list[int]] = {}
    for place, (A, B) in enumerate(factors):
        alike.setdefault((A.shape, B.shape), []).append(place)
    norms = factors[0][1].new_empty(len(factors))  # float64 in a run of that precision
    for places in alike.values():
        A = torch.stack([factors[place][0] for place in places])  # (n, k, in)
        B = torch.stack([factors[place][1] for place in places])  # (n, out, k)
        squares = ((B.mT @ B) * (A @ A.mT)).sum(dim=(1, 2))  # (n,)
        norms[places] = squares.clamp_min(0).sqrt()  # rounding can leave a zero just below itself
    return norms


@torch.no_grad()
def weight_norms(adapter: Adapter) -> Tensor:
    """‖W‖ (N,) of the frozen weights under an attached adapter: they never change."""
    return torch.stack([dense_weight(layer.base).norm() for layer in adapter.adapted_layers])


@torch.no_grad()
def update_norms(adapter: Adapter, weights: Tensor) -> AdapterNorms | None:
    """The norms of this moment, or None if the adapter's updates aren't products of two matrices.

    Reads from the device, once. `weights` are the adapter's `weight_norms` (N,).
    """
    factors = adapter.update_factors()
    if not factors:
        return None
    return norms_of(adapter.layer_names, product_norms(factors), weights)


def norms_of(names: Sequence[str], norms: Tensor, weights: Tensor) -> AdapterNorms:
    """Norms (N,) of the named layers' updates, beside the `weights` (N,), the norms of what they were before."""
    norms, weights = torch.stack([norms, weights.to(norms)]).cpu().double()
    return AdapterNorms(
        float(norms.norm()),
        float(norms.norm() / weights.norm()),
        dict(zip(names, norms.tolist(), strict=True)),
        dict(zip(names, (norms / weights).tolist(), strict=True)),
    )
