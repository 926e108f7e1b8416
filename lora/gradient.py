"""Directions from the task: the leading singular vectors of the mean gradient G = E[∂L/∂W] (out, in) of each layer.

With B = U and A = Vᵀ from G = U S Vᵀ, the first step of R is the best low-rank approximation of full fine-tuning's
first step (LoRA-SB, arXiv 2411.19557; LoRA-GA, arXiv 2407.05000, starts LoRA from the same directions).

G is never formed. Where x is a layer's input and δ the gradient of its output, Gᵀ Ψ = Σ x (δᵀ Ψ) and G P = Σ δ (xᵀ P)
over tokens. The first half of the batches gives a basis P of G's row space from a Gaussian Ψ; all of them give G P,
whose singular vectors are G's (randomised SVD: Halko, Martinsson and Tropp, arXiv 0909.4061).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from common.errors import InputError
from lora.layers import dense_weight

_OVERSAMPLING = 10  # columns beyond the rank


@dataclass(frozen=True)
class GradientPass:
    """How the gradient is estimated before training begins, at the pretrained weights.

    `InputError`: a number is too small.
    """

    batches: int = 32  # number of training batches
    head_warmup_steps: int = 60  # steps that the head trains alone before, because a random head distorts the gradient

    def __post_init__(self) -> None:
        if self.batches < 1 or self.head_warmup_steps < 0:
            raise InputError(
                f"gradient_batches is {self.batches} and head_warmup_steps is {self.head_warmup_steps}; allowed: "
                "gradient_batches from 1, head_warmup_steps from 0."
            )

    @classmethod
    def wanted(cls, wanted: bool, batches: int, head_warmup_steps: int) -> "GradientPass | None":
        """The pass, or None where the gradient isn't wanted, after a look at settings that would have no effect."""
        asked, usual = cls(batches, head_warmup_steps), cls()
        if not wanted and asked != usual:
            raise InputError(
                f"gradient_batches is {batches} and head_warmup_steps is {head_warmup_steps}, but nothing here is made "
                "from the gradient; allowed with factors: gradient (LoRA-XS) or initialization: gradient (LoRA)."
            )
        return asked if wanted else None


@dataclass(frozen=True)
class Directions:
    """The leading r singular directions of a layer's mean gradient, float32 on the CPU."""

    U: Tensor  # (out, r), orthonormal columns; the largest entry of each is positive
    S: Tensor  # (r,), falling
    V: Tensor  # (in, r), orthonormal columns
    # (r,), at least 0: (uᵀ G' v) · σ, where u, σ and v are of the first half of the batches and G' is the mean gradient
    # of the second: what a direction is worth on rows it wasn't chosen on. Noise has no share in its expectation, as it
    # has in σ².
    energies: Tensor


@dataclass
class _Sketch:
    """What one layer accumulates: at first Gᵀ Ψ (in, q), then, once it has a basis P, G P (out, q)."""

    layer: nn.Module
    test_matrix: Tensor  # Ψ (out, q), then P (in, q)
    sums: Tensor
    has_basis: bool = False

    @torch.no_grad()
    def add(self, x: Tensor, delta: Tensor) -> None:
        """One call of the layer: its input (..., in), and the gradient of its output (..., out)."""
        with torch.autocast(x.device.type, enabled=False):
            x, delta = x.reshape(-1, x.shape[-1]).float(), delta.reshape(-1, delta.shape[-1]).float()
            one, other = (delta, x) if self.has_basis else (x, delta)
            self.sums.addmm_(one.T, other @ self.test_matrix)


