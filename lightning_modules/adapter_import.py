"""Starting from an adapter that was trained before: a native export, or any folder with a PEFT LoRA."""

import pickle
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from common.errors import InputError
from common.files import load_json
from common.terminal import logger
from lightning_modules.backbone_sketch import (
    backbone_sketch,
    check_configuration,
    check_data,
    check_files,
    check_sketch,
    computation_identity,
    refuse_other_backbone,
)
from lightning_modules.native_adapter import FILE_NAME, NativeAdapter
from lightning_modules.peft_adapter import PEFTAdapter
from lightning_modules.peft_methods import import_peft
from lora.adapter import Adapter, LowRankFactors
from lora.export import merge, plain_weights, shares_weight
from lora.injection import is_inside
from lora.layers import LINEAR_TYPES, dense_weight
from lora.lora_xs import LoRAXS

if TYPE_CHECKING:
    from lightning_modules.adapted_module import AdaptedModule

PEFT_FILE_NAME = "adapter_config.json"
# Settings of a PEFT folder under which its two factors are not the update, or PEFT reads or imports something else.
_NOT_PLAIN = (
    "use_dora",
    "lora_bias",
    "trainable_token_indices",
    "megatron_config",
    "layer_replication",
    "corda_config",
    "eva_config",
    "loftq_config",
    "lora_ga_config",
    "arrow_config",
    "target_parameters",
    "alora_invocation_tokens",
    "use_qalora",
    "monteclora_config",
    "use_bdlora",
    "kasa_config",
)
_PEFT_PREFIX = "base_model.model."  # of each name that PEFT saves
_MERGED = ("VERA", "ADALORA", "TINYLORA")  # beside DoRA: methods whose update can be added to the weights
_PLAIN_STARTS = (None, True, False, "gaussian", "orthogonal")  # others change the frozen weights as well


def export_kind(folder: Path) -> str:
    """What lies in a folder: native, peft or merged; `InputError`: none of them, or no folder."""
    for name, kind in ((FILE_NAME, "native"), (PEFT_FILE_NAME, "peft"), ("config.json", "merged")):
        if (folder / name).is_file():
            return kind
    there = ", ".join(sorted(path.name for path in folder.iterdir())[:5]) if folder.is_dir() else "no such folder"
    raise InputError(
        f"{folder} holds no exported adapter ({there or 'it is empty'}); allowed: a folder written by `python cli.py "
        f"export` or a PEFT LoRA folder, with {FILE_NAME}, {PEFT_FILE_NAME} or config.json in it."
    )


def adapter_kind(source: str) -> str:
    """Whether the folder that `init_from` names is native or peft; `InputError`: it is neither."""
    kind = export_kind(Path(source).expanduser())
    if kind == "merged":
        raise InputError(f"init_from is {source!r}, a whole model; give it with --model.backbone {source} instead.")
    return kind


def import_adapter(module: "AdaptedModule", source: str) -> None:
    """Puts an exported adapter and its head into a freshly loaded module.

    LoRA-XS takes over R from a native export of LoRA-XS; lora.LoRA takes over the factors of any; without an adapter
    the update is added to the weights. The module's model is loaded and adapted; the source is a folder. `InputError`:
    nothing there to import, another backbone, other frozen factors, layers or head.
    """
    folder, kind = Path(source).expanduser(), adapter_kind(source)
    check_files(folder)
    if isinstance(module.adapter, PEFTAdapter):  # its layers have names of PEFT's own: nothing below would find them
        module.adapter.load_low_rank_factors({})  # says that it can't
    head = _import_native(module, folder) if kind == "native" else _import_peft(module, folder)
    _refuse_what_would_be_lost(module, head, folder)
    load_head(module.model, head)
    anew = "; it has no head, so the head starts anew" if module.head_modules and not head else ""
    logger.info(f"Starting from the {kind} adapter in {folder}{anew}.")


def load_head(model: nn.Module, head: dict[str, Tensor]) -> None:
    """Copies the head's weights, by their names in the model; `InputError`: the model's head has other weights."""
    state = model.state_dict()
    for name, weight in head.items():
        if name not in state or state[name].shape != weight.shape:
            ours = tuple(state[name].shape) if name in state else "absent"
            raise InputError(
                f"the exported head has {name} with shape {tuple(weight.shape)}, here it is {ours}; allowed: the same "
                "task and model class. Export without the head (--without_head) to start another task."
            )
    with torch.no_grad():
        for name, weight in head.items():
            state[name].copy_(weight)


