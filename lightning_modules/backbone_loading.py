"""Loading a pretrained backbone with a fresh head, and telling the two apart."""

import io
import pickle
from collections.abc import Iterable, Sequence
from contextlib import redirect_stderr
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.utils import is_accelerate_available

from common.backbones import adapter_as_backbone, locate_backbone, pretrained_arguments
from common.errors import InputError, reason
from common.terminal import logger
from lora.injection import is_inside

# What transformers raises for a folder that is missing, damaged or made by something else.
_UNUSABLE = (
    ImportError,
    OSError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    RuntimeError,
    EOFError,
    ArithmeticError,
    AssertionError,
    StrictDataclassError,
    SafetensorError,
)

AutoClass = type[Any]  # such as AutoModelForSequenceClassification; what they have in common isn't public
Loaded = tuple[PreTrainedModel, tuple[str, ...]]  # a model, and the modules of its head
_QUANTISED = ("quantization_config", "compression_config")  # settings of a configuration whose weights are packed


def load_backbone(
    auto_class: AutoClass, backbone: str, revision: str | None = None, whole: bool = False, **settings: object
) -> Loaded:
    """`load_pretrained`, and the names of the modules that make up the head.

    The head is everything outside the base model, and a pooler that the files hold no weights for: that one starts at
    random, so freezing it would be a mistake. A `whole` model needs all its weights: an export, a language model.
    `InputError`: anything else would start at random; see also `load_pretrained`.
    """
    model, loading = load_pretrained(auto_class, backbone, revision, **settings)
    head = _head_modules(model, () if whole else _fresh(loading))
    _refuse_random(backbone, loading, *(((), "nothing") if whole else (head, "a head or a pooler")))
    return model, head


@lru_cache(maxsize=4)
def load_skeleton(auto_class: AutoClass, backbone: str, revision: str | None = None, whole: bool = False) -> Loaded:
    """The backbone's shape alone, on the meta device, and the names of its head's modules; copy it before changes.

    Of a folder the names and shapes of the weights are compared, too, where accelerate is installed. Of a name on the
    hub only the configuration is read: a head that its files lack inside the base model isn't known here. `InputError`:
    nothing can be loaded under this name, or the hub can't be reached; or see `load_backbone`.
    """
    _quiet_transformers()
    source, arguments = pretrained_arguments(locate_backbone(backbone))
    if not arguments and Path(source).is_dir() and is_accelerate_available():
        return load_backbone(auto_class, backbone, revision, whole, device_map="meta")
    config = _configuration(backbone, source, revision, arguments)
    try:
        with torch.device("meta"):
            model = auto_class.from_config(config, trust_remote_code=False)
    except _UNUSABLE as error:
        raise _loading_error(backbone, error) from error
    return model, _head_modules(model, ())


