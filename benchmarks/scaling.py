"""Step time against the sizes of a step.

Each step is forward, backward and optimizer in a bare loop over random tokens without padding, so that one size can
be changed at a time: sequence length, batch, number of layers, r_max. Three ways in turn: adaptive LoRA-XS,
LoRA-XS of fixed rank, and the frozen backbone alone.
"""

import argparse
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args

import torch
from matplotlib.figure import Figure
from torch.nn.functional import cross_entropy
from transformers import BertConfig, BertForSequenceClassification

from benchmarks.frozen import ask_for_activation_gradients, device_here, make_fast
from benchmarks.machine import origin
from benchmarks.settings import SEED, BenchmarkSettings, Precision, at_least
from benchmarks.timing import median_seconds
from common.files import atomic_write, write_json
from common.memory import keep_freed_memory
from lora import AdaptiveLoRAXS, LoRAXS
from lora.injection import freeze


@dataclass(frozen=True)
class Sizes:
    """Of one step: tokens of a row, rows, layers of the encoder (six adapted projections in four kinds each), r_max."""

    length: int = 32
    batch: int = 32
    layers: int = 6
    rank_max: int = 25


CURVES: dict[str, tuple[int, ...]] = {
    "length": (8, 16, 32, 64, 128),
    "batch": (8, 16, 32, 64, 128),
    "layers": (2, 4, 6, 12, 24),
    "rank_max": (8, 16, 25, 50, 100),
}
LABELS = {"length": "tokens of a row", "batch": "rows of a batch", "layers": "layers", "rank_max": "r_max"}
WAYS = ("adaptive", "fixed rank", "frozen backbone")
_HEAD = ("classifier", "bert.pooler")


class Step:
    """One way of training (or of not training) a model of MiniLM's width, ready to be called."""

    def __init__(self, way: str, sizes: Sizes, precision: str) -> None:
        torch.manual_seed(SEED)
        config = BertConfig(
            hidden_size=384, num_hidden_layers=sizes.layers, num_attention_heads=12, intermediate_size=1536
        )
        device = device_here()
        self.model = BertForSequenceClassification(config).train()
        self.adapter = _adapter(way, sizes.rank_max)
        freeze(self.model, _HEAD if self.adapter is not None else ())
        if self.adapter is None:
            ask_for_activation_gradients(self.model)
        else:
            self.adapter.attach(self.model, "bert", _HEAD)
            self.adapter.to(device)
        make_fast(self.model)
        self.model.to(device)
        self.tokens = torch.randint(1000, 30000, (sizes.batch, sizes.length), device=device)
        self.labels = torch.randint(0, 2, (sizes.batch,), device=device)
        self.autocast = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-mixed")
        trained = [p for part in (self.model, self.adapter) if part for p in part.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True) if trained else None

    def __call__(self) -> None:
        if self.adapter is not None:
            self.adapter.refresh()
        with self.autocast:
            logits = self.model(input_ids=self.tokens).logits.float()
        cross_entropy(logits, self.labels).backward()
        if self.optimizer is not None:
            self.optimizer.step()
            self.optimizer.zero_grad()


def _adapter(way: str, rank: int) -> LoRAXS | None:
    if way == "frozen backbone":
        return None
    return AdaptiveLoRAXS(1, rank, rank_average=0.8 * rank) if way == "adaptive" else LoRAXS(rank)


def measure_points(precision: str, steps: int) -> list[dict[str, Any]]:
    """Every point of every curve; other sizes stay as `Sizes` has them."""
    points = []
    for name, values in CURVES.items():
        for value in values:
            sizes = replace(Sizes(), **{name: value})
            seconds = median_seconds({way: Step(way, sizes, precision) for way in WAYS}, steps)
            points.append({"curve": name, **asdict(sizes), "seconds": seconds})
            print(points[-1], flush=True)
    return points


def scaling_figure(points: list[dict[str, Any]]) -> Figure:
    """The curves as a figure."""
    figure = Figure(figsize=(12, 3.4), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(CURVES)), CURVES, strict=True):
        found = [point for point in points if point["curve"] == name]
        for way in WAYS:
            milliseconds = [1000 * point["seconds"][way] for point in found]
            axes.plot([point[name] for point in found], milliseconds, marker="o", label=way)
        axes.set_xlabel(LABELS[name])
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("milliseconds per step")
    figure.axes[0].legend()
    return figure


def measure_scaling(arguments: list[str]) -> None:
    """Measures, writes the points and draws the figure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks scaling", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("scaling.json"), help="JSON file to write")
    parser.add_argument("--figure", type=Path, default=Path("scaling.png"), help="PNG file to write")
    parser.add_argument("--precision", choices=get_args(Precision), default="32-true")
    parser.add_argument("--steps", type=int, default=7, help="timed steps of each way at each point")
    parsed = parser.parse_args(arguments)
    at_least("steps", parsed.steps, 1)
    keep_freed_memory()
    before = origin(BenchmarkSettings())
    points = measure_points(parsed.precision, parsed.steps)
    write_json(parsed.output, {"points": points, "precision": parsed.precision, **before})
    figure = scaling_figure(points)
    atomic_write(parsed.figure, lambda file: figure.savefig(file, format="png", dpi=120))
