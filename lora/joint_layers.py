"""Layers that read the same tensor, computed together in 16 bits: query, key and value of an attention.

Side by side they are one LoRA-XS layer: W, b and A lie below each other, B and C on a block diagonal. A step then
launches 6 operations for three layers of which two are adapted, instead of 16.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple
from weakref import ref

import torch
from torch import Tensor, nn

from lora.layers import LoRAXSLinear
from lora.products.frozen_linear import FrozenLinear, last_cast
from lora.products.frozen_products import CastProducts, FoldedCore
from lora.products.torch_internals import content_key

# Attentions that keep all three outputs for the backward pass. Those that rotate query and key mostly have other names:
# a joint product would keep what they throw away. A wrong guess costs a step (see `JointLayers`).
_SIBLINGS = (("query", "key", "value"), ("q_lin", "k_lin", "v_lin"))


class _JointProduct(torch.autograd.Function):
    """x Wᵀ + b + x Aᵀ Cᵀ Bᵀ with C on a block diagonal; each block is a tensor with a gradient of its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, folded: FoldedCore, products: CastProducts, *cores: Tensor) -> Tensor:
        ctx.products, ctx.folded, ctx.cores = products, folded, len(cores)
        y, reduced = products.adapted(x, cores[0], folded)
        ctx.save_for_backward(reduced)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (reduced,) = ctx.saved_tensors  # (tokens, m r)
        towards_x, towards_core = ctx.products.adapted_back(gradients[0], None, ctx.folded, ctx.needs_input_grad[0])
        every = towards_core.T @ reduced  # (m r, m r)
        rank = len(every) // ctx.cores
        blocks = (slice(place, place + rank) for place in range(0, len(every), rank))
        return towards_x, None, None, *(every[block, block] for block in blocks)


def _nothing() -> None:
    """What a reference to no tensor gives."""


class JointLayers:
    """Layers that are called with the same tensor, one after the other, in any order.

    The first one computes for all. Each other one takes its part if it is called with that very tensor, unchanged.
    Parts that nobody took are thrown away at the next `refresh`, and the layers compute alone from then on. Until then
    they go on as they began, because a block that is computed again must keep the same tensors.

    Args:
        layers: LoRAXSLinear over nn.Linear, and FrozenLinear; at least one is adapted.
    """

    def __init__(self, layers: list[Any]) -> None:
        self.layers = layers
        self.adapted = [layer for layer in layers if isinstance(layer, LoRAXSLinear)]
        self.folded: FoldedCore | None = None  # what the adapter has made of all cores, or not
        self._were_left = False
        self._source: Callable[[], Tensor | None] = _nothing
        self._key: Hashable = None
        self._parts: dict[int, Tensor] = {}
        self._products: CastProducts | None = None
        self._products_key: Hashable = None

    def __getstate__(self) -> dict[str, Any]:
        """Without what belongs to one pass: a copy of the layers prepares its own."""
        of_a_pass: dict[str, Any] = {"folded": None, "_source": _nothing, "_parts": {}}
        return {**self.__dict__, **of_a_pass, "_products": None, "_products_key": None}

    @property
    def A(self) -> Tensor:  # noqa: N802
        """(m r, in)."""
        return torch.cat([layer.A for layer in self.adapted])

    @property
    def B(self) -> Tensor:  # noqa: N802
        """(Σ out, m r), zero but for a block of each adapted layer."""
        none = {layer: layer.weight.new_empty(len(layer.weight), 0) for layer in self.layers}
        return torch.block_diag(*(getattr(layer, "B", none[layer]) for layer in self.layers))

    def refresh(self) -> bool:
        """Forgets the last pass, and tells whether its layers were called together, as far as they were called."""
        were_left = self._were_left or bool(self._parts)
        self.folded, self._source, self._parts, self._were_left = None, _nothing, {}, False
        if were_left:
            self._products = None
        return not were_left

    def part(self, layer: nn.Module, x: Tensor, dtype: torch.dtype) -> Tensor | None:
        """This layer's output (..., out) for x (..., in) in a 16-bit type; None if it has to compute alone."""
        if self.folded is None or self.folded.up.dtype != dtype or x.is_inference():
            return None
        if any(adapted.idle for adapted in self.adapted):
            return None
        place, key = self.layers.index(layer), (content_key(x), torch.is_grad_enabled())
        if self._source() is not x or key != self._key or place not in self._parts:
            self._were_left |= bool(self._parts)
            self._parts = dict(enumerate(self._compute(x, dtype, self.folded)))
            self._source, self._key = ref(x), key
        return self._parts.pop(place)

    def _compute(self, x: Tensor, dtype: torch.dtype, folded: FoldedCore) -> list[Tensor]:
        rows = last_cast.of(x, dtype).reshape(-1, x.shape[-1])
        y = _JointProduct.apply(rows, folded, self._prepared(dtype), *(layer.core for layer in self.adapted))
        parts = torch.unsafe_split_with_sizes(y, [len(layer.weight) for layer in self.layers], dim=1)
        return [part.view(*x.shape[:-1], part.shape[1]) for part in parts]

    def _prepared(self, dtype: torch.dtype) -> CastProducts:
        """The products of all layers, made again if a frozen tensor or the type has changed."""
        frozen = [tensor for layer in self.layers for tensor in (layer.weight, layer.bias) if tensor is not None]
        frozen += [tensor for layer in self.adapted for tensor in (layer.A, layer.B)]
        key = (dtype, *map(content_key, frozen))
        if self._products is None or key != self._products_key:
            weight = torch.cat([layer.weight.detach().to(dtype) for layer in self.layers])
            zeros = [layer.weight.new_zeros(len(layer.weight)) for layer in self.layers]
            biases = [zero if layer.bias is None else layer.bias for layer, zero in zip(self.layers, zeros)]
            self._products, self._products_key = CastProducts(dtype, weight, torch.cat(biases), self.A, self.B), key
            self._products.keeps_outputs = True  # see _SIBLINGS
        return self._products


