"""What leaves a run: updates as plain LoRA factors, or added to the weights of the plain model."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from lora.factors import Factors
from lora.gradient import ranks_by_energy
from lora.injection import replace_module


@torch.no_grad()
def fold(A: Tensor, B: Tensor, block: Tensor, scale: float) -> Factors:
    """Plain LoRA factors (k, in) and (out, k) whose product is s · B[:, :k] R[:k, :k] A[:k], for a block R (k, k)."""
    k = len(block)
    # in float64, so that the only rounding is the last
    return A[:k].detach().clone(), (scale * B[:, :k].double() @ block.double()).float()


@torch.no_grad()
def cut_factors(factors: dict[str, Factors], coefficients: Tensor, exponent: int, budget: float) -> dict[str, Factors]:
    """The best smaller update of the same kind: each layer's is cut to its largest singular values.

    Which layer keeps how many is decided by the squares of the singular values, per value that a rank costs, over all
    layers (`ranks_by_energy`): no data is needed (as in PARA, arXiv 2604.27796). Factors are A (k, in) and B (out, k);
    rank k has the area c · k^p, with coefficients c (N,) and exponent p; the budget is the largest total area.
    """
    parts = {name: _decomposed(A.double(), B.double()) for name, (A, B) in factors.items()}
    largest = max(len(S) for _, S, _ in parts.values())
    energies = torch.stack([functional.pad(S**2, (0, largest - len(S))) for _, S, _ in parts.values()])
    ranks = ranks_by_energy(energies, coefficients, exponent, 0, largest, budget).tolist()
    pairs = zip(parts.items(), ranks, strict=True)
    return {name: (Vh[:k].float(), (U[:, :k] * S[:k]).float()) for (name, (U, S, Vh)), k in pairs}


def _decomposed(A: Tensor, B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """U (out, k), S (k,) and Vᵀ (k, in) of B A."""
    (left, R_left), (right, R_right) = torch.linalg.qr(B), torch.linalg.qr(A.T)
    U, S, Vh = torch.linalg.svd(R_left @ R_right.T)
    return left @ U, S, Vh @ right.T


def unwrap(model: nn.Module, names: Iterable[str]) -> None:
    """Puts the frozen layers back in the place of the adapted ones with these full paths."""
    for name in names:
        base = model.get_submodule(name).base
        assert isinstance(base, nn.Module)
        replace_module(model, name, base)


def plain_weights(model: nn.Module, adapted: Iterable[str]) -> dict[str, Tensor]:
    """The pretrained weights, adapted or not, under the names they have in the plain model.

    A tied one counts once. A buffer that files hold counts, too: by some a router chooses its experts.
    """
    parameters: dict[str, Tensor] = dict(model.named_parameters())
    known = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    parameters |= {name: buffer for name, buffer in model.state_dict().items() if name not in known and buffer.numel()}
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


def untie(model: nn.Module, names: Iterable[str]) -> bool:
    """Gives each of these layers that shares its weight with another module its own; says whether any did."""
    tied = [model.get_submodule(name) for name in names if shares_weight(model, name)]
    for layer in tied:
        layer.weight = nn.Parameter(layer.weight.clone(), layer.weight.requires_grad)  # type: ignore[arg-type,operator]
    return bool(tied)


@torch.no_grad()
def merge(model: nn.Module, factors: dict[str, Factors]) -> None:
    """Adds each update B A to the weight of the plain layer with this full path, in place.

    A layer that shares its weight with another module gets its own first: the update is the layer's alone. Layers are
    Linear or Conv1D; factors A (k, in) and B (out, k), with the scale in B (`Adapter.low_rank_factors`).
    """
    untie(model, factors)
    for name, (A, B) in factors.items():
        layer = model.get_submodule(name)
        weight = layer.weight
        assert isinstance(weight, Tensor)
        update = B.to(weight.device).double() @ A.to(weight.device).double()  # (out, in)
        weight.copy_(weight.double() + (update.T if isinstance(layer, Conv1D) else update))
