"""Loading a pretrained backbone with a fresh head, and telling the two apart."""

import io
import pickle
from contextlib import redirect_stderr
from functools import lru_cache
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from common.backbones import locate_backbone, pretrained_arguments
from common.errors import InputError

# What transformers raises for a folder that is missing, damaged or made by something else.
_UNUSABLE = (OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError, EOFError, SafetensorError)


def load_backbone(
    auto_class: Any, backbone: str, revision: str | None = None, **settings: Any
) -> tuple[Any, tuple[str, ...]]:
    """`load_pretrained`, and the names of the modules that make up the head.

    The head is everything outside the base model, and every module the checkpoint has no weights for: those
    start at random, so freezing them would be a mistake.
    """
    model, fresh = load_pretrained(auto_class, backbone, revision, **settings)
    return model, _head_modules(model, fresh)


def load_whole(
    auto_class: Any, backbone: str, revision: str | None = None, **settings: Any
) -> tuple[Any, tuple[str, ...]]:
    """`load_backbone` for a model that was trained to its end: nothing in it may start at random.

    Raises:
        InputError: it lacks a weight, or has one of another shape; see also `load_pretrained`.
    """
    model, fresh = load_pretrained(auto_class, backbone, revision, **settings)
    if fresh:
        raise InputError(
            f"the model in {backbone} has no weights that fit for {sorted(fresh)[0]} (and {len(fresh) - 1} more), "
            "which would be random: it is damaged, or made for other labels; allowed: the data it was exported for. "
            "Leave the --data settings as its config.yaml has them, or export the run again."
        )
    return model, _head_modules(model, ())


@lru_cache(maxsize=4)
def load_skeleton(auto_class: Any, backbone: str, revision: str | None = None) -> tuple[Any, tuple[str, ...]]:
    """The backbone's shape alone, on the meta device, and the names of its head's modules; copy it before changes.

    Only the configuration is read, so a head that a checkpoint lacks inside the base model isn't known here.

    Raises:
        InputError: nothing can be loaded under this name, or the hub can't be reached.
    """
    from transformers import AutoConfig

    _quiet_transformers()
    source, arguments = pretrained_arguments(locate_backbone(backbone))
    try:
        config = AutoConfig.from_pretrained(source, revision=revision or "main", trust_remote_code=False, **arguments)
        with torch.device("meta"):
            model = auto_class.from_config(config, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise _loading_error(backbone, error) from error
    return model, _head_modules(model, ())


def load_pretrained(
    auto_class: Any, backbone: str, revision: str | None = None, **settings: Any
) -> tuple[Any, set[str]]:
    """Loads a model in float32, in train mode, and names the parameters that the checkpoint has no weights for.

    Args:
        auto_class: a transformers class with `from_pretrained`, such as AutoModelForSequenceClassification.
        backbone: hub name, folder, GGUF file, or `package:NAME` (common.backbones).
        revision: branch, tag or commit on the hub.
        settings: passed on, such as num_labels.

    Raises:
        InputError: nothing can be loaded under this name, or the hub can't be reached.
    """
    _quiet_transformers()
    source, arguments = pretrained_arguments(locate_backbone(backbone))
    if arguments:
        model, information = _from_gguf(auto_class, backbone, source, revision, {**settings, **arguments})
    else:
        model, information = _from_pretrained(auto_class, backbone, source, revision, settings)
    # from_pretrained returns a model in eval mode and Lightning keeps what it finds: dropout would be off.
    model.train()
    # a tensor of another shape starts at random as well
    mismatched = {name for name, *_ in information["mismatched_keys"]}
    return model, {*information["missing_keys"], *mismatched}


def _from_pretrained(
    auto_class: Any, backbone: str, source: str, revision: str | None, settings: dict[str, Any]
) -> Any:
    try:
        return auto_class.from_pretrained(
            source,
            revision=revision or "main",
            dtype=torch.float32,  # a half-precision checkpoint would lose R, which starts at 1e-5
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            trust_remote_code=False,
            **settings,
        )
    except pickle.UnpicklingError as error:  # its own message recommends to trust the file
        reason = "its weights are a pickle that holds more than tensors, or is damaged; a .safetensors file can't."
        raise _loading_error(backbone, ValueError(reason)) from error
    except _UNUSABLE as error:
        raise _loading_error(backbone, error) from error


def _from_gguf(auto_class: Any, backbone: str, source: str, revision: str | None, settings: dict[str, Any]) -> Any:
    from transformers import GgufConfig

    dequantized = GgufConfig(dequantize=True)  # else weights stay in blocks of four bits
    # transformers draws a bar on standard error while it unpacks the file, whatever its settings say
    with redirect_stderr(io.StringIO()):
        return _from_pretrained(
            auto_class, backbone, source, revision, {**settings, "quantization_config": dequantized}
        )


def _head_modules(model: nn.Module, missing_keys: Any) -> tuple[str, ...]:
    prefix = getattr(model, "base_model_prefix", "")
    outside = [
        name for name, child in model.named_children() if name != prefix and any(True for _ in child.parameters())
    ]
    fresh = {key.rpartition(".")[0] for key in missing_keys}
    inside = [
        name for name in sorted(fresh) if not any(name == path or name.startswith(f"{path}.") for path in outside)
    ]
    return tuple(outside + inside)


def _quiet_transformers() -> None:
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def _loading_error(backbone: str, error: Exception) -> InputError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return InputError(
        f"backbone {backbone!r} can't be loaded: {reason} Allowed: a hub name such as roberta-large (needs the hub, "
        "or a copy in its cache: set HF_HOME), a folder written by save_pretrained, or package:NAME for an installed "
        "model package. Pass --model.backbone, or try `--config quickstart.yaml`, which needs no hub."
    )
