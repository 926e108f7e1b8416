"""From ranks to nested masks, soft and hard, for all layers in one batch.

For a layer with continuous rank s, the mask is the mean of nested square masks of size k × k under
p(k) = softmax_k(−alpha · log(1 + (s − k)²) + tau · g_k), k = rank_min … rank_max, g ~ Gumbel(0, 1).
With the tail t[j] = P(k > j) the mean has a closed form: mask[a, b] = t[max(a, b)] = min(t[a], t[b]).
As alpha grows the mask hardens.
"""

import functools

import torch
from torch import Tensor

from common.errors import InputError


def soft_tails(ranks: Tensor, alpha: float | Tensor, rank_min: int, rank_max: int, tau: float = 0.0) -> Tensor:
    """Tails (N, rank_max) of continuous ranks (N,), differentiable in the ranks; alpha may be a tensor ().

    `InputError`: alpha isn't above zero.
    """
    _, exceeds, _ = _sizes(rank_min, rank_max, ranks.device)
    return _size_probabilities(ranks, alpha, rank_min, rank_max, tau) @ exceeds


def soft_masks(ranks: Tensor, alpha: float | Tensor, rank_min: int, rank_max: int, tau: float = 0.0) -> Tensor:
    """`square_masks` of `soft_tails`, (N, rank_max, rank_max), as one product of matrices."""
    _, _, squares = _sizes(rank_min, rank_max, ranks.device)
    probabilities = _size_probabilities(ranks, alpha, rank_min, rank_max, tau)
    return (probabilities @ squares).view(-1, rank_max, rank_max)


def _size_probabilities(ranks: Tensor, alpha: float | Tensor, rank_min: int, rank_max: int, tau: float) -> Tensor:
    """p (N, K) over the sizes rank_min … rank_max."""
    if not isinstance(alpha, Tensor) and not alpha > 0:
        raise InputError(f"alpha is {alpha}; allowed: above 0 (the larger, the harder the mask).")
    sizes, _, _ = _sizes(rank_min, rank_max, ranks.device)
    logits = -alpha * torch.log1p((ranks[:, None] - sizes) ** 2)  # (N, K)
    if tau > 0:
        uniform = torch.rand_like(logits).clamp_min(torch.finfo(logits.dtype).tiny)
        logits = logits - tau * torch.log(-torch.log(uniform))
    return torch.softmax(logits, dim=1)


def _sizes(rank_min: int, rank_max: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Sizes (K,), their tails (K, rank_max), and their square masks flattened (K, rank_max²)."""
    make = _made_sizes if torch.compiler.is_compiling() else _kept_sizes  # a compiler can't look into a cache
    return make(rank_min, rank_max, device)


def _made_sizes(rank_min: int, rank_max: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    sizes = torch.arange(rank_min, rank_max + 1, device=device)
    tails = hard_tails(sizes, rank_max)
    return sizes.float(), tails, square_masks(tails).flatten(1)


# outside of inference mode: what an evaluation makes first, training must be able to use
_kept_sizes = functools.lru_cache(torch.inference_mode(False)(_made_sizes))


def hard_tails(ranks: Tensor, rank_max: int) -> Tensor:
    """Tails (N, rank_max), zeros and ones, of integer ranks (N,)."""
    return (torch.arange(rank_max, device=ranks.device) < ranks[:, None]).float()


def square_masks(tails: Tensor) -> Tensor:
    """Masks (N, r, r) of tails (N, r): mask[a, b] = min(t[a], t[b])."""
    return torch.minimum(tails[:, :, None], tails[:, None, :])


def soft_hard_gap(soft: Tensor, hard: Tensor) -> Tensor:
    """How far soft masks are from hard ones: Σ|soft − hard| / Σ hard over all layers, from masks of one shape."""
    return (soft - hard).abs().sum() / hard.sum()
