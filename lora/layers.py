"""Linear layers with a low-rank update, over torch's Linear and GPT-2's Conv1D."""

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers.pytorch_utils import Conv1D

from lora.packed_linear import PackedPair, is_packable, lora_xs_product

LINEAR_TYPES: tuple[type[nn.Module], ...] = (nn.Linear, Conv1D)


def dense_weight(layer: nn.Module) -> Tensor:
    """The weight of a linear layer as (out, in): Conv1D stores it transposed."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight.T if isinstance(layer, Conv1D) else weight


class LoRAXSLinear(nn.Module):
    """LoRA-XS over a frozen linear layer (arXiv 2405.17604): y = W x + b + B C A x, with C = s · (R ∘ mask).

    B (out, r) and A (r, in) are frozen. The core C (r, r) is handed over by the adapter before each pass, because
    the adapter works out scale and masks of all layers at once. Nothing of size (tokens, in) is kept for the
    backward pass: only x Aᵀ (tokens, r) is needed for the gradient of C.

    Args:
        base: the frozen layer, Linear or Conv1D.
        A: (r, in).
        B: (out, r).
    """

    def __init__(self, base: nn.Module, A: Tensor, B: Tensor) -> None:
        super().__init__()
        self.base = base
        self.A: Tensor
        self.B: Tensor
        device = dense_weight(base).device
        self.register_buffer("A", A.to(device), persistent=False)
        self.register_buffer("B", B.to(device), persistent=False)
        self.core = torch.zeros(A.shape[0], A.shape[0])  # (r, r), until the adapter hands over its own
        self.pair = PackedPair()

    @property
    def weight(self) -> Tensor:
        """The frozen weight: some models look at a layer's weight directly."""
        return self.base.weight  # type: ignore[return-value]

    @property
    def bias(self) -> Tensor | None:
        """The frozen bias."""
        return self.base.bias  # type: ignore[return-value]

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        if is_packable(x, self.weight):
            weight = dense_weight(self.base)
            return lora_xs_product(x, self.core, weight, self.bias, self.A, self.B, self.pair)
        return self.base(x) + linear(linear(linear(x, self.A), self.core), self.B)
