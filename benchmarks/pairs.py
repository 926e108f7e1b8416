"""The pairs by name: what is ours, what is the reference, and what is timed."""

from dataclasses import replace
from functools import partial

from benchmarks import counts
from benchmarks.pair import Pair, Sides
from benchmarks.processes import run_side
from benchmarks.settings import Settings
from benchmarks.start_up import help_seconds, second_start

SEED_SHARE = 20  # of our steps to those of the study's loop


def _throughputs(ours: str, reference: str, settings: Settings, repetition: int) -> Sides:
    figures = [run_side(side, settings, repetition) for side in (ours, reference)]
    return figures[0]["rows"] / figures[0]["seconds"], figures[1]["rows"] / figures[1]["seconds"]


def _against_seed(reference: str, settings: Settings, repetition: int) -> Sides:
    ours = run_side("adaptive_softmax", settings, repetition)
    few = replace(settings, steps=max(settings.steps // SEED_SHARE, 2), warm_up_steps=1)  # it takes long
    theirs = run_side(reference, few, repetition)
    return ours["rows"] / ours["seconds"], theirs["rows"] / theirs["seconds"]


def _step_times(ours: str, reference: str, settings: Settings, repetition: int) -> Sides:
    figures = [run_side(side, settings, repetition) for side in (ours, reference)]
    return figures[0]["seconds"] / settings.steps, figures[1]["seconds"] / settings.steps


def _figure(key: str, ours: str, reference: str, settings: Settings, repetition: int) -> Sides:
    return run_side(ours, settings, repetition)[key], run_side(reference, settings, repetition)[key]


def _within(side: str, ours: str, reference: str, settings: Settings, repetition: int) -> Sides:
    figures = run_side(side, settings, repetition)
    return figures[ours], figures[reference]


def _padding(settings: Settings, repetition: int) -> Sides:
    ours, reference = (
        counts.padded_tokens_per_real_token(settings, repetition, batching) for batching in ("length_grouped", "random")
    )
    return ours, reference


def _mask_operations(settings: Settings, repetition: int) -> Sides:
    return counts.our_mask_operations(), counts.looped_mask_operations()


_STEPS = "whole steps from batch to optimizer, after a warm-up, the same batches on both sides"
_OURS = "ours: adaptive LoRA-XS [5, 25], softmax, by cli.py's path with all callbacks and loggers"
_TRAINER = "Hugging Face Trainer, without logging"
_FIXED = f"{_STEPS}; adaptive LoRA-XS [5, 25], {{}} allocation, soft masks, against LoRA-XS of rank 25, all callbacks"
_BARE = "forward and activation backward of the frozen model on the same batches in a bare loop, no optimizer"
_PEAK = f"{_STEPS}, adaptive LoRA-XS; operations per second {{}}, over those of a large matrix product in that process"
_MEMORY = "most memory held, of the process (CPU) or allocated on the GPU; ours: adaptive LoRA-XS; reference: {}"

_CHECKPOINT = "last.ckpt with optimizer state, written whole; ours: adaptive LoRA-XS; reference: full fine-tuning"
_SEED = (
    f"{_STEPS}; {_OURS}; reference: the original study's loop (padding to 128, each layer's mask size by size in each "
    "forward pass, {}), in Hugging Face's Trainer, fewer steps"
)

PAIRS: dict[str, Pair] = {
    "seed_with_pictures": Pair(
        partial(_against_seed, "seed_with_pictures"), "samples/s", "higher", _SEED.format("a figure of each")
    ),
    "seed_without_pictures": Pair(
        partial(_against_seed, "seed_without_pictures"), "samples/s", "higher", _SEED.format("without its figures")
    ),
    "trainer_peft_lora": Pair(
        partial(_throughputs, "adaptive_softmax", "trainer_peft_lora"),
        "samples/s",
        "higher",
        f"{_STEPS}; {_OURS}; reference: {_TRAINER}, with PEFT LoRA r = 8 in the same layers",
    ),
    "trainer_peft_lora_by_lora": Pair(
        partial(_throughputs, "lora", "trainer_peft_lora"),
        "samples/s",
        "higher",
        f"{_STEPS}; the same method on both sides, LoRA r = 8; ours: cli.py's path; reference: {_TRAINER}, with PEFT",
    ),
    "trainer_peft_adalora": Pair(
        partial(_throughputs, "adaptive_softmax", "trainer_peft_adalora"),
        "samples/s",
        "higher",
        f"{_STEPS}; {_OURS}; reference: {_TRAINER}, with PEFT AdaLoRA from r = 12 to 8, allocated every 10 steps",
    ),
    "fixed_rank": Pair(
        partial(_step_times, "adaptive_softmax", "fixed_rank"), "seconds per step", "lower", _FIXED.format("softmax")
    ),
    "fixed_rank_bounded": Pair(
        partial(_step_times, "adaptive_bounded", "fixed_rank"), "seconds per step", "lower", _FIXED.format("bounded")
    ),
    "frozen_backbone": Pair(
        partial(_step_times, "adaptive_softmax", "frozen_backbone"),
        "seconds per step",
        "lower",
        f"{_STEPS}; {_OURS}; reference: {_BARE}, with the same packed weights, dropout and last layer as ours",
    ),
    "frozen_backbone_plain": Pair(
        partial(_step_times, "adaptive_softmax", "frozen_backbone_plain"),
        "seconds per step",
        "lower",
        f"{_STEPS}; {_OURS}; reference: {_BARE}, transformers' model as it comes",
    ),
    "matmul_peak": Pair(
        partial(_within, "adaptive_softmax", "needed", "peak"),
        "operations/s",
        "higher",
        _PEAK.format("that the step can't do without (no padding, nothing that we avoid)"),
    ),
    "matmul_peak_formula": Pair(
        partial(_within, "adaptive_softmax", "formula", "peak"),
        "operations/s",
        "higher",
        _PEAK.format("as 4 x backbone parameters x real tokens + attention + adapter, avoided work included"),
    ),
    "peak_memory_peft_lora": Pair(
        partial(_figure, "peak_memory_bytes", "adaptive_softmax", "trainer_peft_lora"),
        "bytes",
        "lower",
        _MEMORY.format("Hugging Face Trainer with PEFT LoRA r = 8"),
    ),
    "peak_memory_full": Pair(
        partial(_figure, "peak_memory_bytes", "adaptive_softmax", "full"),
        "bytes",
        "lower",
        _MEMORY.format("full fine-tuning through the same module"),
    ),
    "checkpoint_bytes": Pair(
        partial(_figure, "checkpoint_bytes", "adaptive_softmax", "full"), "bytes", "lower", _CHECKPOINT
    ),
    "checkpoint_seconds": Pair(
        partial(_figure, "checkpoint_seconds", "adaptive_softmax", "full"), "seconds", "lower", _CHECKPOINT
    ),
    "merged_evaluation": Pair(
        partial(_within, "evaluation", "merged", "apart"),
        "samples/s",
        "higher",
        "one pass over the validation split, median of 3, the same answers; ours: merged weights, merging included; "
        "reference: frozen layer and adapter apart",
    ),
    "svd_cached": Pair(
        partial(_within, "factors", "cached", "cold"),
        "seconds",
        "lower",
        "frozen factors of rank 25 of all default layers; ours: from the cache; reference: worked out (SVD)",
    ),
    "lora_full": Pair(
        partial(_step_times, "lora_all_linear", "full"),
        "seconds per step",
        "lower",
        f"{_STEPS}; ours: LoRA of rank 32 in all linear layers; reference: full fine-tuning through the same module",
    ),
    "padding_length_grouped": Pair(
        _padding,
        "padded tokens per real token",
        "lower",
        "counted over one epoch; ours: grouped by length; reference: random batches",
    ),
    "mask_operations": Pair(
        _mask_operations,
        "tensor operations",
        "lower",
        "counted, as PyTorch dispatches them from allocation weights to R ∘ mask and back, 96 layers; ours: softmax "
        "allocation; reference: the study's loop over layers and sizes",
    ),
    "second_start": Pair(
        second_start,
        "seconds",
        "lower",
        "cli.py fit --config quickstart.yaml, process start to the end of the first step; ours: with what an earlier "
        "start left in the caches; reference: with empty caches; the system's file cache is warm in both",
    ),
    "help_seconds": Pair(
        help_seconds,
        "seconds",
        "lower",
        "wall time, median of 5 calls; ours: python cli.py --help; reference: python -c pass",
    ),
}
