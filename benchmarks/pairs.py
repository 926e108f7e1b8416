"""The pairs by name: which side is ours, which is the reference, and which figure is compared."""

from dataclasses import dataclass
from statistics import median
from typing import Any, NamedTuple

from benchmarks.processes import run_side
from benchmarks.settings import Settings
from benchmarks.sides import SIDES


class Figure(NamedTuple):
    """The unit of a figure that sides measure, and what it is, for the output."""

    unit: str
    what: str


_STEPS = "whole steps from batch to optimizer, after a warm-up, the same batches on both sides"
FIGURES: dict[str, Figure] = {
    "samples_per_second": Figure("samples/s", _STEPS),
    "seconds_per_step": Figure("seconds per step", _STEPS),
    "peak_memory_bytes": Figure("bytes", "most memory held, of the process (CPU) or allocated on the GPU"),
    "checkpoint_bytes": Figure("bytes", "last.ckpt with optimizer state, written whole"),
    "checkpoint_seconds": Figure("seconds", "last.ckpt with optimizer state, written whole"),
    "needed": Figure("operations/s", "those the step can't do without (no padding, nothing that we avoid)"),
    "formula": Figure(
        "operations/s", "4 x backbone parameters x real tokens + attention + adapter, avoided work included"
    ),
    "peak": Figure("operations/s", "a large matrix product in that process"),
    "merged": Figure("samples/s", "merged weights, merging included"),
    "apart": Figure("samples/s", "frozen layer and adapter apart"),
    "cached": Figure("seconds", "from the cache"),
    "factorised": Figure("seconds", "worked out (SVD)"),
    "length_grouped": Figure("padded tokens per real token", "grouped by length"),
    "random": Figure("padded tokens per real token", "random batches"),
    "softmax_masks": Figure("tensor operations", "softmax allocation"),
    "looped_masks": Figure("tensor operations", "the study's loop over layers and sizes"),
    "warm": Figure("seconds", "with what an earlier start left in the caches"),
    "cold": Figure("seconds", "with empty caches"),
    "help": Figure("seconds", "python cli.py --help"),
    "nothing": Figure("seconds", "python -c pass"),
}


@dataclass(frozen=True)
class Pair:
    """Two figures to compare.

    Attributes:
        ours: our side's name in `SIDES`.
        reference: the other side's.
        figure: which of our side's figures is taken, by its name in `FIGURES`.
        reference_figure: which of the reference's; the same one if not given.
    """

    ours: str
    reference: str
    figure: str
    reference_figure: str | None = None

    @property
    def unit(self) -> str:
        """The unit of both figures."""
        return FIGURES[self.figure].unit

    @property
    def better(self) -> str:
        """Whether a `higher` or a `lower` ratio ours / reference is the better one."""
        return "higher" if self.unit.endswith("/s") else "lower"

    @property
    def what(self) -> str:
        """What is measured on each side, for the output."""
        figure, ours, reference = FIGURES[self.figure].what, SIDES[self.ours].what, SIDES[self.reference].what
        if self.reference_figure is None:
            return f"{figure}; ours: {ours}; reference: {reference}"
        return f"{ours}; ours: {figure}; reference: {FIGURES[self.reference_figure].what}"

    def measure(self, settings: Settings) -> tuple[float, float]:
        """The figures of ours and of the reference in one repetition."""
        ours, reference = run_side(self.ours, settings), run_side(self.reference, settings)
        return ours[self.figure], reference[self.reference_figure or self.figure]


PAIRS: dict[str, Pair] = {
    "seed_with_pictures": Pair("adaptive_softmax", "seed_with_pictures", "samples_per_second"),
    "seed_without_pictures": Pair("adaptive_softmax", "seed_without_pictures", "samples_per_second"),
    "trainer_peft_lora": Pair("adaptive_softmax", "trainer_peft_lora", "samples_per_second"),
    "trainer_peft_lora_by_lora": Pair("lora", "trainer_peft_lora", "samples_per_second"),
    "trainer_peft_adalora": Pair("adaptive_softmax", "trainer_peft_adalora", "samples_per_second"),
    "fixed_rank": Pair("adaptive_softmax", "fixed_rank", "seconds_per_step"),
    "fixed_rank_bounded": Pair("adaptive_bounded", "fixed_rank", "seconds_per_step"),
    "frozen_backbone": Pair("adaptive_softmax", "frozen_backbone", "seconds_per_step"),
    "frozen_backbone_plain": Pair("adaptive_softmax", "frozen_backbone_plain", "seconds_per_step"),
    "matmul_peak": Pair("adaptive_softmax", "adaptive_softmax", "needed", "peak"),
    "matmul_peak_formula": Pair("adaptive_softmax", "adaptive_softmax", "formula", "peak"),
    "peak_memory_peft_lora": Pair("adaptive_softmax", "trainer_peft_lora", "peak_memory_bytes"),
    "peak_memory_full": Pair("adaptive_softmax", "full", "peak_memory_bytes"),
    "checkpoint_bytes": Pair("adaptive_softmax", "full", "checkpoint_bytes"),
    "checkpoint_seconds": Pair("adaptive_softmax", "full", "checkpoint_seconds"),
    "merged_evaluation": Pair("evaluation", "evaluation", "merged", "apart"),
    "svd_cached": Pair("factors", "factors", "cached", "factorised"),
    "lora_full": Pair("lora_all_linear", "full", "seconds_per_step"),
    "padding_length_grouped": Pair("padding", "padding", "length_grouped", "random"),
    "mask_operations": Pair("mask_operations", "mask_operations", "softmax_masks", "looped_masks"),
    "second_start": Pair("first_step", "first_step", "warm", "cold"),
    "help_seconds": Pair("command_help", "command_help", "help", "nothing"),
}


def summarise(name: str, pair: Pair, runs: list[tuple[float, float]]) -> dict[str, Any]:
    """The entry of a pair in the output: medians of both sides, and the median of the runs' own ratios."""
    rows = [{"ours": ours, "reference": reference, "ratio": ours / reference} for ours, reference in runs]
    middle = {key: median(row[key] for row in rows) for key in ("ours", "reference", "ratio")}
    return {"name": name, **middle, "unit": pair.unit, "better": pair.better, "what": pair.what, "runs": rows}
