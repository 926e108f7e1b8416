"""How allocation weights w (N,) start, and two rules that turn them into areas (N,) which sum to the budget M.

softmax   a_i = min_i + (M − Σ min) · softmax(w)_i                    (the original rule; may exceed rank_max)
bounded   a_i = min_i + (max_i − min_i) · σ(w_i − τ), Σ a_i = M       (τ is the one scalar that makes it so)
"""

import functools
import math
from typing import Any, Literal

import torch
from torch import Tensor

from common.errors import one_of

InitialWeights = Literal["random", "uniform", "quadratic", "left_skewed", "gradient_energy"]


def initial_weights(rule: InitialWeights, layers: int) -> Tensor:
    """Initial allocation weights (N,), float32. `random` draws from torch's global generator."""
    position = torch.arange(layers, dtype=torch.float32)
    spread = layers / (4 * math.sqrt(10))
    match rule:
        case "random":
            return torch.randn(layers)
        case "uniform" | "gradient_energy":  # the gradient is known later: `take_energies`
            return torch.zeros(layers)
        case "quadratic":
            return torch.exp(-((position - layers // 2) ** 2) / (2 * (2 * spread) ** 2))
        case "left_skewed":
            centre = 3 * layers // 4
            width = torch.where(position < centre, 3 * spread, spread)
            return torch.exp(-((position - centre) ** 2) / (2 * width**2))
        case _:
            raise one_of("initial_weights", rule, ("random", "uniform", "quadratic", "left_skewed", "gradient_energy"))


def softmax_areas(weights: Tensor, room: float | Tensor, area_min: Tensor) -> Tensor:
    """Areas (N,) of at least `area_min` (N,), unbounded above, that sum to Σ area_min + room."""
    return area_min + room * torch.softmax(weights, dim=0)


class _BoundedAreas(torch.autograd.Function):
    """min + (max − min) · σ(w − τ), with τ from a monotone root search and its derivative implicit.

    With d = (max − min) · σ'(w − τ), the implicit function theorem gives ∂a/∂w = diag(d) − d dᵀ / Σd.
    """

    @staticmethod
    def forward(ctx: Any, weights: Tensor, area_min: Tensor, span: Tensor, share: Any, total: float) -> Tensor:
        # an offset that puts equal weights at the budget; a budget at either end leaves every share there
        smallest = 4 * torch.finfo(weights.dtype).eps
        in_range = torch.clamp if isinstance(share, Tensor) else lambda number, low, high: min(max(number, low), high)
        share = in_range(share, smallest, 1 - smallest)
        value = torch.sigmoid(weights - _shift(weights, span, share, total))  # (N,)
        scaled = span * value
        ctx.save_for_backward(scaled * (1 - value))
        return area_min + scaled

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        (d,) = ctx.saved_tensors
        mean = torch.dot(d, gradient) / d.sum().clamp_min(torch.finfo(d.dtype).tiny)
        return d * (gradient - mean), None, None, None, None


def _offset(share: float | Tensor) -> float | Tensor:
    return torch.logit(share) if isinstance(share, Tensor) else math.log(share) - math.log1p(-share)


def _shift(weights: Tensor, span: Tensor, share: float | Tensor, total: float) -> Tensor:
    """The τ for which Σ span · σ(w − τ) = share · total: a search on ever finer grids, then Newton steps.

    No value is read on the host, so an accelerator isn't made to wait.
    """
    target = share * total
    # equal weights w have the solution w − offset, others one between those of the smallest and the largest
    low, high = (weights - _offset(share)).aminmax()
    make = _made_grid if torch.compiler.is_compiling() else _kept_grid  # a compiler can't look into a cache
    grid, ends = make(weights.device, weights.dtype)
    for _ in range(2):  # the bracket shrinks by 1,024 each time
        points = torch.lerp(high, low, grid)  # (1025, 1), so that the sums rise
        sums = torch.mv(torch.sigmoid(weights - points), span)  # (1025,)
        cell = torch.searchsorted(sums[1:-1], target)
        high, low = points[cell + ends].unbind()
    shift = low
    for _ in range(3):
        value = torch.sigmoid(weights - shift)
        slope = torch.dot(torch.addcmul(value, value, value, value=-1), span)
        excess = torch.dot(value, span) - target
        shift = torch.addcdiv(shift, excess, slope.clamp_min(torch.finfo(span.dtype).tiny))
        shift = torch.clamp(shift, low, high)  # each time: far out the slope is 0, and the step endless
    return shift


def _made_grid(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    return torch.linspace(0, 1, 1025, dtype=dtype, device=device)[:, None], torch.arange(2, device=device)


# outside of inference mode: what an evaluation makes first, training must be able to use
_kept_grid = functools.lru_cache(torch.inference_mode(False)(_made_grid))


def bounded_areas(weights: Tensor, share: float | Tensor, area_min: Tensor, span: Tensor, total: float) -> Tensor:
    """Areas (N,) between `area_min` and `area_min + span`, (N,) each, that sum to Σ area_min + share · total.

    Every weight (N,) has a gradient. The share, 0 to 1, is how much of the span the budget fills; total is Σ span,
    known on the host.
    """
    return _BoundedAreas.apply(weights, area_min, span, share, total)
