"""The pairs by name: which side is ours, which is the reference, and which figure is compared.

Each side measures alone, in a fresh process, with the threads and the device asked for.
"""

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache, partial
from io import StringIO
from multiprocessing import get_context
from statistics import median
from typing import NamedTuple
from unittest.mock import patch

import torch

from benchmarks import frozen, ours, seed_loop, trainer_peft
from benchmarks.correctness import correctness
from benchmarks.settings import BenchmarkSettings
from benchmarks.timing import Figures


class Side(NamedTuple):
    """What measures one side, and what that is, for the output."""

    measure: Callable[[BenchmarkSettings], Figures]
    what: str


_OURS = "by cli.py's path with all callbacks and loggers"
_STUDY = (
    "the original study's loop (padding to 128, each layer's mask size by size in each forward pass, {}), in Hugging "
    "Face's Trainer, fewer steps"
)
_BARE = "forward and activation backward of the frozen model in a bare loop, no optimizer; {}"
_TRAINER = "Hugging Face Trainer, without logging, with PEFT {}"


def _with(*options: str) -> Callable[[BenchmarkSettings], Figures]:
    return partial(ours.adaptive_softmax, options=options)


SIDES = {
    "adaptive_softmax": Side(ours.adaptive_softmax, f"adaptive LoRA-XS [5, 25], softmax, soft masks, {_OURS}"),
    "adaptive_compiled": Side(_with("--model.compile=true"), f"the same, compiled, {_OURS}"),
    "adaptive_graphs": Side(_with("--model.cuda_graphs=true"), f"the same, in CUDA graphs, {_OURS}"),
    "adaptive_checkpointed": Side(_with("--model.gradient_checkpointing=true"), f"the same, checkpointed, {_OURS}"),
    "adaptive_nf4": Side(_with("--model.quantization=nf4"), f"the same, frozen weights in 4 bits, {_OURS}"),
    "correctness": Side(correctness, "gradient of R for one batch, against the CPU's in float32"),
    "fixed_rank": Side(partial(ours.train, "fixed_rank"), f"LoRA-XS of rank 25 in every layer, {_OURS}"),
    "lora": Side(partial(ours.train, "lora"), f"LoRA r = 8 in the layers that PEFT adapts, {_OURS}"),
    "lora_all_linear": Side(partial(ours.train, "lora_all_linear"), f"LoRA of rank 32 in all linear layers, {_OURS}"),
    "full": Side(partial(ours.train, "full"), "full fine-tuning through the same module"),
    "evaluation": Side(ours.evaluation, "one pass over the validation split, median of 3, the same answers"),
    "frozen_backbone": Side(
        frozen.frozen_backbone, _BARE.format("with the same packed weights, dropout and last layer as ours")
    ),
    "seed_with_pictures": Side(
        partial(seed_loop.train, look_at=seed_loop.draw_mask), _STUDY.format("a figure of each")
    ),
    "seed_without_pictures": Side(seed_loop.train, _STUDY.format("without its figures")),
    "trainer_peft_lora": Side(trainer_peft.trainer_peft_lora, _TRAINER.format("LoRA r = 8 in the same layers")),
    "trainer_peft_adalora": Side(
        trainer_peft.trainer_peft_adalora, _TRAINER.format("AdaLoRA from r = 12 to 8, allocated every 10 steps")
    ),
}

_STEPS = "whole steps from batch to optimizer, after a warm-up, the same batches on both sides"
# the unit of each figure that sides measure, and what it is
FIGURES = {
    "samples_per_second": ("samples/s", _STEPS),
    "seconds_per_step": ("seconds per step", _STEPS),
    "warm_up_seconds": ("seconds", "from the start of training to the end of the warm-up"),
    "peak_memory_bytes": ("bytes", "most memory held, of the process (CPU) or allocated on the GPU"),
    "needed": ("operations/s", "those the step can't do without (no padding, nothing that we avoid)"),
    "peak": ("operations/s", "a large matrix product in that process"),
    "merged": ("samples/s", "merged weights, merging included"),
    "apart": ("samples/s", "frozen layer and adapter apart"),
}


