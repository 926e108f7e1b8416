"""What leaves a run: blocks of R cut to their ranks, and updates added to the weights."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from lora.factors import probe
from lora.injection import replace_module


def cut_blocks(R: Tensor, ranks: Sequence[int]) -> list[Tensor]:
    """The leading k × k block of each layer's R, from R (N, r, r) and N ranks; copies."""
    return [matrix[:k, :k].detach().clone() for matrix, k in zip(R, ranks, strict=True)]


def pad_blocks(blocks: Sequence[Tensor], rank: int) -> Tensor:
    """The opposite of `cut_blocks`: R (N, rank, rank) with zeros outside the blocks."""
    R = torch.zeros(len(blocks), rank, rank)
    for matrix, block in zip(R, blocks, strict=True):
        matrix[: len(block), : len(block)] = block
    return R


@torch.no_grad()
def fold(A: Tensor, B: Tensor, block: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Plain LoRA factors (k, in) and (out, k) whose product is s · B[:, :k] R[:k, :k] A[:k], for a block R (k, k)."""
    k = len(block)
    # in float64, so that the only rounding is the last
    return A[:k].detach().clone(), (scale * B[:, :k].double() @ block.double()).float()


def unwrap(model: nn.Module, names: Iterable[str]) -> None:
    """Puts the frozen layers back in the place of the adapted ones with these full paths."""
    for name in names:
        base = model.get_submodule(name).base
        assert isinstance(base, nn.Module)
        replace_module(model, name, base)


def plain_parameters(model: nn.Module, adapted: Iterable[str]) -> dict[str, Tensor]:
    """The pretrained parameters, adapted or not, under the names they have in the plain model."""
    parameters: dict[str, Tensor] = dict(model.named_parameters())
    for name in adapted:
        inside = [key for key in parameters if key.startswith(f"{name}.")]
        wrapped = {key: parameters.pop(key) for key in inside}
        base = f"{name}.base."
        parameters |= {f"{name}.{key[len(base) :]}": weight for key, weight in wrapped.items() if key.startswith(base)}
    return parameters


def shares_weight(model: nn.Module, name: str) -> bool:
    """Whether the layer with this full path has the weight of another module, as an output layer often has."""
    weight = model.get_submodule(name).weight
    return sum(parameter is weight for _, parameter in model.named_parameters(remove_duplicate=False)) > 1


@torch.no_grad()
def merge(model: nn.Module, factors: dict[str, tuple[Tensor, Tensor]]) -> None:
    """Adds each update B A to the weight of the plain layer with this full path, in place.

    A layer that shares its weight with another module gets its own first: the update is the layer's alone.

    Args:
        model: holds Linear and Conv1D layers under these paths.
        factors: A (k, in) and B (out, k), with the scale in B (`Adapter.low_rank_factors`).
    """
    for name, (A, B) in factors.items():
        layer = model.get_submodule(name)
        if shares_weight(model, name):
            layer.weight = nn.Parameter(layer.weight.clone(), layer.weight.requires_grad)  # type: ignore[arg-type,operator]
        weight = layer.weight
        assert isinstance(weight, Tensor)
        update = B.to(weight.device).double() @ A.to(weight.device).double()  # (out, in)
        weight.copy_(weight.double() + (update.T if isinstance(layer, Conv1D) else update))


@torch.no_grad()
def weight_sketch(parameters: dict[str, Tensor]) -> Tensor:
    """One number per weight, float32 on the CPU, that tells weights apart: (parameters,), in the order of names.

    Each weight, as a matrix of unit length, is multiplied by a fixed vector from both sides. Copies of a model give
    the same numbers, a changed entry changes its weight's number.
    """
    return torch.stack([_sketch(parameters[name]) for name in sorted(parameters)]).float()


def _sketch(weight: Tensor) -> Tensor:
    matrix = weight.detach().cpu().double().reshape(len(weight) if weight.ndim else 1, -1)
    left, right = (probe(size, torch.float64) for size in matrix.shape)
    return (left @ matrix @ right) / matrix.norm().clamp_min(1e-30)


def same_sketch(ours: Tensor, theirs: Tensor) -> bool:
    """Whether two sketches belong to the same weights."""
    return ours.shape == theirs.shape and torch.allclose(ours, theirs, rtol=1e-6, atol=1e-6)
