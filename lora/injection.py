"""Choosing the layers to adapt by name, replacing them, and freezing the rest."""

from collections.abc import Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from torch import nn

from common.errors import InputError
from lora.layers import LINEAR_TYPES
from lora.packed_linear import FrozenLinear

# The layers that LoRA-XS adapts in RoBERTa (query, value, both output projections), by their names elsewhere.
DEFAULT_TARGETS: dict[str, tuple[str, ...]] = {
    "bert": ("query", "value", "attention.output.dense", "output.dense"),
    "roberta": ("query", "value", "attention.output.dense", "output.dense"),
    "xlm-roberta": ("query", "value", "attention.output.dense", "output.dense"),
    "electra": ("query", "value", "attention.output.dense", "output.dense"),
    "mpnet": ("attention.attn.q", "attention.attn.v", "attention.attn.o", "output.dense"),
    "distilbert": ("q_lin", "v_lin", "out_lin", "ffn.lin2"),
    "deberta-v2": ("query_proj", "value_proj", "attention.output.dense", "output.dense"),
    "gpt2": ("attn.c_attn", "attn.c_proj", "mlp.c_proj"),
    "llama": ("q_proj", "v_proj", "o_proj", "down_proj"),
}


def default_targets(model_type: str, model: nn.Module) -> tuple[str, ...]:
    """The default targets of an architecture (`model.config.model_type`).

    Raises:
        InputError: the architecture isn't in the table; the message lists the model's linear layers.
    """
    if model_type in DEFAULT_TARGETS:
        return DEFAULT_TARGETS[model_type]
    raise InputError(
        f"targets is 'default', but there are no default targets for model type {model_type!r}; known types: "
        f"{', '.join(sorted(DEFAULT_TARGETS))}. Name the layers with model.adapter.targets; this model has "
        f"linear layers called {', '.join(_endings(_linear_names(model)))}."
    )


def find_layers(model: nn.Module, targets: Sequence[str], head: Sequence[str] = ()) -> dict[str, nn.Module]:
    """The linear layers that any target matches, in the model's order, by full module path.

    A target matches whole dotted components at the end of a path (`query`, `attention.output.dense`), and may
    hold the wildcards * and ? (`layer.1*.attention.self.query`).

    Args:
        model: the model to look through.
        targets: at least one name or pattern.
        head: module paths that train in full and so can't be adapted.

    Raises:
        InputError: a target matches nothing (the message lists near misses), or something that can't be adapted.
    """
    if not targets:
        raise InputError("targets is empty; allowed: at least one layer name or pattern, such as query.")
    modules = {name: module for name, module in model.named_modules() if name}  # without the model itself
    chosen: set[str] = set()
    for target in targets:
        matched = [name for name in modules if fnmatchcase(name, target) or fnmatchcase(name, f"*.{target}")]
        if not matched:
            raise _no_match(target, _linear_names(model))
        for name in matched:
            _check_adaptable(target, name, modules[name], head)
        chosen.update(matched)
    return {name: module for name, module in modules.items() if name in chosen}


def replace_module(model: nn.Module, name: str, replacement: nn.Module) -> None:
    """Puts a module in the place of the one with this full path."""
    parent, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(parent), attribute, replacement)


def freeze(model: nn.Module, trainable: Sequence[str]) -> None:
    """Freezes every parameter but those of the modules with these full paths."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(name == path or name.startswith(f"{path}.") for path in trainable))


def pack_frozen_layers(model: nn.Module) -> None:
    """Lets frozen linear layers use packed weights where they can (lora.packed_linear)."""
    for name, module in list(model.named_modules()):
        if type(module) is nn.Linear and not module.weight.requires_grad:
            replace_module(model, name, FrozenLinear(module))


def _check_adaptable(target: str, name: str, module: nn.Module, head: Sequence[str]) -> None:
    if any(name == path or name.startswith(f"{path}.") for path in head):
        raise InputError(
            f"target {target!r} matches {name}, which belongs to the head and trains in full; allowed: layers of "
            f"the backbone. Use a longer name or pattern that leaves out {name}."
        )
    if not isinstance(module, LINEAR_TYPES):
        raise InputError(
            f"target {target!r} matches {name}, a {type(module).__name__}; allowed: "
            f"{' and '.join(kind.__name__ for kind in LINEAR_TYPES)} layers. Use a longer name or pattern."
        )


def _linear_names(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, LINEAR_TYPES)]


def _endings(names: Sequence[str], most: int = 12) -> list[str]:
    """Distinct layer names without the part up to their index: encoder.layer.3.output.dense -> output.dense."""
    endings: dict[str, None] = {}
    for name in names:
        components = name.split(".")
        numbered = [place for place, component in enumerate(components) if component.isdigit()]
        endings[".".join(components[numbered[-1] + 1 :]) if numbered else name] = None
    return list(endings)[:most]


def _no_match(target: str, names: Sequence[str]) -> InputError:
    endings = _endings(names, most=1000)
    near = get_close_matches(target, endings, n=5, cutoff=0.4)
    near += [ending for ending in endings if target.split(".")[-1] in ending and ending not in near]
    listed = near[:5] or endings[:12]
    return InputError(
        f"target {target!r} matches no layer of the model; {'near misses' if near else 'its linear layers'}: "
        f"{', '.join(listed)}. Correct model.adapter.targets."
    )
