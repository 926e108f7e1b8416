"""The factors A and B as training starts from them: those of LoRA-XS, which stay frozen, and those of LoRA.

LoRA-XS (arXiv 2405.17604) has W ≈ B A from a truncated SVD, or random directions as a control; LoRA draws its own.
"""

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from common.errors import InputError, check_one_of, one_of

FactorRule = Literal["svd", "random", "gradient"]
Initialization = Literal["uniform", "kaiming", "gaussian", "both_gaussian", "gradient"]
Factors = tuple[Tensor, Tensor]
Factorise = Callable[[list[Tensor], int, FactorRule], list[Factors]]
INITIALIZATIONS = ("uniform", "kaiming", "gaussian", "both_gaussian", "gradient")

# scikit-learn's TruncatedSVD settings in the original study
_POWER_ITERATIONS = 10
_OVERSAMPLING = 10


def svd_factors(weight: Tensor, rank: int, seed: int = 42) -> Factors:
    """The leading singular directions of a weight (out, in), by randomised subspace iteration.

    With Wᵀ = U S Vᵀ: A = (U S)ᵀ (rank, in) carries the singular values, B = V (out, rank) is orthonormal, and B A is
    the best approximation of W with this rank. Directions are ordered by singular value, so the leading k of them are
    the factors of rank k. Signs are fixed: the largest entry of each left vector U is positive. `InputError`: the rank
    exceeds the smaller side of the weight.
    """
    smaller_side = _checked_side(weight.shape, rank)
    transposed = weight.detach().float().cpu().T  # (in, out)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        width = min(rank + _OVERSAMPLING, smaller_side)
        U, S, V = torch.svd_lowrank(transposed, q=width, niter=_POWER_ITERATIONS)  # (in, q), (q,), (out, q)
    U, S, V = U[:, :rank], S[:rank], V[:, :rank]
    signs = torch.sign(U.gather(0, U.abs().argmax(dim=0, keepdim=True))).squeeze(0)  # (rank,)
    return (U * (S * signs)).T.contiguous(), (V * signs).contiguous()


def _checked_side(shape: torch.Size, rank: int) -> int:
    smaller_side = min(shape)
    if not 1 <= rank <= smaller_side:
        raise InputError(
            f"rank is {rank}, but the weight has shape {tuple(shape)}; allowed: 1 to {smaller_side}. "
            "Lower the rank (or rank_max), or leave this layer out of targets."
        )
    return smaller_side


def empty_factors(weights: list[Tensor], rank: int, rule: FactorRule) -> list[Factors]:
    """Zeros in the place of `factorise`'s factors, without memory of their own, to try out whether settings fit.

    `InputError`: the rank exceeds the smaller side of a weight.
    """
    zero = torch.zeros(())
    for weight in weights:
        _checked_side(weight.shape, rank)
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
    """Factors (A, B) of several weights (out, in); random ones differ from layer to layer.

    Those of the rule `gradient` are zero here: the task's gradient isn't known yet (`lora.gradient`).
    """
    if rule == "svd":
        return [svd_factors(weight, rank, seed) for weight in weights]
    if rule == "random":
        return [random_factors(weight, rank, seed + layer) for layer, weight in enumerate(weights)]
    if rule == "gradient":
        return [(A.clone(), B.clone()) for A, B in empty_factors(weights, rank, rule)]
    raise one_of("factors", rule, ("svd", "random", "gradient"))


def initial_factors(rule: Initialization, shape: torch.Size, rank: int, std: float | None = None) -> Factors:
    """A (rank, in) and B (out, rank) as training starts from them, drawn from torch's global generator.

    `InputError`: an unknown rule; a gradient has fewer directions than the rank.

    Args:
        rule: uniform: A ~ U(−1/√in, 1/√in), B = 0. kaiming: PEFT's and Microsoft's kaiming_uniform with a = √5,
            which is the same distribution, also where the gradient's directions will take A's place. gaussian: A ~
            N(0, std²), B = 0. both_gaussian: both ~ N(0, 1).
        shape: (out, in).
        rank: r.
        std: of `gaussian`; 1 / rank if not given.
    """
    outputs, inputs = shape
    B = torch.zeros(outputs, rank)
    if rule == "gradient":
        _checked_side(shape, rank)
    match rule:
        case "uniform" | "kaiming" | "gradient":
            return torch.empty(rank, inputs).uniform_(-1 / math.sqrt(inputs), 1 / math.sqrt(inputs)), B
        case "gaussian":
            return torch.randn(rank, inputs) * (1 / rank if std is None else std), B
        case "both_gaussian":
            return torch.randn(rank, inputs), torch.randn(outputs, rank)
        case _:
            raise one_of("initialization", rule, INITIALIZATIONS)


def check_initialization(rule: str, std: float | None) -> None:
    """Raises `InputError` for an unknown rule, or a standard deviation that is negative or would have no effect."""
    check_one_of("initialization", rule, INITIALIZATIONS)
    if std is not None and (rule != "gaussian" or std < 0):
        raise InputError(
            f"initial_std is {std} and initialization is {rule!r}; allowed: 0 or more, with initialization: gaussian."
        )
