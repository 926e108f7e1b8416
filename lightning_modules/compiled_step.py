"""A training step that torch.compile sees as one graph: masks of the adapter, forward pass, and loss."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from callbacks.trained_module import Batch
from common.errors import InputError
from lora.lora import LoRA
from lora.lora_xs import LoRAXS
from lora.nested import NestedRanks
from lora.products.frozen_linear import cast_for_compiling

if TYPE_CHECKING:
    from lightning_modules.adapted_module import AdaptedModule

Step = Callable[[Batch], tuple[Tensor, Tensor]]
_GRAPHS = 256  # of one run: a length and a batch size each, twice when ranks become discrete


def check_compiling(module: "AdaptedModule", model_type: str, takes_ready_masks: bool) -> None:
    """Refuses what can't be compiled or captured: such as a model that doesn't leave masks as they are.

    `InputError`: CUDA graphs without CUDA, or an adapter or an architecture that can't be traced.
    """
    compiles, captures = module.compiles, module.captures
    evaluates = module.model is not None and module.trainer.state.fn != "fit"  # before a run there is no model
    if evaluates or not (compiles or captures):
        return
    device = module.trainer.strategy.root_device.type
    if captures and device != "cuda":
        raise InputError(
            f"model.cuda_graphs is true, but this run is on {device}; allowed: on an NVIDIA GPU. Set "
            "--model.cuda_graphs false; --model.compile true works on every device."
        )
    option = "cuda_graphs" if captures else "compile"
    adapter = module.adapter
    if isinstance(adapter, NestedRanks) or not isinstance(adapter, LoRA | LoRAXS | None):
        raise InputError(
            f"model.{option} is true with {adapter.name if adapter else None}, which can't be traced as one graph; "
            f"allowed: lora.LoRA, lora.LoRAXS, their adaptive kinds, or null. Leave out --model.{option}."
        )
    if not takes_ready_masks:
        raise InputError(
            f"model.{option} is true with a {model_type}, whose attention masks depend on values "
            "and can't be traced; allowed: BERT's and RoBERTa's kinds, ALBERT, DistilBERT, ELECTRA, MPNet, GPT-2, "
            f"Llama and Qwen2, with torch's own attention where they have it. Leave out --model.{option}."
        )


def compiled(module: "AdaptedModule", captures: bool, compiles: bool = True, backend: str | None = None) -> Step:
    """The module's step, compiled at the first batch; with `captures` once for each shape, else for all together.

    CUDA graphs replay it if it `captures`, Inductor compiles it if it `compiles`, unless a backend of torch.compile is
    given. The module is on its device.
    """
    # at the limit it would raise instead of compiling one more length
    public: Any = getattr(torch.compiler, "config", None)
    limits: Any = public if hasattr(public, "recompile_limit") else torch._dynamo.config  # in older versions
    limits.recompile_limit = max(limits.recompile_limit, _GRAPHS)
    device, is_cast = module.device.type, False
    made = torch.compile(
        module.refreshed_loss,
        fullgraph=True,
        dynamic=not captures,
        backend=backend or ("inductor" if compiles else "cudagraphs"),
        mode="reduce-overhead" if captures and compiles and backend is None else None,
    )

    def step(batch: Batch) -> tuple[Tensor, Tensor]:
        nonlocal is_cast
        if not is_cast and torch.is_autocast_enabled(device):
            cast_for_compiling(module.model, torch.get_autocast_dtype(device))
        is_cast = True
        if module.rank_allocation is not None:
            module.rank_allocation.note_moment()
        if captures:
            torch.compiler.cudagraph_mark_step_begin()
        tensors = {name: value for name, value in batch.items() if name == "inputs" or isinstance(value, Tensor)}
        return made(cast(Batch, tensors))

    return step
