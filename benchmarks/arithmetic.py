"""How much arithmetic a training step of LoRA-XS needs, and how fast this machine does arithmetic."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import nn
from transformers import PreTrainedModel

from benchmarks.timing import median_seconds
from lightning_modules.first_token import goes_on_with_first_token
from lora.injection import is_inside
from lora.layers import LINEAR_TYPES, AdaptedLinear, LoRAXSLinear, dense_weight

_INPUT_PROJECTIONS = ("query", "key", "value", "q_lin", "k_lin", "v_lin", "attn.c_attn")


class Work(NamedTuple):
    """What the timed steps went through: rows, their tokens, and Σ length² over the rows; no padding."""

    rows: int
    tokens: int
    squares: float


def needed_operations(model: PreTrainedModel, head: tuple[str, ...], work: Work) -> float:
    """Floating-point operations without which the step can't be done: nothing that we avoid is counted.

    Per frozen weight and token two operations forward and two back to the layer's input; the attention's two
    products forward and four back; the adapter's products. Not needed, so not counted: the gradient of the first
    layer's input, and all but the first token behind the last attention where the head uses no other.
    """
    layers = list(_backbone_layers(model, head))
    last = max(index for _, index, _ in layers)
    total = 12.0 * model.config.hidden_size * work.squares * (last + 1)
    for name, index, layer in layers:
        first_only = index == last and goes_on_with_first_token(model) and not name.endswith(("key", "value"))
        positions = work.rows if first_only else work.tokens
        backward = 1 if index > 0 or not name.endswith(_INPUT_PROJECTIONS) else 0
        base = layer.base if isinstance(layer, AdaptedLinear) else layer
        total += 2 * positions * dense_weight(base).numel() * (1 + backward)
        if isinstance(layer, LoRAXSLinear):
            core, into, out = len(layer.A) ** 2, layer.A.numel(), layer.B.numel()
            total += 2 * positions * ((into + core + out) + (out + core) + backward * (core + into))
    vocabulary = model.get_output_embeddings()  # a language model's product with the whole vocabulary and back
    return total if vocabulary is None else total + 4.0 * work.tokens * vocabulary.weight.numel()


def _backbone_layers(model: PreTrainedModel, head: tuple[str, ...]) -> Iterator[tuple[str, int, nn.Module]]:
    """Linear layers of the numbered blocks: full path, number of the block, layer (an adapted one as a whole)."""
    for name, layer in model.named_modules():
        numbers = [int(part) for part in name.split(".") if part.isdigit()]
        if not numbers or is_inside(name, head) or name.endswith(".base"):
            continue
        if isinstance(layer, (LINEAR_TYPES, AdaptedLinear)):
            yield name, numbers[0], layer


def peak_operations_per_second(precision: str, samples: int = 10) -> float:
    """Rate of a large product of square matrices, median of several samples, in the type that training uses."""
    cuda = torch.cuda.is_available()
    size, products = (8192, 20) if cuda else (2048, 1)
    dtype = torch.bfloat16 if precision == "bf16-mixed" else torch.float32
    left, right = (torch.randn(size, size, device="cuda" if cuda else "cpu").to(dtype) for _ in range(2))
    out = torch.empty_like(left)

    def multiply() -> None:
        for _ in range(products):
            torch.mm(left, right, out=out)

    return 2 * size**3 * products / median_seconds({"product": multiply}, samples)["product"]