def _refuse_what_would_be_lost(module: "AdaptedModule", head: dict[str, Tensor], folder: Path) -> None:
    """Checkpoints and exports of a run hold what it trains and its head, and nothing else of its model."""
    lost = [name for name in head if not is_inside(name, module.head_modules)]
    if lost and module.adapter is not None and module.trainer.state.fn == "fit":
        raise InputError(
            f"the adapter in {folder} holds its own {lost[0]} (and {len(lost) - 1} more), which this run would freeze "
            "and wouldn't save; allowed: adapters that change linear layers and the head. Merge it into its backbone "
            "(PEFT's merge_and_unload, then save_pretrained), and give that folder with --model.backbone."
        )


def native_low_rank_factors(native: NativeAdapter, model: nn.Module, adapted: tuple[str, ...] = ()) -> LowRankFactors:
    """Plain LoRA factors of a native export for a model, after checking that it is the right one.

    The model is a freshly loaded backbone; `adapted` are full paths of its layers that are wrapped by an adapter.
    """
    _check_backbone(native, model, adapted)
    # in the model's order: fingerprints have a row per layer
    named = {name.removesuffix(".base"): module for name, module in model.named_modules()}
    wanted = set(native.layer_names)
    layers = {name: module for name, module in named.items() if name in wanted and isinstance(module, LINEAR_TYPES)}
    if absent := sorted(wanted - set(layers)):
        raise InputError(
            f"the exported adapter changes {absent[0]} (and {len(absent) - 1} more layers) that this model doesn't "
            "have under these names; allowed: the same model class, as the run's version of transformers named it."
        )
    return native.low_rank_factors({name: dense_weight(layer) for name, layer in layers.items()})


def _check_backbone(native: NativeAdapter, model: nn.Module, adapted: tuple[str, ...]) -> None:
    ours = backbone_sketch(plain_weights(model, adapted), native.description["head"])
    refuse_other_backbone(ours, native.tensors["backbone_sketch"], native.description["backbone"])
    check_configuration(computation_identity(model), native.description, "the exported adapter")


def _import_native(module: "AdaptedModule", folder: Path) -> dict[str, Tensor]:
    native, adapter = NativeAdapter.read(folder), module.adapter
    check_data(module.data_about, native.description, f"the adapter in {folder}", bool(native.head))
    names = adapter.layer_names if adapter is not None else ()
    if isinstance(adapter, LoRAXS) and native.is_lora_xs:
        _check_backbone(native, module.model, names)
        native.check_factors(adapter.fingerprint)
        ratio = native.description["scale"] / adapter.scaling  # the same update under another scale
        adapter.load_blocks({name: ratio * block for name, block in native.blocks.items()}, native.frozen_factors)
    else:
        _take_over(module, native_low_rank_factors(native, module.model, names))
    return native.head


def _import_peft(module: "AdaptedModule", folder: Path) -> dict[str, Tensor]:
    plain, _ = module.load_model()
    if not _is_plain_lora(folder, others=module.adapter is None):
        loaded = _load_peft(plain, folder, module.data_about)
        base, heads = loaded.get_base_model(), tuple(loaded.peft_config["default"].modules_to_save or ())
        layers = (name for name, _ in base.named_modules() if name.endswith(".base_layer"))
        if tied := next((name for name in layers if shares_weight(base, name)), None):
            raise InputError(
                f"the adapter in {folder} changes {tied.removesuffix('.base_layer')}, which shares its weight with "
                "another layer, so it can't be added to the weights. Export the run with --format merged."
            )
        state = loaded.merge_and_unload(safe_merge=True).state_dict()
        module.model.load_state_dict(state)
        return {name: weight for name, weight in state.items() if is_inside(name, heads)}
    factors, head = peft_low_rank_factors(plain, folder, module.data_about)
    _take_over(module, factors)
    return head


def _take_over(module: "AdaptedModule", factors: LowRankFactors) -> None:
    adapter: Adapter | None = module.adapter
    if adapter is None:
        if module.trainer.state.fn == "fit" and (tied := [n for n in factors if shares_weight(module.model, n)]):
            raise InputError(
                f"the adapter changes {tied[0]}, which shares its weight with another layer: with --model.adapter null "
                "the two would be trained as one again; allowed: an adapter such as lora.LoRA to go on with it."
            )
        merge(module.model, factors)
    else:
        adapter.load_low_rank_factors(factors)


