"""The sides by name: what measures each, and what it is."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from benchmarks import counts, frozen, ours, seed_loop, start_up, trainer_peft
from benchmarks.settings import Settings
from benchmarks.timing import Figures


class Side(NamedTuple):
    """What measures one side, and what that is, for the output."""

    measure: Callable[[Settings], Figures]
    what: str


_OURS = "by cli.py's path with all callbacks and loggers"
_STUDY = (
    "the original study's loop (padding to 128, each layer's mask size by size in each forward pass, {}), in Hugging "
    "Face's Trainer, fewer steps"
)
_BARE = "forward and activation backward of the frozen model in a bare loop, no optimizer; {}"

SIDES: dict[str, Side] = {
    "adaptive_softmax": Side(ours.adaptive_softmax, f"adaptive LoRA-XS [5, 25], softmax, soft masks, {_OURS}"),
    "adaptive_bounded": Side(
        partial(ours.train, "adaptive_bounded"), f"adaptive LoRA-XS [5, 25], bounded, soft masks, {_OURS}"
    ),
    "fixed_rank": Side(partial(ours.train, "fixed_rank"), f"LoRA-XS of rank 25 in every layer, {_OURS}"),
    "lora": Side(partial(ours.train, "lora"), f"LoRA r = 8 in the layers that PEFT adapts, {_OURS}"),
    "lora_all_linear": Side(partial(ours.train, "lora_all_linear"), f"LoRA of rank 32 in all linear layers, {_OURS}"),
    "full": Side(partial(ours.train, "full"), "full fine-tuning through the same module"),
    "evaluation": Side(ours.evaluation, "one pass over the validation split, median of 3, the same answers"),
    "factors": Side(ours.factors, "frozen factors of rank 25 of all default layers"),
    "frozen_backbone": Side(
        frozen.frozen_backbone, _BARE.format("with the same packed weights, dropout and last layer as ours")
    ),
    "frozen_backbone_plain": Side(frozen.frozen_backbone_plain, _BARE.format("transformers' model as it comes")),
    "seed_with_pictures": Side(seed_loop.seed_with_pictures, _STUDY.format("a figure of each")),
    "seed_without_pictures": Side(seed_loop.seed_without_pictures, _STUDY.format("without its figures")),
    "trainer_peft_lora": Side(
        trainer_peft.trainer_peft_lora,
        "Hugging Face Trainer, without logging, with PEFT LoRA r = 8 in the same layers",
    ),
    "trainer_peft_adalora": Side(
        trainer_peft.trainer_peft_adalora,
        "Hugging Face Trainer, without logging, with PEFT AdaLoRA from r = 12 to 8, allocated every 10 steps",
    ),
    "padding": Side(counts.padding, "counted over one epoch"),
    "mask_operations": Side(
        counts.mask_operations,
        "counted, as PyTorch dispatches them from allocation weights to R ∘ mask and back, 96 layers",
    ),
    "first_step": Side(
        start_up.first_step,
        "cli.py fit --config quickstart.yaml, process start to the end of the first step; the system's file cache is "
        "warm in both",
    ),
    "command_help": Side(start_up.command_help, "wall time, median of 5 calls"),
}
