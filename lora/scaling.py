"""The scale s of a low-rank update."""

from typing import Literal

from common.errors import InputError, one_of

LARGEST_RANK = 2**16  # far beyond any layer; more is a slip that would only fill the memory
_LARGEST_ALPHA = 1e30
ScalingRule = Literal["alpha_over_rank", "alpha_over_sqrt_rank", "constant"]


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
