"""Products with frozen weights on the CPU, faster: weights are laid out for oneDNN once instead of at every product.

A frozen weight W (out, in) is needed as x Wᵀ going forward and as g W going back, at every step, and never changes.
On other devices, other types, under autocast, or where this build of PyTorch lacks the operations, layers use the
ordinary products. Results agree up to the rounding of float32.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

# Packed copies triple the memory of frozen weights: a larger layer isn't packed (an output embedding, say).
LARGEST_WEIGHT = 2**24


@cache
def can_pack() -> bool:
    """Whether this build of PyTorch has oneDNN's packed products."""
    if not torch.backends.mkldnn.is_available():
        return False
    try:
        product = _multiply(torch.eye(2), _pack(torch.eye(2)), None)
    except (AttributeError, NotImplementedError, RuntimeError):
        return False
    return torch.equal(product, torch.eye(2))


def is_packable(x: Tensor, weight: Tensor) -> bool:
    """Whether the product of x with this weight may use packed copies of it."""
    return (
        x.device.type == weight.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.numel() > 0
        and weight.numel() <= LARGEST_WEIGHT
        and not weight.requires_grad
        and not torch.is_autocast_enabled("cpu")
        and can_pack()
    )


def _pack(weight: Tensor) -> Any:
    """A weight (out, in) in oneDNN's own layout: an opaque tensor."""
    return torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous())


def _multiply(x: Tensor, packed: Any, bias: Tensor | None) -> Tensor:
    """x Wᵀ + bias: (tokens, in) -> (tokens, out)."""
    return torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")


class PackedPair:
    """Packed copies of a weight for both directions, made when first used and again if the weight has changed."""

    def __init__(self) -> None:
        self._key: tuple[int, ...] = ()
        self.forward: Any = None
        self.backward: Any = None
        self.bias: Tensor | None = None

    def __deepcopy__(self, memory: Any) -> "PackedPair":
        return PackedPair()  # opaque tensors can't be copied; the copy packs its own weight

    def __reduce__(self) -> Any:
        return (PackedPair, ())

    def update(self, weight: Tensor, bias: Tensor | None, A: Tensor | None = None, B: Tensor | None = None) -> None:
        """Packs W (out, in) for both directions, unless these very tensors were packed last time.

        With A (r, in) and B (out, r), A is appended to W going forward and B going back: (out + r, in) and
        (in + r, out). The bias gets r zeros to go with them.
        """
        frozen = [tensor for tensor in (weight, bias, A, B) if tensor is not None]
        key = tuple(number for tensor in frozen for number in (tensor.data_ptr(), tensor._version))
        if key == self._key:
            return
        if A is None or B is None:
            self.forward, self.backward, self.bias = _pack(weight), _pack(weight.T), bias
        else:
            self.forward, self.backward = _pack(torch.cat([weight, A])), _pack(torch.cat([weight.T, B.T]))
            self.bias = None if bias is None else torch.cat([bias.detach(), bias.new_zeros(len(A))])
        self._key = key


class _FrozenProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, pair: PackedPair) -> Tensor:
        ctx.pair = pair
        return _multiply(x, pair.forward, pair.bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _multiply(gradients[0].contiguous(), ctx.pair.backward, None), None


class _LoRAXSProduct(torch.autograd.Function):
    """x Wᵀ + b + x Aᵀ Cᵀ Bᵀ, with A appended to W going forward and B going back, so both ride on one product."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, core: Tensor, pair: PackedPair, A: Tensor, B: Tensor) -> Tensor:
        out = B.shape[0]
        both = _multiply(x, pair.forward, pair.bias)  # (tokens, out + r): x Wᵀ + b, x Aᵀ
        reduced = both[:, out:].contiguous()  # (tokens, r): all that the gradient of the core needs
        ctx.save_for_backward(reduced, core, A, B)
        ctx.pair = pair
        return torch.addmm(both[:, :out], reduced @ core.T, B.T)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor, None, None, None]:
        gradient = gradients[0].contiguous()  # (tokens, out)
        reduced, core, A, B = ctx.saved_tensors
        if not ctx.needs_input_grad[0]:
            return None, (gradient @ B).T @ reduced, None, None, None
        inputs = A.shape[1]
        both = _multiply(gradient, ctx.pair.backward, None)  # (tokens, in + r): g W, g B
        towards_core = both[:, inputs:].contiguous()  # (tokens, r)
        towards_x = torch.addmm(both[:, :inputs], towards_core @ core, A)  # (tokens, in)
        return towards_x, towards_core.T @ reduced, None, None, None


def frozen_product(x: Tensor, weight: Tensor, bias: Tensor | None, pair: PackedPair) -> Tensor:
    """x Wᵀ + b with a frozen, packable W (out, in) and a frozen b (out,): (..., in) -> (..., out)."""
    pair.update(weight, bias)
    y = _FrozenProduct.apply(x.reshape(-1, x.shape[-1]), pair)
    # no view of rows: who adds to them in place (LoRA) would copy gradients
    return y if x.dim() == 2 else y.view(*x.shape[:-1], weight.shape[0])


def lora_xs_product(
    x: Tensor, core: Tensor, weight: Tensor, bias: Tensor | None, A: Tensor, B: Tensor, pair: PackedPair
) -> Tensor:
    """x Wᵀ + b + x Aᵀ Cᵀ Bᵀ with packable W (out, in), b, A (r, in), B (out, r), all frozen; C (r, r) is trained."""
    pair.update(weight, bias, A, B)
    flat = _LoRAXSProduct.apply(x.reshape(-1, x.shape[-1]), core, pair, A, B)
    return flat.view(*x.shape[:-1], weight.shape[0])


def inference_product(weight: Tensor, bias: Tensor | None) -> Callable[[Tensor], Tensor]:
    """x (..., in) -> x Wᵀ + b (..., out) for evaluation, without gradients; W (out, in) is packed where possible."""
    if not is_packable(weight, weight):
        return lambda x: linear(x, weight, bias)
    packed, outputs = _pack(weight), len(weight)

    def product(x: Tensor) -> Tensor:
        return _multiply(x.reshape(-1, x.shape[-1]), packed, bias).view(*x.shape[:-1], outputs)

    return product


class FrozenLinear(nn.Linear):
    """A frozen linear layer with the weights of another one, under the same names; packed where that is possible."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__(base.in_features, base.out_features, bias=base.bias is not None, device="meta")
        self.weight, self.bias = base.weight, base.bias
        self.pair = PackedPair()
        self.train(base.training)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        if not is_packable(x, self.weight):
            return linear(x, self.weight, self.bias)
        return frozen_product(x, self.weight, self.bias, self.pair)
