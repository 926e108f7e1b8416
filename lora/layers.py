"""Linear layers with a low-rank update, over torch's Linear and GPT-2's Conv1D."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, linear
from transformers.pytorch_utils import Conv1D

from lora.products.frozen_linear import FrozenLinear, adapted_product, inference_product, lora_xs_product
from lora.products.frozen_products import FoldedCore, KeptProducts, product_type
from lora.products.stored_linear import StoredLinear

LINEAR_TYPES: tuple[type[nn.Module], ...] = (nn.Linear, Conv1D)


def dense_weight(layer: nn.Module) -> Tensor:
    """The weight of a linear layer as (out, in): Conv1D stores it transposed."""
    if isinstance(layer, AdaptedLinear):
        layer = layer.base
    if isinstance(layer, StoredLinear):
        return layer.dense()
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight.T if isinstance(layer, Conv1D) else weight


class AdaptedLinear(nn.Module):
    """What the adapted layers have in common: a frozen layer (Linear or Conv1D) at the place it had in the model."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base
        self.idle = False  # whether it has rank 0 for now: no pass goes through the update
        self._merged: Callable[[Tensor], Tensor] | None = None

    def update(self) -> Tensor:
        """ΔW (out, in) of what the adapter handed over last."""
        raise NotImplementedError

    @torch.no_grad()
    def merge(self, update: Tensor | None = None) -> None:
        """Goes on with W + ΔW in one product, until `unmerge`; W stays as it is, so nothing has to be restored.

        A weight that is held in fewer bits, or is sharded, stays apart: W + ΔW would need the memory that this saves. A
        given ΔW (out, in) is merged in any case.
        """
        if update is None and isinstance(self.base, StoredLinear):
            return
        update = self.update() if update is None else update
        self._merged = inference_product(dense_weight(self.base) + update, self.bias)

    def unmerge(self) -> None:
        """Goes on with W and the update apart."""
        self._merged = None

    @property
    def weight(self) -> Tensor:
        """The frozen weight: some models look at a layer's weight directly."""
        return self.base.weight  # type: ignore[return-value]

    @property
    def bias(self) -> Tensor | None:
        return self.base.bias  # type: ignore[return-value]


class LoRAXSLinear(AdaptedLinear):
    """LoRA-XS over a frozen linear layer (arXiv 2405.17604): y = W x + b + B C A x, with C = s · (R ∘ mask).

    B (out, r) and A (r, in) are frozen. The core C (r, r) is handed over by the adapter before each pass, because the
    adapter works out scale and masks of all layers at once. Nothing of size (tokens, in) is kept for the backward pass:
    only x Aᵀ (tokens, r) is needed for the gradient of C.
    """

    def __init__(self, base: nn.Module, A: Tensor, B: Tensor) -> None:
        super().__init__(base)
        self.A: Tensor
        self.B: Tensor
        device = dense_weight(base).device
        self.register_buffer("A", A.to(device), persistent=False)
        self.register_buffer("B", B.to(device), persistent=False)
        self.core = torch.zeros(A.shape[0], A.shape[0])  # (r, r), until the adapter hands over its own
        self.folded: FoldedCore | None = None  # what the adapter has made of the core, or not
        self.products = KeptProducts()
        self.joint: Any = None  # lora.joint_layers.JointLayers, if it has some

    def keep_factors(self, A: Tensor, B: Tensor) -> None:
        """Takes other frozen factors, A (r, in) and B (out, r), which no rule makes again: state dicts hold them."""
        self.register_buffer("A", A.to(self.A))
        self.register_buffer("B", B.to(self.B))

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        if self._merged is not None:
            return self._merged(x)
        if self.idle:
            return self.base(x)
        if isinstance(self.base, StoredLinear):  # nothing dense is kept
            return self.base(x) + linear(linear(linear(x, self.A), self.core), self.B)
        if torch.compiler.is_compiling():
            frozen = self.products.plain(dense_weight(self.base), self.bias, self.A, self.B)
            return adapted_product(x, self.core, *frozen)
        if dtype := product_type(x, self.weight):
            if self.joint is not None and (part := self.joint.part(self, x, dtype)) is not None:
                return part
            weight = dense_weight(self.base)
            frozen = (weight, self.bias, self.A, self.B)
            return lora_xs_product(x, self.core, self.folded, dtype, self.products, *frozen)
        return self.base(x) + linear(linear(linear(x, self.A), self.core), self.B)

    def update(self) -> Tensor:
        return self.B @ self.core @ self.A


class LoRALinear(AdaptedLinear):
    """LoRA over a frozen linear layer (arXiv 2106.09685): y = W x + b + s · B A x, with dropout of x in the update.

    A (r, in), B (out, r) and s belong to the adapter, which hands them over before each pass: it may mask or cut them.
    A forward pass is three products of matrices; scaling and adding are part of the last one.
    """

    def __init__(self, base: nn.Module, dropout: float = 0.0) -> None:
        super().__init__(base)
        self.dropout = dropout
        # a tuple, so that this module doesn't register the adapter's parameters as its own
        self._update: tuple[Tensor, Tensor, float] | None = None

    def hand_over(self, A: Tensor, B: Tensor, scaling: float) -> None:
        """Sets A (r, in), B (out, r) and s for the passes that follow."""
        self._update = (A, B, scaling)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        if self._merged is not None:
            return self._merged(x)
        if self.idle:
            return self.base(x)
        A, B, scaling = self._handed_over()
        base, drops = self.base, self.dropout and self.training
        if isinstance(base, FrozenLinear) and not drops and (y := base.with_low_rank(x, A, B, scaling)) is not None:
            return y
        rows = x.reshape(-1, x.shape[-1])  # (tokens, in)
        dropped = dropout(rows, self.dropout, self.training) if self.dropout else rows
        y = _own_output(base, rows)  # (tokens, out)
        # in place; autocast has no say there, so B gets the type that it gave y
        y = y.addmm_(linear(dropped, A), B.T.to(y.dtype), alpha=scaling)
        return y.view(*x.shape[:-1], y.shape[-1])

    def update(self) -> Tensor:
        A, B, scaling = self._handed_over()
        return scaling * (B @ A)

    def _handed_over(self) -> tuple[Tensor, Tensor, float]:
        assert self._update is not None, "refresh() hands the factors over before a pass"
        return self._update


def _own_output(base: nn.Module, rows: Tensor) -> Tensor:
    """W x + b, (tokens, in) -> (tokens, out), as a tensor of its own: adding to a view would copy gradients."""
    if isinstance(base, Conv1D):
        return torch.addmm(base.bias, rows, base.weight)
    return base(rows)
