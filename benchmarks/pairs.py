"""The pairs by name: what is ours, what is the reference, and what is timed."""

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import counts
from benchmarks.processes import last_json_line, run_python, run_side, wall_seconds
from benchmarks.settings import Settings

Sides = tuple[float, float]
HELP_CALLS = 5


@dataclass(frozen=True)
class Pair:
    """Two things to compare.

    Attributes:
        measure: one repetition: settings and its number to the figures of ours and of the reference.
        unit: of both figures.
        better: whether a `higher` or a `lower` ratio ours / reference is the better one.
        what: what is measured on each side, for the output.
    """

    measure: Callable[[Settings, int], Sides]
    unit: str
    better: str
    what: str


def summarise(name: str, pair: Pair, runs: list[Sides]) -> dict[str, Any]:
    """The entry of a pair in the output: medians of both sides, and the median of the runs' own ratios."""
    rows = [{"ours": ours, "reference": reference, "ratio": ours / reference} for ours, reference in runs]
    middle = {key: median(row[key] for row in rows) for key in ("ours", "reference", "ratio")}
    return {
        "name": name,
        "ours": middle["ours"],
        "reference": middle["reference"],
        "unit": pair.unit,
        "ratio": middle["ratio"],
        "better": pair.better,
        "what": pair.what,
        "runs": rows,
    }


def _samples_per_second(side: str, settings: Settings) -> float:
    figures = run_side(side, settings)
    return figures["rows"] / figures["seconds"]


def _seconds_per_step(side: str, settings: Settings) -> float:
    return run_side(side, settings)["seconds"] / settings.steps


def _trainer_peft_lora(settings: Settings, repetition: int) -> Sides:
    return _samples_per_second("adaptive_softmax", settings), _samples_per_second("trainer_peft_lora", settings)


def _fixed_rank(side: str, settings: Settings, repetition: int) -> Sides:
    return _seconds_per_step(side, settings), _seconds_per_step("fixed_rank", settings)


def _lora_full(settings: Settings, repetition: int) -> Sides:
    return _seconds_per_step("lora_distilbert", settings), _seconds_per_step("full_distilbert", settings)


def _padding(settings: Settings, repetition: int) -> Sides:
    ours, reference = (
        counts.padded_tokens_per_real_token(settings, repetition, batching) for batching in ("length_grouped", "random")
    )
    return ours, reference


def _mask_operations(settings: Settings, repetition: int) -> Sides:
    return counts.our_mask_operations(), counts.looped_mask_operations()


def _second_start(settings: Settings, repetition: int) -> Sides:
    with tempfile.TemporaryDirectory() as folder:
        if repetition == 0:  # not counted: brings libraries and weights into the system's own file cache
            _start_seconds(settings, Path(folder) / "not_counted")
        cold = _start_seconds(settings, Path(folder) / "cache")
        warm = _start_seconds(settings, Path(folder) / "cache")
    return warm, cold


def _start_seconds(settings: Settings, cache: Path) -> float:
    with tempfile.TemporaryDirectory() as runs:
        arguments = ["cli.py", "fit", "--config", "quickstart.yaml", "--runs_dir", runs]
        arguments += ["--trainer.callbacks+=benchmarks.timing.FirstStep"]
        started = time.time()
        printed = run_python(arguments, {**settings.environment(), "RANKWISE_CACHE": str(cache)})
    return last_json_line(printed)["first_step_done"] - started


def _help_seconds(settings: Settings, repetition: int) -> Sides:
    def seconds(arguments: list[str]) -> float:
        return median(wall_seconds(arguments, dict(os.environ)) for _ in range(HELP_CALLS))

    return seconds(["cli.py", "--help"]), seconds(["-c", "pass"])


_STEPS = "whole steps from batch to optimizer, after a warm-up, one epoch of the same rows; fp32, batch 32"
_FIXED = f"{_STEPS}; adaptive LoRA-XS [5, 25], {{}} allocation, soft masks, against LoRA-XS of rank 25, all callbacks"
PAIRS: dict[str, Pair] = {
    "trainer_peft_lora": Pair(
        _trainer_peft_lora,
        "samples/s",
        "higher",
        f"{_STEPS}; ours: adaptive LoRA-XS [5, 25], softmax, by cli.py's path with all callbacks and loggers; "
        "reference: Hugging Face Trainer with PEFT LoRA r = 8, grouped by length, without logging",
    ),
    "fixed_rank_softmax": Pair(
        partial(_fixed_rank, "adaptive_softmax"), "seconds per step", "lower", _FIXED.format("softmax")
    ),
    "fixed_rank_bounded": Pair(
        partial(_fixed_rank, "adaptive_bounded"), "seconds per step", "lower", _FIXED.format("bounded")
    ),
    "lora_full_distilbert": Pair(
        _lora_full,
        "seconds per step",
        "lower",
        f"{_STEPS}; DistilBERT's architecture with random weights; ours: LoRA of rank 32 in all linear layers; "
        "reference: full fine-tuning through the same module",
    ),
    "padding_length_grouped": Pair(
        _padding,
        "padded tokens per real token",
        "lower",
        "counted over one epoch at batch 32; ours: grouped by length; reference: random batches",
    ),
    "mask_operations": Pair(
        _mask_operations,
        "tensor operations",
        "lower",
        "counted, as PyTorch dispatches them from allocation weights to R ∘ mask and back, 96 layers; ours: softmax "
        "allocation; reference: the study's loop over layers and sizes",
    ),
    "second_start": Pair(
        _second_start,
        "seconds",
        "lower",
        "cli.py fit --config quickstart.yaml, process start to the end of the first step; ours: with what an earlier "
        "start left in the caches; reference: with empty caches; the system's file cache is warm in both",
    ),
    "help_seconds": Pair(
        _help_seconds,
        "seconds",
        "lower",
        f"wall time, median of {HELP_CALLS} calls; ours: python cli.py --help; reference: python -c pass",
    ),
}
