"""Operations that one training step launches on a GPU, and reads that make the host wait for it: counted on the CPU.

Each side runs as it is measured elsewhere, on a model with as many layers as roberta-large but narrow, because widths
don't change the number of operations. What differs between CPU and GPU is made as on a GPU: weights are cast instead of
packed, dropout is PyTorch's fused one, attention is one operation each way, and the device is looked at as rarely. An
operation counts as one launch unless it makes a view or takes memory; what one of them launches inside isn't seen.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from functools import partial, wraps
from io import StringIO
from pathlib import Path
from pkgutil import resolve_name
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks import frozen, ours, trainer_peft
from benchmarks.inputs import BenchmarkSettings, made_model
from benchmarks.output import origin, print_table
from benchmarks.timing import Figures, StepWindow
from common.files import write_json

SIDES: dict[str, Callable[[BenchmarkSettings], Figures]] = {
    "ours": partial(ours.train, "adaptive_softmax"),
    "ours_fixed_rank": partial(ours.train, "fixed_rank"),
    "ours_lora": partial(ours.train, "lora"),
    "peft_lora": trainer_peft.trainer_peft_lora,
    "peft_adalora": trainer_peft.trainer_peft_adalora,
    "bare": frozen.frozen_backbone,
}
# Whole steps, from the end of one to the end of the next, at no logging interval and no end of an epoch.
SETTINGS = BenchmarkSettings(model="roberta-large-narrow", precision="bf16-mixed", steps=10, warm_up_steps=3)
_ALLOCATES = ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "lift_fresh")
_VIEWS = ("_unsafe_view", "unsafe_split_with_sizes")  # which PyTorch doesn't call views, because they may be changed
_NOTES = ("_record_function_enter_new", "_record_function_exit")
_WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique2", "unique_dim")
_READS = (torch.Tensor.tolist, torch.Tensor.cpu, torch.Tensor.numpy)
# What happens on the host before a batch goes to the device, and a line that is printed twice a minute.
_ON_THE_HOST = (
    "callbacks.progress.EpochLines.on_step_end",
    "datamodules.batching.TrainingBatchSampler.micro_batch",
    "datamodules.language_modelling.collate_windows",
    "datamodules.text_classification.collate",
    "lightning_modules.adapted_module.AdaptedModule.ready_batch",
    "transformers.DataCollatorWithPadding.__call__",
)


class StepCounter(TorchDispatchMode):
    """What is launched, and what makes the host wait, while `counting` is set; `steps` has both of each whole step."""

    def __init__(self) -> None:
        super().__init__()
        self.counting = False
        self.launched: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()
        self.steps: list[tuple[Counter[str], Counter[str]]] = []

    def step_ended(self) -> None:
        self.steps.append((self.launched, self.waits))
        self.launched, self.waits = Counter(), Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        if self.counting and name in _WAITS:
            self.waits[name] += 1
        elif self.counting and name not in _ALLOCATES + _VIEWS + _NOTES and not function.is_view:
            self.launched[name] += 1
        return function(*args, **(kwargs or {}))

    def on_the_host(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, uncounted."""

        @wraps(function)
        def uncounted(*args: Any, **kwargs: Any) -> Any:
            counting, self.counting = self.counting, False
            try:
                return function(*args, **kwargs)
            finally:
                self.counting = counting

        return uncounted


class _GPUFunctions(TorchFunctionMode):
    """Dropout and attention as one operation each, and notes of what is read without one."""

    def __init__(self, counter: StepCounter) -> None:
        super().__init__()
        self.counter = counter

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function is nn.functional.dropout:
            return _fused_dropout(*args, **kwargs)
        if function is nn.functional.scaled_dot_product_attention:
            kwargs = {**kwargs, "dropout_p": 0.0}  # with dropout it is one operation on a GPU only
        if self.counter.counting and function in _READS:
            self.counter.waits[function.__name__] += 1
        return function(*args, **kwargs)


def _fused_dropout(x: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> torch.Tensor:
    return torch.native_dropout(x, p, training)[0] if training and p else x


@contextmanager
def as_on_a_gpu(counter: StepCounter) -> Iterator[None]:
    """Lets training on the CPU take the way that it takes on a GPU, for `counter` to look at."""
    replaced: dict[str, Callable[..., Any]] = {
        "lora.products.frozen_products.can_pack": lambda dtype: False,
        "lora.dropout.SixteenBitDropout.forward": nn.Dropout.forward,
        "callbacks.divergence.looks_at_every_step": lambda device: False,
        **{place: counter.on_the_host(resolve_name(place)) for place in _ON_THE_HOST},
    }
    with ExitStack() as stack:
        for place, function in replaced.items():
            stack.enter_context(patch(place, function))
        stack.enter_context(counter)
        stack.enter_context(_GPUFunctions(counter))
        yield


def count(side: str, settings: BenchmarkSettings = SETTINGS) -> StepCounter:
    """Runs one of `SIDES` and counts its timed steps; `launched` and `waits` are of the one that launches most.

    A model may launch more where a row is padded, and none of a few batches in a row need have padding. The settings'
    model is a folder or the like: see `made_model`.
    """
    counter, ended = StepCounter(), StepWindow.step_ended

    def step_ended(window: StepWindow) -> None:
        if counter.counting:
            counter.step_ended()
        counter.counting = False
        ended(window)
        counter.counting = window.timing

    with as_on_a_gpu(counter), patch.object(StepWindow, "step_ended", step_ended):
        SIDES[side](settings)
    counter.launched, counter.waits = max(counter.steps, key=lambda step: step[0].total())
    return counter


def measure_launches(output: Path = Path("launches.json")) -> None:
    """Counts all sides, prints a table and writes JSON.

    Args:
        output: JSON file to write.
    """
    with made_model(SETTINGS) as made, redirect_stdout(StringIO()):
        counted = {side: count(side, made) for side in SIDES}
    launches = {side: counter.launched.total() for side, counter in counted.items()}
    fewest = {side: min(launched.total() for launched, _ in counter.steps) for side, counter in counted.items()}
    waits = {side: counter.waits.total() for side, counter in counted.items()}
    content = {
        "launches": launches,
        "fewest_launches": fewest,
        "synchronisations_per_step": waits["ours"],
        "synchronisations": waits,
        "operations": {side: dict(counter.launched.most_common()) for side, counter in counted.items()},
        "model": SETTINGS.model,
    }
    write_json(output, {**content, **origin(SETTINGS)})
    counts: dict[str, dict[str, Any]] = {"most": launches, "fewest": fewest}
    for name, sides in list(counts.items()):
        counts[f"{name} / bare"] = {side: launched / sides["bare"] for side, launched in sides.items()}
    counts["waits"] = waits
    rows = [{"side": side, **{name: sides[side] for name, sides in counts.items()}} for side in SIDES]
    print_table("launches of a step, bf16-mixed", rows, {name: name for name in rows[0]})