def peft_low_rank_factors(
    model: nn.Module, folder: Path, data: dict[str, Any] | None = None
) -> tuple[LowRankFactors, dict[str, Tensor]]:
    """Plain LoRA factors, scale included, and head weights of a PEFT LoRA folder, as PEFT itself reads them.

    `InputError`: PEFT is missing, the folder holds something else than plain LoRA for this backbone, or was exported
    from a run with another backbone.

    Args:
        model: the backbone, freshly loaded; it is changed.
        folder: what PEFT's `save_pretrained` wrote.
        data: `data_identity` of the data here, to be compared with an export's.
    """
    _is_plain_lora(folder, others=False)
    loaded = _load_peft(model, folder, data)
    peft = import_peft("this")
    factors: LowRankFactors = {}
    for name, layer in loaded.get_base_model().named_modules():
        if isinstance(layer, peft.tuners.lora.LoraLayer):
            if not isinstance(layer.get_base_layer(), LINEAR_TYPES):
                raise InputError(
                    f"the adapter in {folder} adapts {name}, which is no linear layer; this can't be used."
                )
            A, B = layer.lora_A["default"].weight, layer.lora_B["default"].weight
            factors[name] = (A.detach().float().clone(), layer.scaling["default"] * B.detach().float())
    # trained in full, or saved because they might have been: PEFT has put them into `loaded`
    weights = peft.load_peft_weights(str(folder), device="cpu").items()
    return factors, {name.removeprefix(_PEFT_PREFIX): weight for name, weight in weights if ".lora_" not in name}


def _load_peft(model: nn.Module, folder: Path, data: dict[str, Any] | None) -> Any:
    """PEFT's own model of the adapter in a folder, all of whose weights were used."""
    peft = import_peft(f"the adapter in {folder} is a PEFT folder, which")
    about = check_sketch(folder, model)
    if data is not None:
        check_data(data, about, f"the adapter in {folder}", with_head=True)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Found missing adapter keys")  # refused below
            warnings.filterwarnings("ignore", message="The following rank_pattern keys did not match")  # of AdaLoRA
            config = peft.PeftConfig.from_pretrained(folder)
            config.base_model_name_or_path = None  # the sketch knows better than a name
            loaded = peft.get_peft_model(model, config)
            keys = loaded.load_adapter(folder, "default")  # unlike from_pretrained, says what didn't fit
    except (ValueError, RuntimeError, OSError, KeyError, TypeError, SafetensorError, pickle.UnpicklingError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"the adapter in {folder} doesn't fit this backbone, or is damaged: {reason}") from error
    foreign = [key for key in keys.unexpected_keys if ".lora_" in key]
    for what, odd in (("lacks", keys.missing_keys), ("has more than this backbone takes:", foreign)):
        if odd:
            raise InputError(
                f"the adapter in {folder} {what} {odd[0]} (and {len(odd) - 1} more), so only a part of it would be "
                "used: it is damaged, or of another backbone. Fetch or export it again, or set --model.backbone."
            )
    return loaded


def _is_plain_lora(folder: Path, others: bool) -> bool:
    """Whether it is plain LoRA; with `others`, else another method that can be merged.

    Refuses everything else before PEFT acts on the file: what it says is data, and names nothing to run.
    """
    path = folder / PEFT_FILE_NAME
    try:
        config = load_json(path)
        kind = config.get("peft_type")
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{path} can't be read: {error}. Fetch or export the adapter again.") from error
    odd = [f"{name} {config[name]!r}" for name in _NOT_PLAIN if config.get(name)]
    if config.get("bias", "none") != "none":
        odd.append(f"bias {config['bias']!r}")
    if config.get("init_lora_weights") not in _PLAIN_STARTS:
        odd.append(f"init_lora_weights {config['init_lora_weights']!r}")
    if kind == "LORA" and not odd:
        return True
    if others and ((kind in _MERGED and not odd) or (kind, odd) == ("LORA", ["use_dora True"])):
        return False
    said = ", ".join(odd) or "no other settings"
    raise InputError(
        f"the adapter in {folder} is of type {kind} ({said[:300]}); allowed: plain LoRA without trained biases or "
        "tokens, whose start left the frozen weights as they were; with --model.adapter null also DoRA, VeRA, AdaLoRA "
        "and TinyLoRA, which are added to the weights."
    )
