"""Frozen linear layers whose products are prepared once (lora.products.frozen_products), for autograd.

Results agree with the ordinary products up to rounding: of float32, or of autocast's 16-bit type.
"""

from collections.abc import Callable, Hashable
from typing import Any
from weakref import ref

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from lora.products.frozen_products import FoldedCore, KeptProducts, is_packable, product_type
from lora.products.torch_internals import content_key, multiply, pack


class _LastCast:
    """The 16-bit copy of the tensor that was cast last: layers that read the same one (query, key, value) share it."""

    def __init__(self) -> None:
        self._source: Callable[[], Tensor | None] = lambda: None
        self._key: Hashable = None
        self._cast = torch.empty(0)

    def of(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """x in this type, differentiable."""
        # a compiler finds equal casts itself; tensors of inference mode don't tell whether they were changed
        if x.dtype == dtype or torch.compiler.is_compiling() or x.is_inference():
            return x.to(dtype)
        differentiable = x.requires_grad and torch.is_grad_enabled()
        key = (content_key(x), dtype, differentiable)
        if self._source() is not x or key != self._key:
            self._source, self._key, self._cast = ref(x), key, x.to(dtype)
        return self._cast


last_cast = _LastCast()


class _FrozenProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, products: Any) -> Tensor:
        ctx.products = products
        return products.frozen(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.products.frozen_back(gradients[0]), None


class _LoRAXSProduct(torch.autograd.Function):
    """x Wᵀ + b + x Aᵀ Cᵀ Bᵀ; of x only x Aᵀ (tokens, r) is kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, core: Tensor, folded: FoldedCore | None, products: Any) -> Tensor:
        ctx.products, ctx.folded, ctx.type_of_core = products, folded, core.dtype
        core = core.to(products.dtype)
        y, reduced = products.adapted(x, core, folded)
        ctx.save_for_backward(reduced, core)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor, None, None]:
        reduced, core = ctx.saved_tensors
        towards_x, towards_core = ctx.products.adapted_back(gradients[0], core, ctx.folded, ctx.needs_input_grad[0])
        return towards_x, (towards_core.T @ reduced).to(ctx.type_of_core), None, None


def lora_xs_product(
    x: Tensor,
    core: Tensor,
    folded: FoldedCore | None,
    dtype: torch.dtype,
    kept: KeptProducts,
    weight: Tensor,
    *others: Tensor | None,
) -> Tensor:
    """x Wᵀ + b + x Aᵀ Cᵀ Bᵀ in this type (`product_type`), (..., in) -> (..., out).

    The core C (r, r) alone is trained; `folded` is the same between its factors already, or None. W is (out, in), and
    the others are b (out,) or None, A (r, in) and B (out, r).
    """
    products = kept.of(dtype, weight, *others)
    rows = last_cast.of(x, dtype).reshape(-1, x.shape[-1])
    flat = _LoRAXSProduct.apply(rows, core, folded, products)
    return flat.view(*x.shape[:-1], weight.shape[0])


class _LoRAProduct(torch.autograd.Function):
    """x Wᵀ + b + s x Aᵀ Bᵀ, with the scale s as a part of the products, going back as well."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, A: Tensor, B: Tensor, scaling: float, products: Any) -> Tensor:
        ctx.products, ctx.scaling = products, scaling
        reduced = x @ A.T
        ctx.save_for_backward(x, A, B, reduced)
        return products.frozen(x).addmm_(reduced, B.T, alpha=scaling)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None, None]:
        gradient = gradients[0]
        x, A, B, reduced = ctx.saved_tensors
        towards_reduced = torch.addmm(reduced, gradient, B, beta=0, alpha=ctx.scaling)
        towards_B = torch.addmm(B, gradient.T, reduced, beta=0, alpha=ctx.scaling)
        onto = ctx.products.frozen_back(gradient).addmm_(towards_reduced, A) if ctx.needs_input_grad[0] else None
        return onto, towards_reduced.T @ x, towards_B, None, None


def adapted_product(x: Tensor, core: Tensor, weight: Tensor, bias: Tensor | None, A: Tensor, B: Tensor) -> Tensor:
    """x Wᵀ + b + x Aᵀ Cᵀ Bᵀ by plain operations, for a compiler to put together; arguments as for `lora_xs_product`."""
    x = x.to(weight.dtype)
    return linear(x, weight, bias) + linear(linear(linear(x, A), core.to(x.dtype)), B)


def inference_product(weight: Tensor, bias: Tensor | None) -> Callable[[Tensor], Tensor]:
    """x (..., in) -> x Wᵀ + b (..., out) for evaluation in float32; W (out, in) is packed where possible."""
    if weight.dtype != torch.float32 or not is_packable(weight, torch.float32):
        return lambda x: linear(x, weight, bias)
    packed, outputs = pack(weight), len(weight)

    def product(x: Tensor) -> Tensor:
        return multiply(x.reshape(-1, x.shape[-1]), packed, bias).view(*x.shape[:-1], outputs)

    return product


class FrozenLinear(nn.Linear):
    """A frozen linear layer with the weights of another one, under the same names; prepared where that is possible."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__(base.in_features, base.out_features, bias=base.bias is not None, device="meta")
        self.weight, self.bias = base.weight, base.bias
        self.products = KeptProducts()
        self.joint: Any = None  # lora.joint_layers.JointLayers, if it has some
        self.train(base.training)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        if torch.compiler.is_compiling():
            weight, bias = self.products.plain(self.weight, self.bias)
            return linear(x.to(weight.dtype), weight, bias)
        dtype = product_type(x, self.weight)
        if dtype is None:
            return linear(x, self.weight, self.bias)
        if self.joint is not None and (part := self.joint.part(self, x, dtype)) is not None:
            return part
        products = self.products.of(dtype, self.weight, self.bias)
        y = _FrozenProduct.apply(last_cast.of(x, dtype).reshape(-1, x.shape[-1]), products)
        # no view of rows: who adds to them in place (LoRA) would copy gradients
        return y if x.dim() == 2 else y.view(*x.shape[:-1], self.out_features)

    def with_low_rank(self, x: Tensor, A: Tensor, B: Tensor, scaling: float) -> Tensor | None:
        """x Wᵀ + b + s x Aᵀ Bᵀ with trained A (r, in) and B (out, r), (..., in) -> (..., out), under autocast.

        None where it doesn't compute in 16 bits: ordinary operations are as good there.
        """
        dtype = None if torch.compiler.is_compiling() else product_type(x, self.weight)
        if dtype in (None, torch.float32):
            return None
        products = self.products.of(dtype, self.weight, self.bias)
        rows = last_cast.of(x, dtype).reshape(-1, x.shape[-1])
        y = _LoRAProduct.apply(rows, A.to(dtype), B.to(dtype), scaling, products)
        return y.view(*x.shape[:-1], self.out_features)


def cast_for_compiling(model: nn.Module, dtype: torch.dtype) -> None:
    """Makes the copies that a compiled step uses of every frozen layer, in autocast's 16-bit type."""
    for layer in model.modules():
        if not isinstance(kept := getattr(layer, "products", None), KeptProducts):
            continue
        base: Any = getattr(layer, "base", layer)
        factors = (layer.A, layer.B) if hasattr(layer, "A") else ()
        weight = base.weight if isinstance(base, nn.Linear) else base.weight.T
        kept.cast(dtype, weight, base.bias, *factors)
