"""Choosing the layers to adapt by name, replacing them, and freezing the rest."""

from collections.abc import Iterable, Sequence
from copy import deepcopy
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from common.errors import InputError
from common.terminal import logger
from lora.layers import LINEAR_TYPES, dense_weight
from lora.products.frozen_linear import FrozenLinear
from lora.target_names import ARCHITECTURE_TARGETS, KEYWORDS, Targets

_FEW_VALUES = 10**7  # with more, a pass with the values takes longer than one without, which torch follows in Python


def choose_layers(
    model: nn.Module, model_type: str, targets: Targets, head: Sequence[str] = (), rank: int = 1
) -> dict[str, nn.Module]:
    """The linear layers that the setting `targets` stands for, in the model's order, by full module path.

    Layers that can't act (`acting_layers`) are left out and named, and so are those that are too small for the rank
    where nobody has asked for them by name: all-linear also finds gates of a single row. `InputError`: an unknown
    keyword, one that isn't known for this architecture, or see `find_layers`.

    Args:
        model: the model to look through.
        model_type: its architecture (`model.config.model_type`), from which the keywords' layers follow.
        targets: names and patterns (see `find_layers`), or a keyword: `default` (query, value and both output
            projections), `attention` (all its projections), `mlp` (the feed-forward layers) or `all-linear`.
        head: module paths that can't be adapted.
        rank: the least that both sides of a weight must have.
    """
    found = _matching_layers(model, model_type, targets, head)
    acting = acting_layers(model, found)
    if idle := [name for name in found if name not in acting]:
        kinds = ", ".join(_endings(idle))
        if not acting:
            raise InputError(
                f"targets is {targets!r}, but {kinds} can't be adapted: the model reads these weights without calling "
                "their layers, they give more than a product, or no answer depends on them. Choose other layers with "
                "model.adapter.targets."
            )
        why = "the model only reads their weights, they give more than a product, or no answer depends on them"
        logger.info(f"Not adapted, because {why}: {kinds}.")
    found = {name: layer for name, layer in found.items() if name in acting}
    large = {name: layer for name, layer in found.items() if min(dense_weight(layer).shape) >= rank}
    if targets != "all-linear" or not large or len(large) == len(found):
        return found
    kinds = ", ".join(_endings([name for name in found if name not in large]))
    logger.info(f"Not adapted, because a side of their weights is smaller than the rank, {rank}: {kinds}.")
    return large


def _matching_layers(model: nn.Module, model_type: str, targets: Targets, head: Sequence[str]) -> dict[str, nn.Module]:
    if not isinstance(targets, str):
        return find_layers(model, targets, head)
    if targets == "all-linear":
        return _backbone_layers(model, head)
    found = find_layers(model, architecture_targets(targets, model_type, model), head)
    if targets != "mlp":
        return found
    # output.dense also ends the path of attention.output.dense
    attention = find_layers(model, architecture_targets("attention", model_type, model), head)
    return {name: layer for name, layer in found.items() if name not in attention}


def acting_layers(model: nn.Module, names: Iterable[str]) -> set[str]:
    """Which of these layers an answer of the model depends on, when they are called as layers: all others can't learn.

    A model may read a layer's weight without calling it, call it only with another task's inputs, or throw away what
    it gives; a router may give its choice besides, and a layer may multiply group by group. One pass over a few tokens
    tells, on a copy that shares the model's values or has none. Experts count, because which of them are called depends
    on the tokens; so does everything where such a pass is impossible.
    """
    names = tuple(name for name in names if not _is_read_by_kernels(model, name))
    tensors = (*model.parameters(), *model.buffers())
    ways = [tensors, [_without_values(tensor) for tensor in tensors]]
    for held in ways if sum(tensor.numel() for tensor in tensors) <= _FEW_VALUES else reversed(ways):
        tried = deepcopy(model, {id(tensor): its for tensor, its in zip(tensors, held, strict=True)})  # no tensor twice
        try:
            return _probed(tried, names) | {name for name in names if "experts" in name.split(".")}
        except Exception:  # whatever a model does that has no such pass
            continue
    return set(names)


def _is_read_by_kernels(model: nn.Module, name: str) -> bool:
    """Whether a fused kernel reads this layer's weight on a GPU, where Mamba's blocks have one; others call it."""
    parent, _, own = name.rpartition(".")
    block = model.get_submodule(parent)  # one without D, as in Qwen3-Next, has no such kernel
    return own in ("x_proj", "dt_proj", "out_proj") and hasattr(block, "A_log") and hasattr(block, "D")


def _without_values(tensor: Tensor) -> Tensor:
    empty = torch.empty_like(tensor, device="meta")
    return nn.Parameter(empty, False) if isinstance(tensor, nn.Parameter) else empty


def _probed(model: nn.Module, names: Sequence[str]) -> set[str]:
    """The layers among these that the answer for a row of a few tokens has a gradient of; the model is spent then."""
    device = next(model.parameters()).device
    shifts = {name: torch.zeros((), device=device, requires_grad=True) for name in names}
    for name, shift in shifts.items():
        model.get_submodule(name).register_forward_hook(partial(_shifted, shift))
    gradients = _gradients_of_an_answer(model, list(shifts.values()))
    return {name for name, gradient in zip(shifts, gradients, strict=True) if gradient is not None}