def gradient_directions(
    layers: Mapping[str, nn.Module],
    rank: int,
    batches: Sequence[Any],
    backward: Callable[[Any], None],
    mean_over_processes: Callable[[Tensor], Tensor] = lambda sums: sums,
) -> dict[str, Directions]:
    """The directions of each layer, by its full path, from backward passes over `batches`, their first half twice.

    A layer needs (in + out) · (rank + 10) numbers of memory on its device, and as many on the host. Random numbers are
    the same on every machine. `InputError`: a layer's gradient is zero or isn't finite.

    Args:
        layers: Linear, Conv1D or anything that wraps them and calls itself with one input.
        rank: r, how many directions.
        batches: of the training data, at least one.
        backward: runs the loss of a batch forward and backward.
        mean_over_processes: of a tensor that every process has its own share of.
    """
    half = max(1, len(batches) // 2)
    sketches = {name: _begin(layer, rank) for name, layer in layers.items()}
    with _hooks(sketches):
        _run(backward, batches[:half])
        for name, sketch in sketches.items():
            _take_basis(name, sketch, mean_over_processes)
        _run(backward, batches[:half])
        firsts = {name: mean_over_processes(sketch.sums).to("cpu", copy=True) for name, sketch in sketches.items()}
        _run(backward, batches[half:])
    found = {}
    for name, sketch in sketches.items():
        sums, first, basis = mean_over_processes(sketch.sums).cpu(), firsts[name], sketch.test_matrix.cpu()
        _check(name, sums)
        later = (sums - first) / max(len(batches) - half, 1)
        found[name] = _directions_from_gradient(sums / len(batches), first / half, later, basis, rank)
    return found


def _begin(layer: nn.Module, rank: int) -> _Sketch:
    (outputs, inputs), device = dense_weight(layer).shape, dense_weight(layer).device
    width = min(rank + _OVERSAMPLING, outputs, inputs)
    psi = torch.randn(outputs, width, generator=torch.Generator().manual_seed(0)).to(device)
    return _Sketch(layer, psi, torch.zeros(inputs, width, device=device))


def _run(backward: Callable[[Any], None], batches: Sequence[Any]) -> None:
    for batch in batches:
        backward(batch)


@contextmanager
def _hooks(sketches: Mapping[str, _Sketch]) -> Iterator[None]:
    handles = [sketch.layer.register_forward_hook(partial(_watch, sketch)) for sketch in sketches.values()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _watch(sketch: _Sketch, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    if not output.requires_grad:  # nothing below is trained
        output = output.detach().requires_grad_().clone()  # a copy, because the model may change it in place
    output.register_hook(partial(sketch.add, inputs[0].detach()))
    return output


def _take_basis(name: str, sketch: _Sketch, mean_over_processes: Callable[[Tensor], Tensor]) -> None:
    Z = mean_over_processes(sketch.sums)
    _check(name, Z)
    outputs = len(sketch.test_matrix)
    sketch.test_matrix, sketch.has_basis = torch.linalg.qr(Z / Z.abs().max())[0], True  # (in, q)
    sketch.sums = Z.new_zeros(outputs, Z.shape[1])


def _check(name: str, sums: Tensor) -> None:
    largest = float(sums.abs().max())
    if not 0 < largest < float("inf"):
        raise InputError(
            f"the gradient of {name} is {'zero' if largest == 0 else 'not finite'}, so it has no directions; allowed: "
            "layers on which the loss depends, with a finite loss. Leave the layer out of model.adapter.targets, or "
            "take other directions (--model.adapter.factors svd)."
        )


def _directions_from_gradient(mean: Tensor, early: Tensor, later: Tensor, basis: Tensor, rank: int) -> Directions:
    """The directions of a layer from G P (out, q), the mean over all batches and over either half, and P (in, q)."""
    U, S, Vh = torch.linalg.svd(mean, full_matrices=False)
    signs = torch.sign(U.gather(0, U.abs().argmax(dim=0, keepdim=True)))[:, :rank]  # (1, r)
    early_U, early_S, early_Vh = torch.linalg.svd(early, full_matrices=False)
    products = (early_U * (later @ early_Vh.T)).sum(dim=0)  # uᵀ G' v, because v is P times its row of Vh
    energies = (products * early_S).clamp_min(0)[:rank]
    return Directions(U[:, :rank] * signs, S[:rank], basis @ Vh[:rank].T * signs, energies)


def ranks_by_energy(
    energies: Tensor, coefficients: Tensor, exponent: int, rank_min: int, rank_max: int, budget: float
) -> Tensor:
    """Ranks (N,), int64, by water-filling: the next rank goes where it brings the most energy per value it costs.

    From rank_min to rank_max at most, whose energies are (N, r). Rank k has the area c · k^p, with coefficients c (N,)
    and exponent p. The budget, a total area, is never exceeded; without energy left, lower ranks go first.
    """
    costs, gains = coefficients.tolist(), energies.tolist()
    ranks = [rank_min] * len(costs)
    left = budget - sum(cost * rank_min**exponent for cost in costs)

    def step(layer: int) -> float:
        return float(costs[layer] * ((ranks[layer] + 1) ** exponent - ranks[layer] ** exponent))

    while True:
        fitting = [layer for layer in range(len(costs)) if ranks[layer] < rank_max and step(layer) <= left * (1 + 1e-9)]
        if not fitting:
            return torch.tensor(ranks)
        best = max(fitting, key=lambda layer: (gains[layer][ranks[layer]] / step(layer), -ranks[layer], -layer))
        left -= step(best)
        ranks[best] += 1
