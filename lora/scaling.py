"""The scale s of a low-rank update."""

from typing import Literal

from common.errors import InputError, one_of

ScalingRule = Literal["alpha_over_rank", "alpha_over_sqrt_rank", "constant"]


def scaling_factor(rule: ScalingRule, lora_alpha: float, rank: int) -> float:
    """The scale s of an update: alpha / r (LoRA), alpha / √r (rsLoRA, arXiv 2312.03732), or alpha itself.

    Raises:
        InputError: alpha isn't above 0: nothing would be learned, or the sign turned.
    """
    if not lora_alpha > 0:
        raise InputError(f"lora_alpha is {lora_alpha}; allowed: a number above 0, such as 16.")
    match rule:
        case "alpha_over_rank":
            return lora_alpha / rank
        case "alpha_over_sqrt_rank":
            return lora_alpha / rank**0.5
        case "constant":
            return lora_alpha
        case _:
            raise one_of("scaling", rule, ("alpha_over_rank", "alpha_over_sqrt_rank", "constant"))
