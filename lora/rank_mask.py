"""From ranks to nested masks, soft and hard, for all layers in one batch.

For a layer with continuous rank s, the mask is the mean of nested square masks of size k × k under
p(k) = softmax_k(−alpha · log(1 + (s − k)²) + tau · g_k), k = rank_min … rank_max, g ~ Gumbel(0, 1).
With the tail t[j] = P(k > j) the mean has a closed form: mask[a, b] = t[max(a, b)] = min(t[a], t[b]).
As alpha grows the mask hardens.
"""

import torch
from torch import Tensor

from common.errors import InputError


def soft_tails(ranks: Tensor, alpha: float, rank_min: int, rank_max: int, tau: float = 0.0) -> Tensor:
    """Tails (N, rank_max) of continuous ranks (N,), differentiable in the ranks.

    Raises:
        InputError: alpha isn't above zero.
    """
    if not alpha > 0:
        raise InputError(f"alpha is {alpha}; allowed: above 0 (the larger, the harder the mask).")
    sizes = torch.arange(rank_min, rank_max + 1, device=ranks.device, dtype=ranks.dtype)  # (K,)
    logits = -alpha * torch.log1p((ranks[:, None] - sizes) ** 2)  # (N, K)
    if tau > 0:
        uniform = torch.rand_like(logits).clamp_min(torch.finfo(logits.dtype).tiny)
        logits = logits - tau * torch.log(-torch.log(uniform))
    exceeds = sizes[:, None] > torch.arange(rank_max, device=ranks.device)  # (K, rank_max)
    return torch.softmax(logits, dim=1) @ exceeds.to(ranks.dtype)


def hard_tails(ranks: Tensor, rank_max: int) -> Tensor:
    """Tails (N, rank_max), zeros and ones, of integer ranks (N,)."""
    return (torch.arange(rank_max, device=ranks.device) < ranks[:, None]).float()


def square_masks(tails: Tensor) -> Tensor:
    """Masks (N, r, r) of tails (N, r): mask[a, b] = min(t[a], t[b])."""
    return torch.minimum(tails[:, :, None], tails[:, None, :])


def soft_hard_gap(soft: Tensor, hard: Tensor) -> Tensor:
    """How far soft masks are from hard ones: Σ|soft − hard| / Σ hard over all layers, from tails (N, r)."""
    soft_masks, hard_masks = square_masks(soft), square_masks(hard)
    return (soft_masks - hard_masks).abs().sum() / hard_masks.sum()
