"""`python -m benchmarks.scaling --output FILE.json --figure FILE.png`: step time against the sizes of a step.

Each step is forward, backward and optimizer in a bare loop over random tokens without padding, so that one size can
be changed at a time: sequence length, batch, number of layers, r_max. Three ways in turn: adaptive LoRA-XS,
LoRA-XS of fixed rank, and the frozen backbone alone.
"""

import argparse
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from benchmarks.machine import machine, versions
from benchmarks.settings import SEED, Settings
from benchmarks.timing import now
from common.files import write_json, write_whole
from common.memory import keep_freed_memory


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


class Step:
    """One way of training (or of not training) a model of MiniLM's width, ready to be called."""

    def __init__(self, way: str, sizes: Sizes, precision: str) -> None:
        from transformers import BertConfig, BertForSequenceClassification

        from lightning_modules.first_token import use_first_token_only
        from lora import AdaptiveLoRAXS, LoRAXS
        from lora.dropout import use_sixteen_bit_dropout
        from lora.injection import freeze, prepare_frozen_layers

        torch.manual_seed(SEED)
        config = BertConfig(
            hidden_size=384, num_hidden_layers=sizes.layers, num_attention_heads=12, intermediate_size=1536
        )
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = BertForSequenceClassification(config).train()
        self.adapter: Any = None
        freeze(self.model, ("classifier", "bert.pooler") if way != "frozen backbone" else ())
        if way == "frozen backbone":
            self.model.get_input_embeddings().register_forward_hook(lambda layer, x, y: y.requires_grad_())
        else:
            rank = sizes.rank_max
            adaptive = way == "adaptive"
            self.adapter = AdaptiveLoRAXS(1, rank, rank_average=0.8 * rank) if adaptive else LoRAXS(rank)
            self.adapter.attach(self.model, "bert", ("classifier", "bert.pooler"))
            self.adapter.to(self.device)
        prepare_frozen_layers(self.model)
        use_sixteen_bit_dropout(self.model)
        use_first_token_only(self.model)
        self.model.to(self.device)
        self.tokens = torch.randint(1000, 30000, (sizes.batch, sizes.length), device=self.device)
        self.labels = torch.randint(0, 2, (sizes.batch,), device=self.device)
        self.autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=precision == "bf16-mixed")
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


def seconds_per_step(sizes: Sizes, precision: str, steps: int) -> dict[str, float]:
    """Median seconds of each way, all ways in turn at each step, after one that warms up."""
    made = {way: Step(way, sizes, precision) for way in WAYS}
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(steps + 1):
        for way, step in made.items():
            started = now()
            step()
            times[way].append(now() - started)
    return {way: median(found[1:]) for way, found in times.items()}


def measure(precision: str, steps: int) -> list[dict[str, Any]]:
    """Every point of every curve; other sizes stay as `Sizes` has them."""
    points = []
    for name, values in CURVES.items():
        for value in values:
            sizes = replace(Sizes(), **{name: value})
            points.append({"curve": name, **asdict(sizes), "seconds": seconds_per_step(sizes, precision, steps)})
            print(points[-1], flush=True)
    return points


def draw(points: list[dict[str, Any]]) -> Any:
    """The curves as a figure."""
    from matplotlib.figure import Figure

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


def main() -> int:
    """Measures, writes the points, draws the figure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("scaling.json"), help="JSON file to write")
    parser.add_argument("--figure", type=Path, default=Path("scaling.png"), help="PNG file to write")
    parser.add_argument("--precision", choices=("32-true", "bf16-mixed"), default="32-true")
    parser.add_argument("--steps", type=int, default=7, help="timed steps of each way at each point")
    parsed = parser.parse_args()
    keep_freed_memory()
    content = {
        "points": measure(parsed.precision, parsed.steps),
        "machine": machine(Settings()),
        "versions": versions(),
        "precision": parsed.precision,
        "command": " ".join(["python -m benchmarks.scaling", *sys.argv[1:]]),
    }
    write_json(parsed.output, content)
    figure = draw(content["points"])
    write_whole(parsed.figure, lambda file: figure.savefig(file, format="png", dpi=120))
    return 0


if __name__ == "__main__":
    sys.exit(main())
