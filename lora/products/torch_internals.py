"""The only places where names that PyTorch doesn't promise to keep are used, each with what happens without it.

oneDNN's packed products have no public name: torch.utils.mkldnn's layers copy x into oneDNN's layout and back at every
pass, and are slower than the ordinary product. Nor can the public interface tell whether a tensor was changed in place,
or work out the norm of each of many tensors by one launch on a GPU.
tests/lora/products/test_torch_internals.py fails when PyTorch changes one of them.
"""

from collections.abc import Hashable
from functools import cache
from typing import Any

import torch
from torch import Tensor


@cache
def can_pack(dtype: torch.dtype) -> bool:
    """Whether this build of PyTorch has packed products, and this processor the type; else ordinary ones are used."""
    if not torch.backends.mkldnn.is_available():
        return False
    eye = torch.eye(2, dtype=dtype)
    try:
        product = multiply(eye, pack(eye), None)
    except (AttributeError, NotImplementedError, RuntimeError, TypeError):
        return False
    return torch.equal(product, eye)


def pack(weight: Tensor) -> Any:
    """A weight (out, in) in oneDNN's own layout: an opaque tensor."""
    return torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous())


def multiply(x: Tensor, packed: Any, bias: Tensor | None) -> Tensor:
    """x Wᵀ + bias: (tokens, in) -> (tokens, out)."""
    return torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")


def content_key(tensor: Tensor) -> Hashable:
    """Equal for two looks at a tensor only if it lies in the same place and wasn't changed in between.

    Without PyTorch's count of changes no two are equal: what was prepared is made again at each pass, slow but right.
    """
    changes: object = getattr(tensor, "_version", None)
    return tensor.data_ptr(), object() if changes is None else changes


def largest_values(tensors: list[Tensor]) -> list[Tensor]:
    """The largest absolute entry of each, NaN if there is one in it."""
    return list(torch._foreach_norm(tensors, ord=float("inf")))
