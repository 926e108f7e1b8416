"""The original study's soft mask, one layer and one size at a time."""

import torch
from torch import Tensor


def looped_mask(rank: Tensor, alpha: float, rank_min: int, rank_max: int) -> Tensor:
    """Mask (rank_max, rank_max) of one layer: a sum over sizes k of p(k) times a square of ones."""
    sizes = range(rank_min, rank_max + 1)
    logits = torch.stack([-alpha * torch.log(1 + (rank - size) ** 2) for size in sizes])
    probabilities = torch.softmax(logits, dim=0)
    mask = torch.zeros(rank_max, rank_max)
    for probability, size in zip(probabilities, sizes, strict=True):
        square = torch.zeros(rank_max, rank_max)
        square[:size, :size] = 1
        mask = mask + probability * square
    return mask