def load_pretrained(
    auto_class: AutoClass, backbone: str, revision: str | None = None, **settings: object
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Loads a model in float32, in train mode, and tells what in it the files have no weights for.

    `InputError`: nothing can be loaded under this name, or the hub can't be reached; or it is quantised, or an adapter.

    Args:
        auto_class: a transformers class with `from_pretrained`, such as AutoModelForSequenceClassification.
        backbone: hub name, folder, GGUF file, or `package:NAME` (common.backbones).
        revision: branch, tag or commit on the hub.
        settings: passed on, such as num_labels.

    Returns:
        The model, and transformers' own account: missing_keys, mismatched_keys with both shapes, unexpected_keys.
    """
    _quiet_transformers()
    source, arguments = pretrained_arguments(locate_backbone(backbone))
    if arguments:
        model, information = _from_gguf(auto_class, backbone, source, revision, {**settings, **arguments})
    else:
        _configuration(backbone, source, revision, {})
        model, information = _from_pretrained(auto_class, backbone, source, revision, settings)
    if hasattr(model.config, "rescale_every"):
        model.config.rescale_every = 0  # RWKV halves weights to evaluate, for float16: an update of theirs stays whole
    if not next(model.parameters()).is_meta:
        _tell_unused(backbone, model, information["unexpected_keys"])
    # from_pretrained returns a model in eval mode and Lightning keeps what it finds: dropout would be off.
    model.train()
    return model, information


def first_answer(model: PreTrainedModel, **inputs: Any) -> Tensor:
    """The logits of a model that nothing was asked yet.

    `InputError`: it needs more than tokens, such as images; no row can be given to its configuration; or its weights
    are no numbers.
    """
    try:
        logits = model(**inputs).logits
    except _UNUSABLE as error:
        raise InputError(
            f"a {model.config.model_type} with this config.json can't answer a row of tokens: "
            f"{reason(error) or type(error).__name__} Allowed: a backbone that needs no images, layouts or other "
            "inputs. Correct its config.json, or set --model.backbone to another."
        ) from error
    if logits.isnan().any():
        odd = next((name for name, weight in model.named_parameters() if not weight.isfinite().all()), "none of them")
        raise InputError(
            f"a {model.config.model_type} answers a row of tokens with what is no number; weights that aren't finite: "
            f"{odd}. Its files are damaged: fetch or save them again."
        )
    return logits


def _configuration(backbone: str, source: str, revision: str | None, arguments: dict[str, str]) -> PretrainedConfig:
    """The backbone's configuration; `InputError`: there is none, it is an adapter's, or that of quantised weights."""
    from transformers import AutoConfig
    from transformers.utils import find_adapter_config_file

    revision = revision or "main"
    try:
        if not arguments and find_adapter_config_file(source, revision=revision) is not None:
            raise adapter_as_backbone(backbone)
        config = AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=False, **arguments)
    except _UNUSABLE as error:
        raise _loading_error(backbone, error) from error
    layers = getattr(config.get_text_config(), "num_hidden_layers", 1)
    if isinstance(layers, int) and layers < 1:
        raise InputError(
            f"backbone {backbone!r} has {layers} layers by its config.json; allowed: 1 or more. Correct it, or fetch "
            "the model again."
        )
    held = [getattr(part, name, None) for part in (config, config.get_text_config()) for name in _QUANTISED]
    if found := next(filter(None, held), None):
        method = found.get("quant_method") if isinstance(found, dict) else type(found).__name__
        raise InputError(
            f"backbone {backbone!r} is quantised ({method or 'quantization_config'}, by its config.json), and packed "
            "weights can't be adapted, trained or merged here; allowed: weights in float32, bfloat16 or float16, or a "
            ".gguf file, which is unpacked. Give the model it was made from with --model.backbone."
        )
    return config


def _from_pretrained(
    auto_class: AutoClass, backbone: str, source: str, revision: str | None, settings: dict[str, object]
) -> tuple[PreTrainedModel, dict[str, Any]]:
    try:
        return auto_class.from_pretrained(
            source,
            revision=revision or "main",
            dtype=torch.float32,  # a half-precision checkpoint would lose R, which starts at 1e-5
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            return_dict=True,  # whatever its config.json asks for
            trust_remote_code=False,
            **settings,
        )
    except pickle.UnpicklingError as error:  # its own message recommends to trust the file
        instead = "its weights are a pickle that holds more than tensors, or is damaged; a .safetensors file can't."
        raise _loading_error(backbone, ValueError(instead)) from error
    except _UNUSABLE as error:
        raise _loading_error(backbone, error) from error


def _from_gguf(
    auto_class: AutoClass, backbone: str, source: str, revision: str | None, settings: dict[str, object]
) -> tuple[PreTrainedModel, dict[str, Any]]:
    from transformers import GgufConfig

    dequantized = GgufConfig(dequantize=True)  # else weights stay in blocks of four bits
    # transformers draws a bar on standard error while it unpacks the file, whatever its settings say
    with redirect_stderr(io.StringIO()):
        return _from_pretrained(
            auto_class, backbone, source, revision, {**settings, "quantization_config": dequantized}
        )


def _head_modules(model: nn.Module, fresh: Iterable[str]) -> tuple[str, ...]:
    base, parts = model.base_model, model.named_children()
    # without a base model of its own, which weights are pretrained can't be told: nothing may be missing then
    outside = [name for name, part in parts if base is not model and part is not base and list(part.parameters())]
    poolers = {name.rpartition(".")[0] for name in fresh if "pooler" in name.split(".")}
    return (*outside, *sorted(name for name in poolers if not is_inside(name, outside)))


def _fresh(loading: dict[str, Any]) -> list[str]:
    """Parameters that start at random: without weights in the files, or with some of another shape."""
    return sorted({*loading["missing_keys"], *(name for name, *_ in loading["mismatched_keys"])})


def _refuse_random(backbone: str, loading: dict[str, Any], head: Sequence[str], allowed: str) -> None:
    """Raises `InputError` if something outside these modules has no weights in the files."""
    refused = [name for name in _fresh(loading) if not is_inside(name, head)]
    if not refused:
        return
    shapes = {name: shapes for name, *shapes in loading["mismatched_keys"]}
    name = next((name for name in refused if name in shapes), refused[0])
    shape = ": its shape is {} there and {} by config.json".format(*map(tuple, shapes[name])) if name in shapes else ""
    unused = sorted(loading["unexpected_keys"])
    instead = f" They hold {unused[0]} (and {len(unused) - 1} more) instead." if unused else ""
    raise InputError(
        f"the files of backbone {backbone!r} have no weights that fit for {name}{shape} (and {len(refused) - 1} more), "
        f"so they would be random; what may start at random: {allowed}.{instead} Save the whole model again with "
        "save_pretrained, out of its wrapper (torch.compile's _orig_mod, DDP's module), beside its own config.json; or "
        "use the class and the labels that it was trained for."
    )


def _tell_unused(backbone: str, model: PreTrainedModel, names: Iterable[str]) -> None:
    """Warns where the files hold more of the model's body than it has, such as layers that config.json leaves out.

    Buffers of older versions don't count; what stands beside a weight does: a bias, or the scales of packed weights.
    """
    prefix = f"{model.base_model_prefix}."
    parts = {name for name, _ in model.base_model.named_children()}
    holders = {name.rpartition(".")[0] for name, _ in model.base_model.named_parameters()}
    own = {name: name.removeprefix(prefix) for name in sorted(names)}
    weights = [name for name in own if name.endswith(".weight") or own[name].rpartition(".")[0] in holders]
    weights = [name for name in weights if own[name].partition(".")[0] in parts]
    if weights:
        logger.warning(
            f"The files of backbone {backbone!r} hold {weights[0]} (and {len(weights) - 1} more), which the model of "
            "its config.json has no place for: it is trained without them."
        )


def _quiet_transformers() -> None:
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def _loading_error(backbone: str, error: Exception) -> InputError:
    said = reason(error) or type(error).__name__
    if isinstance(error, ImportError):
        return InputError(
            f"backbone {backbone!r} asks for a package that can't be used here: {said} Install it, or take what asks "
            "for it out of config.json (attn_implementation: torch's own attention gives the same answers)."
        )
    return InputError(
        f"backbone {backbone!r} can't be loaded: {said} Allowed: a hub name such as roberta-large (needs the hub, "
        "or a copy in its cache: set HF_HOME), a folder written by save_pretrained, or package:NAME for an installed "
        "model package. Pass --model.backbone, or try `--config quickstart.yaml`, which needs no hub."
    )
