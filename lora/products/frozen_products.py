"""Products with frozen weights, which are prepared once instead of at every step.

A frozen weight W (out, in) is needed as x Wᵀ going forward and as g W going back, at every step, and never changes. On
the CPU it is laid out for oneDNN; where autocast computes in 16 bits it is cast once, instead of at every pass.
"""

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear, pad

from lora.products.torch_internals import can_pack, content_key, multiply, pack

# Packed copies hold every weight twice more: a larger one isn't packed (an output embedding, say).
LARGEST_PACKED_WEIGHT = 2**24
_ALIGNED = 8  # 16-bit numbers: GPUs multiply fastest where every row begins at a multiple of 16 bytes


class FoldedCore(NamedTuple):
    """What one pass needs of a layer's core C (r, r) between its frozen factors; the core alone has a gradient."""

    up: Tensor  # B C (out, r)
    down: Tensor  # C A (r, in)


def product_type(x: Tensor, weight: Tensor) -> torch.dtype | None:
    """The type that a prepared product of x with this weight computes in; None where the ordinary product is used.

    That is float32 on the CPU if oneDNN can pack the weight, and autocast's 16-bit type on any device under autocast.
    """
    device = weight.device.type
    if x.device.type != device or weight.dtype != torch.float32 or weight.requires_grad or x.numel() == 0:
        return None
    if torch.is_autocast_enabled(device):
        sixteen_bits = torch.get_autocast_dtype(device)
        return sixteen_bits if x.dtype in (torch.float32, sixteen_bits) else None
    return torch.float32 if x.dtype == torch.float32 and is_packable(weight, torch.float32) else None


def is_packable(weight: Tensor, dtype: torch.dtype) -> bool:
    """Whether oneDNN is to hold copies of this weight in this type."""
    return weight.device.type == "cpu" and weight.numel() <= LARGEST_PACKED_WEIGHT and can_pack(dtype)


def _cast(dtype: torch.dtype, *frozen: Tensor | None) -> list[Any]:
    return [None if tensor is None else tensor.detach().to(dtype) for tensor in frozen]


def cast_together(tensors: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """Copies of all tensors in this type, by two operations each way instead of two for each; differentiable."""
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors]).to(dtype)
    pieces = flat.split([tensor.numel() for tensor in tensors])
    return [piece.view(tensor.shape) for piece, tensor in zip(pieces, tensors, strict=True)]


class CastProducts:
    """Products with copies of W (out, in), b (out,), A (r, in) and B (out, r), cast once.

    Every tensor that is handed over has the copies' type. B is appended to W going back, and A going forward where
    outputs are kept anyway: x Aᵀ, which is kept, would keep the whole product in memory.
    """

    keeps_outputs = False  # whether what computes with the outputs keeps all of them for the backward pass

    def __init__(
        self, dtype: torch.dtype, weight: Tensor, bias: Tensor | None, A: Tensor | None = None, B: Tensor | None = None
    ) -> None:
        self.dtype = dtype
        self.weight, self.bias, self.A, self.B = _cast(dtype, weight, bias, A, B)
        outputs, self.inputs = self.weight.shape
        if self.A is None:
            return
        rank, room = len(self.A), -len(self.A) % _ALIGNED
        self._parts = [outputs, rank, room]
        both = torch.cat([torch.cat([self.weight, self.B], dim=1), pad(self.A, (0, rank))])
        both = pad(both, (0, room, 0, room))  # (out + r and a bit, in + r and a bit)
        self._forward, self._backward = both[:, : self.inputs], both[:outputs]
        self.weight, self.A, _ = self._forward.split(self._parts)
        self.B = self._backward[:, self.inputs : self.inputs + rank]
        self._wide_bias = None if bias is None else pad(self.bias, (0, rank + room))

    def frozen(self, x: Tensor) -> Tensor:
        """x Wᵀ + b: (tokens, in) -> (tokens, out)."""
        return linear(x, self.weight, self.bias)

    def frozen_back(self, gradient: Tensor) -> Tensor:
        """g W: (tokens, out) -> (tokens, in)."""
        return gradient @ self.weight

    def adapted(self, x: Tensor, core: Tensor, folded: FoldedCore | None = None) -> tuple[Tensor, Tensor]:
        """x Wᵀ + b + x Aᵀ Cᵀ Bᵀ (tokens, out), and x Aᵀ (tokens, r), all that the core's gradient needs of x."""
        if self.keeps_outputs:
            y, reduced, _ = linear(x, self._forward, self._wide_bias).split(self._parts, dim=1)
        else:
            y, reduced = self.frozen(x), x @ self.A.T
        if folded is not None:
            return y.addmm_(reduced, folded.up.T), reduced
        return y.addmm_(reduced @ core.T, self.B.T), reduced

    def adapted_back(
        self, gradient: Tensor, core: Tensor, folded: FoldedCore | None = None, towards_x: bool = True
    ) -> tuple[Tensor | None, Tensor]:
        """g W + g B C A (tokens, in) if asked for, and g B (tokens, r)."""
        if not towards_x:
            return None, gradient @ self.B
        both = gradient @ self._backward
        onto, towards_core = both[:, : self.inputs], both[:, self.inputs : self.inputs + self.B.shape[1]]
        if folded is not None:
            return onto.addmm_(towards_core, folded.down), towards_core
        return onto.addmm_(towards_core @ core, self.A), towards_core


