"""The scale s of a low-rank update."""

from typing import Literal

from common.errors import one_of

ScalingRule = Literal["alpha_over_rank", "alpha_over_sqrt_rank", "constant"]


def scaling_factor(rule: ScalingRule, lora_alpha: float, rank: int) -> float:
    """The scale s of an update: alpha / r (LoRA), alpha / √r (rsLoRA, arXiv 2312.03732), or alpha itself."""
    match rule:
        case "alpha_over_rank":
            return lora_alpha / rank
        case "alpha_over_sqrt_rank":
            return lora_alpha / rank**0.5
        case "constant":
            return lora_alpha
        case _:
            raise one_of("scaling", rule, ("alpha_over_rank", "alpha_over_sqrt_rank", "constant"))
