"""The original study's ranks and masks, one layer and one size at a time, to compare with ours.

Written anew after the formulas of its `WeightMaskingLinear`: for each layer a softmax over the sizes (Gumbel noise
is drawn, and multiplied by tau = 0), and then, size by size, a square of ones times its probability.
"""

import torch
from torch import Tensor


def looped_ranks(weights: Tensor, budget: float, rank_min: int) -> Tensor:
    """Continuous ranks (N,) of the study's softmax allocation."""
    layers = len(weights)
    return torch.sqrt(rank_min**2 + (budget - layers * rank_min**2) * torch.softmax(weights, dim=0))


def looped_masks(ranks: Tensor, alpha: float, rank_min: int, rank_max: int, cores: list[Tensor]) -> list[Tensor]:
    """The soft mask of each layer, of the shape of its core (rank_max, rank_max)."""
    return [looped_mask(rank, alpha, rank_min, rank_max, core) for rank, core in zip(ranks, cores, strict=True)]


def looped_mask(rank: Tensor, alpha: float, rank_min: int, rank_max: int, core: Tensor) -> Tensor:
    """The soft mask of one layer with continuous rank (), of the shape of its core (rank_max, rank_max)."""
    sizes = torch.arange(rank_min, rank_max + 1, device=core.device)
    probabilities = _probabilities(rank, alpha, sizes)
    mask = torch.zeros_like(core)
    for size in range(rank_min, rank_max + 1):
        square = torch.zeros_like(core)
        square[:size, :size] = 1
        mask += probabilities[size - rank_min] * square
    return mask


def _probabilities(rank: Tensor, alpha: float, sizes: Tensor, tau: float = 0.0) -> Tensor:
    logits = -alpha * torch.log(1 + (rank - sizes) ** 2)
    noise = torch.distributions.Gumbel(0, 1).sample(sizes.shape).to(sizes.device)
    return torch.softmax(logits + tau * noise, dim=0)
