"""The reference side of `seed_*`: the original study's training loop, written anew after its code and formulas.

What makes it what it is: rows padded to 128 tokens, in random order; in each layer, at each forward pass, a mask built
size by size (`benchmarks.looped_mask`), and a figure of it unless told otherwise; A, R and B as three products whose
scaled result is added to the frozen layer's; every step's loss and all ranks read and logged. As in the study this
runs in Hugging Face's Trainer, with its own defaults (gradient clipping, AdamW one tensor at a time).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from benchmarks.looped_mask import looped_mask, looped_ranks
from benchmarks.settings import MAX_LENGTH, Settings
from benchmarks.sides_peft import pretrained_model, train_with_trainer
from lora.factors import svd_factors
from lora.injection import choose_layers, freeze, replace_module
from lora.layers import dense_weight
from lora.scaling import scaling_factor

RANK_MIN, RANK_MAX, RANK_AVERAGE = 5, 25, 20
ALPHA_MIN, ALPHA_MAX = 0.5, 3.0
_HEAD = ("classifier",)


class SeedLinear(nn.Module):
    """A frozen layer with LoRA-XS on top, its mask made anew in every forward pass."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base
        A, B = svd_factors(dense_weight(base), RANK_MAX)
        self.A, self.B = nn.Parameter(A, requires_grad=False), nn.Parameter(B, requires_grad=False)
        self.R = nn.Parameter(torch.randn(RANK_MAX, RANK_MAX) * 1e-5)
        self.scaling = scaling_factor("alpha_over_rank", 16.0, RANK_MAX)
        self.rank: Tensor = torch.zeros(())
        self.alpha = ALPHA_MIN

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        result = self.base(x)
        mask = looped_mask(self.rank, self.alpha, RANK_MIN, RANK_MAX, self.R)
        self.look_at(mask)
        result += linear(linear(linear(x, self.A), self.R * mask), self.B) * self.scaling
        return result

    def look_at(self, mask: Tensor) -> None:
        """What the study does with each mask besides using it: nothing here."""


class PicturingSeedLinear(SeedLinear):
    """With a figure of each mask, as the study's code draws it; closed, as there, without a file."""

    def look_at(self, mask: Tensor) -> None:
        from matplotlib import pyplot

        matrix = mask.detach().cpu().numpy()
        figure = pyplot.figure(figsize=(6, 6))
        pyplot.imshow(matrix, cmap="gray_r", interpolation="none", vmin=0, vmax=matrix.max())
        pyplot.colorbar(label="Value")
        pyplot.xticks(ticks=range(RANK_MAX), labels=[str(column) for column in range(RANK_MAX)])
        pyplot.yticks(ticks=range(RANK_MAX), labels=[str(row) for row in range(RANK_MAX)])
        pyplot.xlabel("Columns")
        pyplot.ylabel("Rows")
        pyplot.title(f"Rank: {self.rank:.2f}, alpha: {self.alpha:.2f}")
        pyplot.close(figure)


def seed_with_pictures(settings: Settings) -> dict[str, Any]:
    """The study's loop with a figure of each layer's mask in each forward pass, as its code has it."""
    import matplotlib

    matplotlib.use("agg")
    return _train(settings, PicturingSeedLinear)


def seed_without_pictures(settings: Settings) -> dict[str, Any]:
    """The same loop without figures."""
    return _train(settings, SeedLinear)


def adapt(model: Any, kind: type[SeedLinear]) -> list[SeedLinear]:
    """Freezes the model but for its head, and puts the study's layers and allocation weights into it."""
    freeze(model, _HEAD)
    layers = []
    for name, base in choose_layers(model, model.config.model_type, "default", _HEAD).items():
        layers.append(kind(base))
        replace_module(model, name, layers[-1])
    model.rank_allocation_weights = nn.Parameter(torch.randn(len(layers)))
    return layers


def _train(settings: Settings, kind: type[SeedLinear]) -> dict[str, Any]:
    from transformers import Trainer

    model = pretrained_model(settings)
    layers = adapt(model, kind)
    budget, steps = len(layers) * RANK_AVERAGE**2, settings.warm_up_steps + settings.steps

    class SeedTrainer(Trainer):
        def training_step(self, model: Any, inputs: Any, *others: Any, **more: Any) -> Tensor:
            ranks = looped_ranks(model.rank_allocation_weights, budget, RANK_MIN)
            alpha = ALPHA_MIN + (ALPHA_MAX - ALPHA_MIN) * self.state.global_step / steps
            for layer, rank in zip(layers, ranks, strict=True):
                layer.rank, layer.alpha = rank, alpha
            loss = super().training_step(model, inputs, *others, **more)
            self.log({"alpha": alpha, **{f"rank_{place}": rank for place, rank in enumerate(ranks.tolist())}})
            return loss

    return train_with_trainer(
        settings,
        model,
        trainer_class=SeedTrainer,
        optimizers=(_optimizer(model), None),
        pad_to=MAX_LENGTH,
        train_sampling_strategy="random",
        max_grad_norm=1.0,
        logging_strategy="steps",
        logging_steps=1,
    )


def _optimizer(model: Any) -> torch.optim.Optimizer:
    head = [parameter for name, parameter in model.named_parameters() if name.startswith(_HEAD)]
    adapter = [parameter for name, parameter in model.named_parameters() if name.endswith(".R")]
    return torch.optim.AdamW(
        [
            {"params": head, "lr": 5e-3},
            {"params": adapter, "lr": 1e-3},
            {"params": [model.rank_allocation_weights], "lr": 2e-3},
        ]
    )