def _shifted(shift: Tensor, layer: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> Any:
    """What a layer gives, moved by a shift if by its shape it is x Wᵀ: an update of W can be added to nothing else."""
    shape = (*inputs[0].shape[:-1], len(dense_weight(layer)))
    return output + shift if isinstance(output, Tensor) and output.shape == shape else output


def _gradients_of_an_answer(model: nn.Module, tensors: list[Tensor]) -> tuple[Tensor | None, ...]:
    """Of the answer for a row of a few tokens; None for tensors that it doesn't depend on."""
    device, end = next(model.parameters()).device, getattr(getattr(model, "config", None), "eos_token_id", None)
    ids = torch.tensor([[*range(5, 13), *([end] if isinstance(end, int) else [])]], device=device)  # some look for it
    with torch.enable_grad(), torch.random.fork_rng(devices=[]):
        answer = model.eval()(input_ids=ids)[0]
        return torch.autograd.grad(answer.sum(), tensors, allow_unused=True)


def may_leave_parameters_out(model: Any) -> bool:
    """Whether a training step may have no gradient of a part of what trains, which parallel processes must expect.

    Experts that no token chose, layers that are dropped at random, and parameters that no answer depends on.
    The model is without values, on the meta device, and is spent then.
    """
    drops = [value for name, value in model.config.to_dict().items() if name.endswith("layerdrop")]
    if any(drops) or any("experts" in name.split(".") for name, _ in model.named_parameters()):
        return True
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trained:
        return False  # only an adapter's weights train: every adapted layer acts
    try:
        return any(gradient is None for gradient in _gradients_of_an_answer(model, trained))
    except Exception:  # whatever a model does that has no such pass
        return True


def matrix_sizes(model: nn.Module, head: Sequence[str]) -> dict[str, int]:
    """Entries of each weight of the backbone with two sides or more, by parameter name; embeddings don't count."""
    outputs = _output_embeddings(model)
    embeddings = [module for module in model.modules() if "Embedding" in type(module).__name__ or module is outputs]
    ignored = {id(parameter) for module in embeddings for parameter in module.parameters(recurse=False)}
    return {
        name: parameter.numel()
        for name, parameter in model.named_parameters()
        if parameter.ndim > 1 and id(parameter) not in ignored and not is_inside(name, head)
    }


def describe_share(sizes: dict[str, int], adapted: Sequence[str]) -> str:
    """Which share of the matrices (`matrix_sizes` before adapting) these layers are, and what the rest is called."""
    weights = {f"{name}.weight" for name in adapted}
    share = sum(size for name, size in sizes.items() if name in weights) / max(sum(sizes.values()), 1)
    left = sorted((name for name in sizes if name not in weights), key=lambda name: -sizes[name])
    rest = f"; not adapted: {', '.join(_endings(left))}" if left else ""
    return f"{len(adapted)} layers are adapted, {share:.0%} of the entries of the backbone's weight matrices{rest}."


def architecture_targets(keyword: str, model_type: str, model: nn.Module) -> tuple[str, ...]:
    """The targets that a keyword stands for in an architecture (`model.config.model_type`).

    `InputError`: an unknown keyword, or an architecture that isn't in the table; the message lists the model's linear
    layers.
    """
    if keyword not in ARCHITECTURE_TARGETS:
        raise InputError(
            f"targets is {keyword!r}; allowed: {', '.join(KEYWORDS)}, or a list of layer names and patterns such as "
            f"[{keyword}]. Correct model.adapter.targets."
        )
    known = ARCHITECTURE_TARGETS[keyword]
    if model_type in known:
        return known[model_type]
    raise InputError(
        f"targets is {keyword!r}, but there are no {keyword} targets for model type {model_type!r}; known types: "
        f"{', '.join(sorted(known))}. Name the layers with model.adapter.targets (or all-linear); this model has "
        f"linear layers called {', '.join(_endings(_linear_names(model)))}."
    )


def linear_layers_of(model: nn.Module, paths: Sequence[str]) -> dict[str, nn.Module]:
    """The linear layers that are, or are inside, the modules with these full paths."""
    return {name: model.get_submodule(name) for name in _linear_names(model) if is_inside(name, paths)}


def _backbone_layers(model: nn.Module, head: Sequence[str]) -> dict[str, nn.Module]:
    """Every linear layer but the head's and the output embeddings, which often are the input's own weight."""
    output_embeddings = _output_embeddings(model)
    found = {name: model.get_submodule(name) for name in _linear_names(model) if not is_inside(name, head)}
    found = {name: layer for name, layer in found.items() if layer is not output_embeddings}
    if not found:
        others = ", ".join(_endings(list(matrix_sizes(model, head)))) or "none"
        raise InputError(
            f"targets is 'all-linear', but the backbone has no linear layers; its matrices, which can't be adapted: "
            f"{others}. Use another backbone, or --model.adapter null."
        )
    return found


def _output_embeddings(model: nn.Module) -> nn.Module | None:
    return getattr(model, "get_output_embeddings", lambda: None)()


def find_layers(model: nn.Module, targets: Sequence[str], head: Sequence[str] = ()) -> dict[str, nn.Module]:
    """The linear layers that any target matches, in the model's order, by full module path.

    A target matches whole dotted components at the end of a path (`query`, `attention.output.dense`), and may hold the
    wildcards * and ? (`layer.1*.attention.self.query`). What trains in full (`head`) can't be adapted. `InputError`: a
    target matches nothing (the message lists near misses), or something that can't be adapted.
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
        parameter.requires_grad_(is_inside(name, trainable))


def is_inside(name: str, paths: Sequence[str]) -> bool:
    """Whether a full path is one of these modules or inside one."""
    return any(name == path or name.startswith(f"{path}.") for path in paths)


def prepare_frozen_layers(model: nn.Module) -> None:
    """Lets frozen linear layers prepare their products once where they can (lora.products.frozen_products)."""
    for name, module in list(model.named_modules()):
        if type(module) is nn.Linear and not any(parameter.requires_grad for parameter in module.parameters()):
            replace_module(model, name, FrozenLinear(module))


def _check_adaptable(target: str, name: str, module: nn.Module, head: Sequence[str]) -> None:
    if is_inside(name, head):
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
