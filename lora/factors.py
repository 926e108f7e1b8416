"""The frozen factors of LoRA-XS (arXiv 2405.17604): W ≈ B A from a truncated SVD, or at random as a control."""

from typing import Literal

import torch
from torch import Tensor

from common.errors import InputError, one_of

FactorRule = Literal["svd", "random"]
Factors = tuple[Tensor, Tensor]

# scikit-learn's TruncatedSVD settings in the original study
_POWER_ITERATIONS = 10
_OVERSAMPLING = 10


def svd_factors(weight: Tensor, rank: int, seed: int = 42) -> Factors:
    """The leading singular directions of a weight (out, in), by randomised subspace iteration.

    With Wᵀ = U S Vᵀ: A = (U S)ᵀ (rank, in) carries the singular values, B = V (out, rank) is orthonormal, and
    B A is the best approximation of W with this rank. Directions are ordered by singular value, so the leading
    k of them are the factors of rank k. Signs are fixed: the largest entry of each left vector U is positive.

    Raises:
        InputError: the rank exceeds the smaller side of the weight.
    """
    smaller_side = _checked_side(weight, rank)
    transposed = weight.detach().float().cpu().T  # (in, out)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        width = min(rank + _OVERSAMPLING, smaller_side)
        U, S, V = torch.svd_lowrank(transposed, q=width, niter=_POWER_ITERATIONS)  # (in, q), (q,), (out, q)
    U, S, V = U[:, :rank], S[:rank], V[:, :rank]
    signs = torch.sign(U.gather(0, U.abs().argmax(dim=0, keepdim=True))).squeeze(0)  # (rank,)
    return ((U * (S * signs)).T.contiguous(), (V * signs).contiguous())


def _checked_side(weight: Tensor, rank: int) -> int:
    smaller_side = min(weight.shape)
    if not 1 <= rank <= smaller_side:
        raise InputError(
            f"rank is {rank}, but the weight has shape {tuple(weight.shape)}; allowed: 1 to {smaller_side}. "
            "Lower the rank (or rank_max), or leave this layer out of targets."
        )
    return smaller_side


def empty_factors(weights: list[Tensor], rank: int, rule: FactorRule) -> list[Factors]:
    """Zeros in the place of `factorise`'s factors, without memory of their own, to try out whether settings fit.

    Raises:
        InputError: the rank exceeds the smaller side of a weight.
    """
    zero = torch.zeros(())
    for weight in weights:
        _checked_side(weight, rank)
    return [(zero.expand(rank, weight.shape[1]), zero.expand(weight.shape[0], rank)) for weight in weights]


def random_factors(weight: Tensor, rank: int, seed: int = 42) -> Factors:
    """A control for `svd_factors`: Gaussian directions, each of the length its singular one has."""
    A, B = svd_factors(weight, rank, seed)
    generator = torch.Generator().manual_seed(seed)
    random_A = torch.randn(A.shape, generator=generator)
    random_B = torch.randn(B.shape, generator=generator)
    A = random_A * (A.norm(dim=1) / random_A.norm(dim=1))[:, None]
    B = random_B / random_B.norm(dim=0)
    return A, B


def factorise(weights: list[Tensor], rank: int, rule: FactorRule, seed: int = 42) -> list[Factors]:
    """Factors (A, B) of several weights (out, in); random ones differ from layer to layer."""
    if rule == "svd":
        return [svd_factors(weight, rank, seed) for weight in weights]
    if rule == "random":
        return [random_factors(weight, rank, seed + layer) for layer, weight in enumerate(weights)]
    raise one_of("factors", rule, ("svd", "random"))


def fingerprint(factors: list[Factors]) -> Tensor:
    """A sketch (N, 3 · rank) of the factors: each direction's product with a fixed vector, and A's lengths as logs.

    Directions count at unit length, so that a weak one is seen beside a strong one. A flipped, swapped or rotated
    direction changes the sketch, rounding does not.
    """
    return torch.stack([_sketch(A.cpu(), B.cpu()) for A, B in factors])


def tensor_fingerprint(tensors: list[Tensor]) -> Tensor:
    """A sketch (N, 2) of any frozen tensors: each one's product with fixed vectors at unit norm, and its norm's log."""
    if not tensors:
        return torch.zeros(0, 2)
    return torch.stack([_tensor_sketch(tensor.detach()) for tensor in tensors])


def _tensor_sketch(tensor: Tensor) -> Tensor:
    if tensor.is_meta:  # a skeleton's: it has no values
        return torch.zeros(2)
    rows = tensor.float().cpu().reshape(len(tensor), -1)
    norm = rows.norm().clamp_min(torch.finfo(rows.dtype).tiny)
    return torch.stack([probe(rows.shape[0]) @ (rows / norm) @ probe(rows.shape[1]), norm.log()])


def _sketch(A: Tensor, B: Tensor) -> Tensor:
    lengths = A.norm(dim=1).clamp_min(torch.finfo(A.dtype).tiny)  # (rank,)
    return torch.cat([A @ probe(A.shape[1]) / lengths, probe(B.shape[0]) @ B, lengths.log()])


def same_fingerprint(ours: Tensor, theirs: Tensor) -> bool:
    """Whether two sketches belong to the same factors, up to the rounding of another machine."""
    return ours.shape == theirs.shape and torch.allclose(ours, theirs, rtol=0, atol=1e-2)


def probe(length: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """A fixed vector (length,), incommensurate with any pattern in weights, and the same on every machine."""
    return torch.cos(torch.arange(1, length + 1, dtype=dtype) * 1.6180339887) + 0.5
