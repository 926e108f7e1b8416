"""Frozen linear layers whose weight is held in fewer bits and made dense for each product."""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers.pytorch_utils import Conv1D

# int8: a scale per output; nf4: four bits and a scale per 64 entries (QLoRA, arXiv 2305.14314)
Storage = Literal["float32", "bfloat16", "int8", "nf4"]
_BLOCK = 64


def quantizer() -> Any:
    """bitsandbytes' functions, which have kernels for the CPU and for GPUs.

    `ImportError`: bitsandbytes isn't installed.
    """
    import bitsandbytes.functional

    return bitsandbytes.functional


class _Product(torch.autograd.Function):
    """x Wᵀ + b; no dense W is kept between the pass forward and the one back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: Any) -> Tensor:
        ctx.layer = layer
        bias = None if layer.bias is None else layer.bias.to(x.dtype)
        return linear(x, layer.dense(x.dtype), bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] @ ctx.layer.dense(gradients[0].dtype), None


class StoredLinear(nn.Module):
    """y = W x + b with a frozen W that is held in another type. Activations aren't quantised.

    Args:
        base: Linear or Conv1D, whose weight and bias the layer takes over.
        storage: how W is held. float32 and bfloat16 change the parameter itself, so that one that is tied stays so.
    """

    def __init__(self, base: nn.Module, storage: Storage) -> None:
        super().__init__()
        self.storage, self.is_transposed = storage, isinstance(base, Conv1D)
        weight, self.bias = base.weight, base.bias
        assert isinstance(weight, nn.Parameter)
        self.scale: Tensor | None
        scale = None
        if storage in ("int8", "nf4"):
            dense = (weight.T if self.is_transposed else weight).detach().contiguous()
            self.shape = dense.shape  # (out, in)
            packed, scale = _pack(dense, storage)
            weight = nn.Parameter(packed, requires_grad=False)
        elif storage == "bfloat16":
            weight.data = weight.data.bfloat16()
        self.weight = weight
        self.register_buffer("scale", scale, persistent=False)
        self.train(base.training)

    def dense(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """W (out, in) in this type. Where the weight is in shards, all processes must ask together."""
        weight: Any = self.weight
        if hasattr(weight, "full_tensor"):  # a DTensor, outside of its block's pass
            weight = weight.full_tensor()
        if self.storage == "nf4":
            # as one row: the CPU's kernel takes rows that are no multiple of a block to begin a new one
            flat = torch.Size([self.shape.numel()])
            state = quantizer().QuantState(self.scale, flat, blocksize=_BLOCK, quant_type="nf4", dtype=dtype)
            return quantizer().dequantize_4bit(weight, state).view(self.shape)
        if self.storage == "int8":
            return quantizer().int8_vectorwise_dequant(weight, self.scale).to(dtype)
        return (weight.T if self.is_transposed else weight).to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        device = x.device.type
        return _Product.apply(x.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else x, self)

    def restored(self) -> nn.Module:
        """The plain layer, its weight dense in float32; a parameter that wasn't packed stays the same object."""
        weight = self.weight
        if self.storage in ("int8", "nf4"):
            dense = self.dense()
            weight = nn.Parameter(dense.T.contiguous() if self.is_transposed else dense, requires_grad=False)
        weight.data = weight.data.float()
        outputs, inputs = weight.shape[::-1] if self.is_transposed else weight.shape
        with torch.device("meta"):
            plain = Conv1D(outputs, inputs) if self.is_transposed else nn.Linear(inputs, outputs)
        plain.weight, plain.bias = weight, self.bias
        return plain.train(self.training)


def _pack(weight: Tensor, storage: Storage) -> tuple[Tensor, Tensor]:
    """The packed weight and its scales; packing what was unpacked gives the same up to float32's last digit."""
    if storage == "nf4":
        packed, state = quantizer().quantize_4bit(weight.float(), blocksize=_BLOCK, quant_type="nf4")
        return packed, state.absmax
    packed, scale, _ = quantizer().int8_vectorwise_quant(weight.float())
    return packed, scale
