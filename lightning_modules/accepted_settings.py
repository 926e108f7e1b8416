"""Which callbacks an adapter needs, and which of the trainer's settings suit what is trained."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping

from callbacks.adalora_allocation import AdaLoRAAllocation
from callbacks.alpha_growth import AlphaGrowth
from callbacks.budget_schedule import BudgetSchedule
from callbacks.divergence import Divergence
from callbacks.gradient_directions import EVAInitialisation, GradientDirections
from callbacks.merged_evaluation import MergedEvaluation
from callbacks.nested_ranks import NestedRankSampling
from callbacks.rank_discretisation import RankDiscretisation
from callbacks.run_ends import StaysStopped, WholeSteps
from common.errors import InputError
from lightning_modules.attention_masks import attention_of
from lightning_modules.peft_adapter import PEFTAdapter
from lora.adapter import Adapter
from lora.nested import NestedRanks

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from lightning_modules.adapted_module import AdaptedModule

_PRECISIONS = ("32-true", "64-true", "bf16-mixed", "16-mixed")


def callbacks_for(adapter: Adapter | None, present: Sequence[Callback]) -> list[Callback]:
    """What training and evaluating an adapter needs to be right, beside the callbacks that are present."""
    needed: list[Callback] = [WholeSteps(), Divergence()]
    if adapter is not None and adapter.allocates_ranks:
        needed += [BudgetSchedule(), AlphaGrowth(), RankDiscretisation()]
    if adapter is not None and adapter.gradient_pass is not None:
        needed.append(GradientDirections())
    if isinstance(adapter, NestedRanks):
        needed.append(NestedRankSampling())
    if isinstance(adapter, PEFTAdapter):
        needed += [AdaLoRAAllocation(), EVAInitialisation()]
    if any(isinstance(callback, EarlyStopping) for callback in present):
        needed.append(StaysStopped())
    return [*needed, MergedEvaluation()]


def check_precision(module: "AdaptedModule") -> None:
    """Refuses a precision, or ways to save memory, that don't suit what is trained, or each other.

    `InputError`: see above; the module must have a trainer.
    """
    precision = str(module.trainer.precision)
    if precision not in _PRECISIONS:
        raise InputError(
            f"trainer.precision is {precision}, in which weights that start at 1e-5 and their updates are rounded "
            "away; allowed: 32-true, bf16-mixed or 16-mixed (what is trained stays in 32 bits), or 64-true. Set "
            "--trainer.precision."
        )
    if (module.gradient_checkpointing or not module.storage.is_plain) and (module.compiles or module.captures):
        raise InputError(
            "model.compile or model.cuda_graphs is true with model.gradient_checkpointing, backbone_dtype or "
            "quantization, which weren't tried together; allowed: either. Leave one of them out."
        )
    if module.storage.is_plain:
        return
    storage, adapter = module.storage, module.adapter
    asked = f"model.backbone_dtype is {storage.dtype} and model.quantization is {storage.quantization}"
    if isinstance(adapter, PEFTAdapter) or (adapter is None and module.trainer.state.fn == "fit"):
        name = "null (full fine-tuning)" if adapter is None else adapter.name
        raise InputError(
            f"{asked}, but the adapter is {name}; allowed: the adapters of lora, such as lora.LoRA, under which "
            "the backbone stays frozen. Set --model.adapter, or leave these two out."
        )
    if precision == "64-true":
        raise InputError(
            f"{asked}, but trainer.precision is 64-true; allowed: 32-true, bf16-mixed or 16-mixed. Set "
            "--trainer.precision, or leave these two out."
        )


def check_attention(module: "AdaptedModule", model: "PreTrainedModel") -> None:
    """Raises `InputError` where the backbone asks for an attention that can't run on the trainer's device."""
    asked, precision = attention_of(model), str(module.trainer.precision)
    device = module.trainer.strategy.root_device.type
    if "flash" in asked and ("mixed" not in precision or device != "cuda"):
        raise InputError(
            f"backbone {module.backbone_name!r} asks for {asked}, which runs in 16 bits on a GPU alone; this is "
            f"{precision} on {device}; allowed: --trainer.precision bf16-mixed on a GPU, or no attn_implementation "
            "in its config.json: torch's own attention gives the same answers."
        )