@dataclass(frozen=True)
class Pair:
    """Two figures to compare, by names in `SIDES` and `FIGURES`; `figure` counts for both unless told otherwise."""

    ours: str
    reference: str
    figure: str
    reference_figure: str | None = None

    def measure(self, settings: BenchmarkSettings) -> tuple[float, float]:
        """The figures of ours and of the reference in one repetition."""
        ours, reference = run_side(self.ours, settings), run_side(self.reference, settings)
        return ours[self.figure], reference[self.reference_figure or self.figure]

    def description(self) -> dict[str, str]:
        """Their unit, whether a higher or a lower ratio is better, and what is measured on each side."""
        unit, figure = FIGURES[self.figure]
        ours, reference = SIDES[self.ours].what, SIDES[self.reference].what
        what = f"{figure}; ours: {ours}; reference: {reference}"
        if self.reference_figure is not None:
            what = f"{ours}; ours: {figure}; reference: {FIGURES[self.reference_figure][1]}"
        return {"unit": unit, "better": "higher" if unit.endswith("/s") else "lower", "what": what}


PAIRS = {
    "seed_with_pictures": Pair("adaptive_softmax", "seed_with_pictures", "samples_per_second"),
    "seed_without_pictures": Pair("adaptive_softmax", "seed_without_pictures", "samples_per_second"),
    "trainer_peft_lora": Pair("adaptive_softmax", "trainer_peft_lora", "samples_per_second"),
    "trainer_peft_lora_by_lora": Pair("lora", "trainer_peft_lora", "samples_per_second"),
    "trainer_peft_adalora": Pair("adaptive_softmax", "trainer_peft_adalora", "samples_per_second"),
    "fixed_rank": Pair("adaptive_softmax", "fixed_rank", "seconds_per_step"),
    "frozen_backbone": Pair("adaptive_softmax", "frozen_backbone", "seconds_per_step"),
    "matmul_peak": Pair("adaptive_softmax", "adaptive_softmax", "needed", "peak"),
    "peak_memory_peft_lora": Pair("adaptive_softmax", "trainer_peft_lora", "peak_memory_bytes"),
    "peak_memory_full": Pair("adaptive_softmax", "full", "peak_memory_bytes"),
    "checkpointing": Pair("adaptive_checkpointed", "adaptive_softmax", "seconds_per_step"),
    "peak_memory_checkpointing": Pair("adaptive_checkpointed", "adaptive_softmax", "peak_memory_bytes"),
    "compiled": Pair("adaptive_compiled", "adaptive_softmax", "seconds_per_step"),
    "compiled_warm_up": Pair("adaptive_compiled", "adaptive_softmax", "warm_up_seconds"),
    "merged_evaluation": Pair("evaluation", "evaluation", "merged", "apart"),
    "lora_full": Pair("lora_all_linear", "full", "seconds_per_step"),
}


def pair_summary(name: str, runs: list[tuple[float, float]]) -> dict[str, object]:
    """The entry of a pair in the output: medians of both sides, and the median of the runs' own ratios."""
    rows = [{"ours": ours, "reference": reference, "ratio": ours / reference} for ours, reference in runs]
    middle = {key: median(row[key] for row in rows) for key in ("ours", "reference", "ratio")}
    return {"name": name, **middle, **PAIRS[name].description(), "runs": rows}


@cache
def run_side(name: str, settings: BenchmarkSettings) -> Figures:
    """Runs one side in its own process and returns what it measured; once for all pairs with it.

    Raises:
        RuntimeError: see `run_at_once`.
    """
    return run_at_once(name, settings, 1)[0]


def run_at_once(name: str, settings: BenchmarkSettings, count: int) -> list[Figures]:
    """Runs a side in several processes at the same time and returns what each measured.

    Raises:
        RuntimeError: the side ran with other threads or on another device than asked.
    """
    # torch reads the number of threads from the environment when it is imported
    with patch.dict(os.environ, settings.environment()), ProcessPoolExecutor(count, get_context("spawn")) as pool:
        found = [ended.result() for ended in [pool.submit(_measure, name, settings) for _ in range(count)]]
    for _, threads, device in found:
        if threads != settings.thread_count or settings.device not in ("auto", device):
            asked = f"{settings.thread_count} threads on {settings.device}"
            raise RuntimeError(f"{name} ran with {threads} threads on {device} instead of {asked}")
    return [figures for figures, _, _ in found]


def _measure(name: str, settings: BenchmarkSettings) -> tuple[Figures, int, str]:
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        figures = SIDES[name].measure(settings)
    return figures, torch.get_num_threads(), "cuda" if torch.cuda.is_available() else "cpu"