class _Alike(NamedTuple):
    """Layers, or joint layers of m cores each, whose factors have the same shapes."""

    units: list[Any]
    places: Tensor  # the numbers of their cores (n, m)
    blocks: Tensor  # (m, 1, m, 1), ones on the diagonal
    A: Tensor  # (n, m r, in)
    B: Tensor  # (n, out, m r)


class Folding:
    """Folds the cores of a step into the factors around them: of joint layers together, of others one by one."""

    def __init__(self) -> None:
        self._key: Hashable = None
        self._groups: list[_Alike] = []

    def __getstate__(self) -> dict[str, Any]:
        return {"_key": None, "_groups": []}

    @torch.no_grad()
    def hand_over(self, cores: Tensor, layers: Sequence[Any], joints: Sequence[JointLayers]) -> None:
        """Sets what is `folded` of the cores C (N, r, r), in a 16-bit type, in each layer, or in its joint layers."""
        factors = [factor for layer in layers for factor in (layer.A, layer.B)]
        key = (cores.dtype, *map(id, joints), *map(content_key, factors))
        if key != self._key:
            self._groups, self._key = self._grouped(cores.dtype, layers, joints), key
        for units, places, blocks, A, B in self._groups:
            chosen, (n, m) = cores[places], places.shape  # (n, m, r, r)
            if m > 1:
                chosen = chosen[:, :, :, None] * blocks  # (n, m, r, m, r)
            C = chosen.reshape(n, A.shape[1], A.shape[1])
            for unit, up, down in zip(units, torch.bmm(B, C), torch.bmm(C, A), strict=True):
                unit.folded = FoldedCore(up, down)

    def _grouped(self, dtype: torch.dtype, layers: Sequence[Any], joints: Sequence[JointLayers]) -> list[_Alike]:
        numbers = {layer: number for number, layer in enumerate(layers)}
        units: list[tuple[Any, list[Any]]] = [(joint, joint.adapted) for joint in joints]
        units += [(layer, [layer]) for layer in layers if layer.joint not in joints]
        by_shape: dict[Hashable, list[tuple[Any, list[int], Tensor, Tensor]]] = {}
        for unit, members in units:
            A, B = unit.A.to(dtype), unit.B.to(dtype)
            of_unit = (unit, [numbers[layer] for layer in members], A, B)
            by_shape.setdefault((A.shape, B.shape), []).append(of_unit)
        groups = []
        for same in by_shape.values():
            alike, chosen, downs, ups = zip(*same)
            places = torch.tensor(chosen, device=downs[0].device)
            blocks = torch.eye(places.shape[1]).to(downs[0])[:, None, :, None]
            groups.append(_Alike(list(alike), places, blocks, torch.stack(downs), torch.stack(ups)))
        return groups


def join_layers(model: nn.Module) -> list[JointLayers]:
    """Joins the layers of a prepared model that, by their names, read the same tensor, and no others any more."""
    joints = []
    for module in model.modules():
        if isinstance(module, FrozenLinear | LoRAXSLinear):
            module.joint = None
    for module in model.modules():
        for names in _SIBLINGS:
            layers: list[Any] = [getattr(module, name, None) for name in names]
            if not all(_can_join(layer) for layer in layers):
                continue
            is_adapted = any(isinstance(layer, LoRAXSLinear) for layer in layers)
            if is_adapted and len({layer.weight.shape[1] for layer in layers}) == 1:
                joints.append(JointLayers(layers))
    for joint in joints:
        for layer in joint.layers:
            layer.joint = joint
    return joints


def _can_join(layer: Any) -> bool:
    return isinstance(layer, FrozenLinear) or (isinstance(layer, LoRAXSLinear) and isinstance(layer.base, nn.Linear))