class PackedProducts:
    """The same products with weights packed for oneDNN, A appended to W going forward and B going back.

    So both ride on one product each way. The sum is a new tensor: what comes next reads rows that are next to each
    other. With A and B `adapted` is to be used, without them `frozen`.
    """

    def __init__(
        self, dtype: torch.dtype, weight: Tensor, bias: Tensor | None, A: Tensor | None = None, B: Tensor | None = None
    ) -> None:
        self.dtype = dtype
        weight, bias, self.A, self.B = _cast(dtype, weight, bias, A, B)
        self.outputs, self.inputs = weight.shape
        if self.A is None:
            self._forward, self._backward, self.bias = pack(weight), pack(weight.T), bias
            return
        self._forward = pack(torch.cat([weight, self.A]))  # (out + r, in)
        self._backward = pack(torch.cat([weight.T, self.B.T]))  # (in + r, out)
        self.bias = None if bias is None else torch.cat([bias, bias.new_zeros(len(self.A))])

    def frozen(self, x: Tensor) -> Tensor:
        """x Wᵀ + b: (tokens, in) -> (tokens, out)."""
        return multiply(x, self._forward, self.bias)

    def frozen_back(self, gradient: Tensor) -> Tensor:
        """g W: (tokens, out) -> (tokens, in)."""
        return multiply(gradient.contiguous(), self._backward, None)

    def adapted(self, x: Tensor, core: Tensor, folded: None = None) -> tuple[Tensor, Tensor]:
        """x Wᵀ + b + x Aᵀ Cᵀ Bᵀ (tokens, out), and x Aᵀ (tokens, r), all that the core's gradient needs of x."""
        both = multiply(x, self._forward, self.bias)  # (tokens, out + r)
        reduced = both[:, self.outputs :].contiguous()
        return torch.addmm(both[:, : self.outputs], reduced @ core.T, self.B.T), reduced

    def adapted_back(
        self, gradient: Tensor, core: Tensor, folded: None = None, towards_x: bool = True
    ) -> tuple[Tensor | None, Tensor]:
        """g W + g B C A (tokens, in) if asked for, and g B (tokens, r)."""
        gradient = gradient.contiguous()
        if not towards_x:
            return None, gradient @ self.B
        both = multiply(gradient, self._backward, None)  # (tokens, in + r)
        towards_core = both[:, self.inputs :].contiguous()
        return torch.addmm(both[:, : self.inputs], towards_core @ core, self.A), towards_core


class KeptProducts:
    """A layer's products, prepared when first used and again if a weight or the type has changed."""

    def __init__(self) -> None:
        self._plain: list[Any] | None = None
        self._key: tuple[Hashable, ...] = ()
        self._products: CastProducts | PackedProducts | None = None

    def __deepcopy__(self, memory: Any) -> "KeptProducts":
        return KeptProducts()  # opaque tensors can't be copied; the copy packs its own weight

    def __reduce__(self) -> Any:
        return (KeptProducts, ())

    def of(self, dtype: torch.dtype, weight: Tensor, *others: Tensor | None) -> CastProducts | PackedProducts:
        """Products with these frozen tensors: weight, bias, and A and B where there are any."""
        frozen = [tensor for tensor in (weight, *others) if tensor is not None]
        key = (dtype, *map(content_key, frozen))
        if self._products is None or key != self._key:
            kind = PackedProducts if is_packable(weight, dtype) else CastProducts
            self._products, self._key = kind(dtype, weight, *others), key
        return self._products

    def cast(self, dtype: torch.dtype, *frozen: Tensor | None) -> None:
        """Makes the copies that `plain` gives, before a step is compiled: it can't see whether they are up to date."""
        self._plain = _cast(dtype, *frozen)

    def plain(self, *frozen: Any) -> Any:
        """The copies that `cast` has made of these tensors, or the tensors themselves."""
        return self._plain or frozen
