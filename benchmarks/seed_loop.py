"""The reference side of `seed_*`: the original study's training loop, written anew after its code and formulas.

What makes it what it is: rows padded to 128 tokens, in random order; in each layer, at each forward pass, a mask built
size by size (its `WeightMaskingLinear`: a softmax over the sizes, with Gumbel noise that is drawn and multiplied by
tau = 0, then a square of ones times each size's probability), and a figure of it unless told otherwise; A, R and B as
three products whose scaled result is added to the frozen layer's; every step's loss and all ranks read and logged. As
in the study this runs in Hugging Face's Trainer, with its own defaults (gradient clipping, AdamW one tensor at a time).
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers import PreTrainedModel, Trainer

from benchmarks.inputs import MAX_LENGTH, BenchmarkSettings, pretrained_model
from benchmarks.timing import Figures
from benchmarks.trainer_peft import train_with_trainer
from lora.factors import svd_factors
from lora.injection import choose_layers, freeze, replace_module
from lora.layers import dense_weight

RANK_MIN, RANK_MAX, RANK_AVERAGE = 5, 25, 20
ALPHA_MIN, ALPHA_MAX = 0.5, 3.0
_STEPS_SHARE = 20  # of our steps to those of this loop, which takes long
_HEAD = ("classifier",)


def looped_mask(rank: Tensor, alpha: float, core: Tensor) -> Tensor:
    """The soft mask of one layer with continuous rank (), of the shape of its core (RANK_MAX, RANK_MAX)."""
    sizes = torch.arange(RANK_MIN, RANK_MAX + 1, device=core.device)
    noise = torch.distributions.Gumbel(0, 1).sample(sizes.shape).to(sizes.device)
    probabilities = torch.softmax(-alpha * torch.log(1 + (rank - sizes) ** 2) + 0.0 * noise, dim=0)
    mask = torch.zeros_like(core)
    for size in range(RANK_MIN, RANK_MAX + 1):
        square = torch.zeros_like(core)
        square[:size, :size] = 1
        mask += probabilities[size - RANK_MIN] * square
    return mask


class SeedLinear(nn.Module):
    """A frozen layer with LoRA-XS on top, its mask made anew in every forward pass and handed to `look_at`."""

    def __init__(self, base: nn.Module, look_at: Callable[[Tensor, "SeedLinear"], None] | None = None) -> None:
        super().__init__()
        self.base, self.look_at = base, look_at
        A, B = svd_factors(dense_weight(base), RANK_MAX)
        self.A, self.B = nn.Parameter(A, requires_grad=False), nn.Parameter(B, requires_grad=False)
        self.R = nn.Parameter(torch.randn(RANK_MAX, RANK_MAX) * 1e-5)
        self.scaling = 16.0 / RANK_MAX
        self.rank: Tensor = torch.zeros(())
        self.alpha = ALPHA_MIN

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        result = self.base(x)
        mask = looped_mask(self.rank, self.alpha, self.R)
        if self.look_at is not None:
            self.look_at(mask, self)
        result += linear(linear(linear(x, self.A), self.R * mask), self.B) * self.scaling
        return result


def draw_mask(mask: Tensor, layer: SeedLinear) -> None:
    """A figure of a mask as the study's code draws it; closed, as there, without a file."""
    import matplotlib
    from matplotlib import pyplot

    matplotlib.use("agg")
    matrix = mask.detach().cpu().numpy()
    figure = pyplot.figure(figsize=(6, 6))
    pyplot.imshow(matrix, cmap="gray_r", interpolation="none", vmin=0, vmax=matrix.max())
    pyplot.colorbar(label="Value")
    pyplot.xticks(ticks=range(RANK_MAX), labels=[str(column) for column in range(RANK_MAX)])
    pyplot.yticks(ticks=range(RANK_MAX), labels=[str(row) for row in range(RANK_MAX)])
    pyplot.xlabel("Columns")
    pyplot.ylabel("Rows")
    pyplot.title(f"Rank: {layer.rank:.2f}, alpha: {layer.alpha:.2f}")
    pyplot.close(figure)


def adapt(model: PreTrainedModel, look_at: Callable[[Tensor, SeedLinear], None] | None) -> list[SeedLinear]:
    """Freezes the model but for its head, and puts the study's layers and allocation weights into it."""
    freeze(model, _HEAD)
    layers = []
    for name, base in choose_layers(model, model.config.model_type, "default", _HEAD).items():
        layers.append(SeedLinear(base, look_at))
        replace_module(model, name, layers[-1])
    model.rank_allocation_weights = nn.Parameter(torch.randn(len(layers)))
    return layers


def train_as_in_the_study(
    settings: BenchmarkSettings, look_at: Callable[[Tensor, SeedLinear], None] | None = None
) -> Figures:
    """The study's loop; with `draw_mask` a figure of each layer's mask in each forward pass, as its code has it."""
    few = replace(settings, steps=max(settings.steps // _STEPS_SHARE, 2), warm_up_steps=1)
    model = pretrained_model(few)
    layers = adapt(model, look_at)
    room = len(layers) * (RANK_AVERAGE**2 - RANK_MIN**2)

    class SeedTrainer(Trainer):
        def training_step(self, model: Any, inputs: Any, *others: Any, **more: Any) -> Tensor:
            ranks = torch.sqrt(RANK_MIN**2 + room * torch.softmax(model.rank_allocation_weights, dim=0))
            alpha = ALPHA_MIN + (ALPHA_MAX - ALPHA_MIN) * self.state.global_step / few.all_steps
            for layer, rank in zip(layers, ranks, strict=True):
                layer.rank, layer.alpha = rank, alpha
            loss = super().training_step(model, inputs, *others, **more)
            self.log({"alpha": alpha, **{f"rank_{place}": rank for place, rank in enumerate(ranks.tolist())}})
            return loss

    return train_with_trainer(
        few,
        model,
        trainer_class=SeedTrainer,
        pad_to=MAX_LENGTH,
        train_sampling_strategy="random",
        optim="adamw_torch",
        max_grad_norm=1.0,
        logging_strategy="steps",
        logging_steps=1,
    )
