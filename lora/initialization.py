"""How A and B of LoRA start."""

import math
from typing import Literal

import torch

from common.errors import InputError, one_of
from lora.factors import Factors

Initialization = Literal["uniform", "kaiming", "gaussian", "both_gaussian"]
INITIALIZATIONS = ("uniform", "kaiming", "gaussian", "both_gaussian")


def initial_factors(rule: Initialization, shape: torch.Size, rank: int, std: float | None = None) -> Factors:
    """A (rank, in) and B (out, rank) as training starts from them, drawn from torch's global generator.

    Args:
        rule: uniform: A ~ U(−1/√in, 1/√in), B = 0. kaiming: PEFT's and Microsoft's kaiming_uniform with a = √5,
            which is the same distribution. gaussian: A ~ N(0, std²), B = 0. both_gaussian: both ~ N(0, 1).
        shape: (out, in).
        rank: r.
        std: of `gaussian`; 1 / rank if not given.
    """
    outputs, inputs = shape
    B = torch.zeros(outputs, rank)
    match rule:
        case "uniform" | "kaiming":
            return torch.empty(rank, inputs).uniform_(-1 / math.sqrt(inputs), 1 / math.sqrt(inputs)), B
        case "gaussian":
            return torch.randn(rank, inputs) * (1 / rank if std is None else std), B
        case "both_gaussian":
            return torch.randn(rank, inputs), torch.randn(outputs, rank)
        case _:
            raise one_of("initialization", rule, INITIALIZATIONS)


def check_initialization(rule: str, std: float | None) -> None:
    """Raises `InputError` for an unknown rule, or a standard deviation that is negative or would have no effect."""
    if rule not in INITIALIZATIONS:
        raise one_of("initialization", rule, INITIALIZATIONS)
    if std is not None and (rule != "gaussian" or std < 0):
        raise InputError(
            f"initial_std is {std} and initialization is {rule!r}; allowed: 0 or more, with initialization: gaussian."
        )
