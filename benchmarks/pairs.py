"""The pairs by name: which side is ours, which is the reference, and which figure is compared.

Each side measures alone, in a fresh process, with the threads and the device asked for.
"""

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from io import StringIO
from multiprocessing import get_context
from statistics import median
from typing import NamedTuple
from unittest.mock import patch

import torch

from benchmarks import frozen, ours, seed_loop, trainer_peft
from benchmarks.inputs import BenchmarkSettings
from benchmarks.timing import Figures

SIDES: dict[str, Callable[[BenchmarkSettings], Figures]] = {
    # ours, by cli.py's path with all callbacks and loggers
    "adaptive_softmax": ours.adaptive_softmax,
    "adaptive_compiled": partial(ours.train, "adaptive_softmax", options=("--model.compile=true",)),
    "adaptive_graphs": partial(ours.train, "adaptive_softmax", options=("--model.cuda_graphs=true",)),
    "adaptive_nf4": partial(ours.train, "adaptive_softmax", options=("--model.quantization=nf4",)),
    "fixed_rank": partial(ours.train, "fixed_rank"),
    "lora": partial(ours.train, "lora"),
    "full": partial(ours.train, "full"),
    "evaluation": ours.evaluation,
    # in a bare loop
    "frozen_backbone": frozen.frozen_backbone,
    "correctness": frozen.correctness,
    # Hugging Face's Trainer
    "seed_with_pictures": partial(seed_loop.train_as_in_the_study, look_at=seed_loop.draw_mask),
    "seed_without_pictures": seed_loop.train_as_in_the_study,
    "trainer_peft_lora": trainer_peft.trainer_peft_lora,
    "trainer_peft_adalora": trainer_peft.trainer_peft_adalora,
}
UNITS = {
    "samples_per_second": "samples/s",
    "seconds_per_step": "seconds per step",
    "peak_memory_bytes": "bytes",
    "needed": "operations/s",
    "peak": "operations/s",
    "merged": "samples/s",
    "apart": "samples/s",
}


class Pair(NamedTuple):
    """Two figures to compare, by names in `SIDES` and `UNITS`; `figure` counts for both unless told otherwise."""

    ours: str
    reference: str
    figure: str = "samples_per_second"
    reference_figure: str | None = None

    def compared(self, measured: Callable[[str], Figures]) -> tuple[float, float]:
        """The figures of ours and of the reference; `measured` gives those of a side."""
        ours, reference = measured(self.ours), measured(self.reference)
        return ours[self.figure], reference[self.reference_figure or self.figure]


PAIRS = {
    "seed_with_pictures": Pair("adaptive_softmax", "seed_with_pictures"),
    "seed_without_pictures": Pair("adaptive_softmax", "seed_without_pictures"),
    "trainer_peft_lora": Pair("adaptive_softmax", "trainer_peft_lora"),
    "trainer_peft_lora_by_lora": Pair("lora", "trainer_peft_lora"),
    "trainer_peft_adalora": Pair("adaptive_softmax", "trainer_peft_adalora"),
    "merged_evaluation": Pair("evaluation", "evaluation", "merged", "apart"),
    "fixed_rank": Pair("adaptive_softmax", "fixed_rank", "seconds_per_step"),
    "frozen_backbone": Pair("adaptive_softmax", "frozen_backbone", "seconds_per_step"),
    "peak_memory_peft_lora": Pair("adaptive_softmax", "trainer_peft_lora", "peak_memory_bytes"),
    "peak_memory_full": Pair("adaptive_softmax", "full", "peak_memory_bytes"),
    "matmul_peak": Pair("adaptive_softmax", "adaptive_softmax", "needed", "peak"),
}


def pair_summary(name: str, runs: list[tuple[float, float]]) -> dict[str, object]:
    """The entry of a pair in the output: medians of both sides, and the median of the runs' own ratios."""
    pair = PAIRS[name]
    unit = UNITS[pair.figure]
    rows = [{"ours": ours, "reference": reference, "ratio": ours / reference} for ours, reference in runs]
    return {
        "name": name,
        **{key: median(row[key] for row in rows) for key in ("ours", "reference", "ratio")},
        "unit": unit,
        "better": "higher" if unit.endswith("/s") else "lower",
        "what": f"{pair.ours}.{pair.figure} / {pair.reference}.{pair.reference_figure or pair.figure}",
        "runs": rows,
    }


def run_side(name: str, settings: BenchmarkSettings, at_once: int = 1) -> list[Figures]:
    """Runs a side in so many processes of its own at the same time and returns what each measured."""
    # torch reads the number of threads from the environment when it is imported
    with patch.dict(os.environ, settings.environment()), ProcessPoolExecutor(at_once, get_context("spawn")) as pool:
        return [ended.result() for ended in [pool.submit(_measure, name, settings) for _ in range(at_once)]]


def _measure(name: str, settings: BenchmarkSettings) -> Figures:
    assert torch.get_num_threads() == settings.thread_count
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        return SIDES[name](settings)
