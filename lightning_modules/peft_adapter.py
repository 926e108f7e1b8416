"""Baselines from Hugging Face PEFT, trained like every other adapter."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from common.errors import InputError
from lightning_modules.peft_adalora import AdaLoRABudget, check_schedule
from lightning_modules.peft_methods import ADAPTER_NAME, METHODS, Method, import_peft, make_config
from lora.adapter import Adapter
from lora.factors import Factorise, factorise
from lora.injection import choose_layers
from lora.layers import dense_weight
from lora.sketch import sketch
from lora.target_names import Targets

_SEED = 42


class PEFTAdapter(Adapter):
    """A method of Hugging Face PEFT (extra `peft`) as a baseline: same data, head, results, checkpoints and resume.

    The adapter's parameters stay where PEFT puts them, inside the model. Checkpoints hold those that train; what
    PEFT freezes (PiSSA's changed weights, VeRA's and TinyLoRA's projections) is made again from the backbone and a
    fixed seed, and compared by fingerprint.

    Args:
        method: lora, rslora, dora, pissa, eva, vera, adalora or tinylora.
        settings: PEFT's own names and defaults, such as {r: 8, lora_alpha: 16} for lora or
            {init_r: 12, target_r: 8, tinit: 200, tfinal: 500, deltaT: 10} for adalora.
        targets: names or patterns of the layers to adapt, or `default` for the architecture's own: query, value
            and both output projections.
    """

    def __init__(
        self, method: Method = "lora", settings: dict[str, Any] | None = None, targets: Targets = "default"
    ) -> None:
        super().__init__()
        self._config = make_config(method, settings or {})
        self.method, self.targets = METHODS[method], targets
        self.adalora: AdaLoRABudget | None = None
        self._layers: dict[str, Any] = {}

    @property
    def name(self) -> str:
        return self.method.name

    @property
    def starts_from_inputs(self) -> bool:
        return self.method.title == "EVA"

    def attach(
        self, model: nn.Module, model_type: str, head: Sequence[str] = (), factorise: Factorise = factorise
    ) -> None:
        found = self._find_layers(model, model_type, head)
        self._config.target_modules = set(found)
        trained_before = [parameter for parameter in model.parameters() if parameter.requires_grad]
        tuner = self._inject(model, found)
        for parameter in trained_before:  # PEFT freezes everything but its own
            parameter.requires_grad_(True)
        self.layer_names = tuple(found)
        self._layers = {name: model.get_submodule(name) for name in found}
        self.fingerprint = sketch(_frozen_tensors(self._layers))
        if self.method.title == "AdaLoRA":
            self.adalora = AdaLoRABudget(tuner, self._layers)

    def check_fit(self, skeleton: nn.Module, model_type: str, head: Sequence[str]) -> None:
        """Layers and rank alone: PEFT can't make every method's start without the model's values."""
        self._find_layers(skeleton, model_type, head)

    def check_steps(self, steps: float) -> None:
        if self.method.title == "AdaLoRA":
            check_schedule(self._config.tinit, self._config.tfinal, steps)

    def _find_layers(self, model: nn.Module, model_type: str, head: Sequence[str]) -> dict[str, nn.Module]:
        rank = self._config.r if self.method.rank_bounded_by_layer else 1
        found = choose_layers(model, model_type, self.targets, head, rank)
        _check_rank(rank, found)
        return found

    def _inject(self, model: nn.Module, names: Iterable[str]) -> Any:
        """Puts PEFT's layers into the model, and returns PEFT's tuner, which must not become a submodule."""
        from peft import PEFT_TYPE_TO_TUNER_MAPPING

        # not peft.inject_adapter_in_model: it refuses VeRA and TinyLoRA, whose layers share tensors
        tuner = PEFT_TYPE_TO_TUNER_MAPPING[self._config.peft_type]
        try:
            with _repeatable_factors(self.method.title), warnings.catch_warnings():
                # PEFT sets it right by itself, layer by layer
                warnings.filterwarnings("ignore", message="fan_in_fan_out is set to")
                made = tuner(model, self._config, ADAPTER_NAME)
            check_adapted(model, names)
            return made
        except (ValueError, TypeError, AssertionError, NotImplementedError) as error:
            said = str(error).rstrip(".") or type(error).__name__
            raise InputError(
                f"PEFT's {self.method.title} doesn't fit this model or these settings: {said}. Change "
                "model.adapter.settings or model.adapter.targets, or choose another method."
            ) from error

    def save(self, folder: Path, plain: nn.Module, trained: nn.Module, about: dict[str, Any]) -> None:
        """Writes PEFT's own folder: what this adapter has in the `trained` model, and the head of the plain one.

        The plain model is the same backbone, not adapted; it is changed. `about` is more of PEFT's config, such as
        modules_to_save.
        """
        if self.starts_from_inputs:  # only where to start from: from here on it is plain LoRA
            about = {**about, "init_lora_weights": True, "eva_config": None}
        wrapped, state = self._wrapped(plain, about), trained.state_dict()
        if self.method.title == "PiSSA":  # [B, -B0] [A; A0] over the weights as they were: plain LoRA of twice the rank
            start = wrapped.get_base_model().state_dict()
            state |= {name: torch.cat([state[name], A]) for name, A in start.items() if ".lora_A." in name}
            state |= {name: torch.cat([state[name], -B], dim=1) for name, B in start.items() if ".lora_B." in name}
            twice = {"r": 2 * self._config.r, "lora_alpha": 2 * self._config.lora_alpha, "init_lora_weights": True}
            wrapped = self._wrapped(wrapped.unload(), {**about, **twice})
        wrapped.get_base_model().load_state_dict(state, strict=False)
        wrapped.save_pretrained(str(folder), save_embedding_layers=False)

    def merged(self, plain: nn.Module, trained: nn.Module) -> nn.Module:
        """The plain model (see `save`) with the update in its weights.

        `InputError`: PEFT can't merge this method into these layers.
        """
        wrapped = self._wrapped(plain, {})
        wrapped.get_base_model().load_state_dict(trained.state_dict(), strict=False)
        try:
            return wrapped.merge_and_unload(safe_merge=True)
        except (ValueError, TypeError, AttributeError, NotImplementedError) as error:
            raise InputError(
                f"PEFT can't add the update of {self.method.title} to these weights: {error}. Use --format peft."
            ) from error

    def _wrapped(self, plain: nn.Module, about: dict[str, Any]) -> Any:
        """PEFT's own wrapper of a plain model with this adapter as it was before training."""
        with _repeatable_factors(self.method.title), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of starts that need data, and will be overwritten
            return import_peft("an export").get_peft_model(plain, replace(self._config, **about))

    @torch.no_grad()
    def input_directions(self, batches: Iterable[Any], forward: Callable[[Any], Any]) -> dict[str, Tensor]:
        from peft import get_eva_state_dict

        layers = {name.replace(".", "/"): layer.get_base_layer() for name, layer in self._layers.items()}
        config = replace(self._config, target_modules=set(layers))
        found = get_eva_state_dict(
            nn.ModuleDict(layers),
            batches,
            config,
            forward_fn=lambda _, batch: forward(batch),
            prepare_model_inputs_fn=lambda batch, _: batch["attention_mask"].bool(),
            prepare_layer_inputs_fn=_real_tokens,
            gather_distributed_inputs=False,
            show_progress_bar=False,
        )
        return {name.replace("/", "."): directions for name, directions in found.items()}

    @torch.no_grad()
    def take_input_directions(self, directions: Mapping[str, Tensor]) -> None:
        for name, layer in self._layers.items():
            layer.lora_A[ADAPTER_NAME].weight.copy_(directions[name])

    def update_settings(self) -> dict[str, float | str]:
        layer = next(iter(self._layers.values()))  # all have the same
        scales = getattr(layer, "scaling", None) or {}  # some methods have none
        return {"scale": float(scales[ADAPTER_NAME])} if ADAPTER_NAME in scales else {}

    def refresh(self) -> None:
        """Nothing to do: PEFT's layers read their parameters themselves."""

    def regularisation(self) -> Tensor | float:
        return self.adalora.regularisation() if self.adalora is not None else 0.0

    def shortfall(self) -> str | None:
        return self.adalora.shortfall() if self.adalora is not None else None

    def discrete_ranks(self) -> dict[str, int]:
        if self.adalora is not None:
            return self.adalora.ranks()
        return {name: int(layer.r[ADAPTER_NAME]) for name, layer in self._layers.items()}


def check_adapted(model: nn.Module, names: Iterable[str]) -> None:
    """Raises ValueError if PEFT has left out any of these layers: by their names it takes some for experts."""
    missed = [name for name in names if not hasattr(model.get_submodule(name), "base_layer")]
    if missed:
        raise ValueError(f"it takes {missed[0]} (and {len(missed) - 1} more), by the name, for experts")


def _real_tokens(inputs: tuple[Tensor, ...], mask: Tensor, _: str) -> Tensor:
    """A layer's inputs (tokens, in) without padding, as far as the layer sees any."""
    x = inputs[0]
    kept = x[mask] if x.shape[:-1] == mask.shape else x.reshape(-1, x.shape[-1])
    return kept.contiguous()  # PEFT takes views of it


@contextmanager
def _repeatable_factors(title: str) -> Iterator[None]:
    """PiSSA's randomised SVD changes the frozen weights: every run, and every resumed one, must make the same."""
    if title != "PiSSA":
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        yield


def _check_rank(rank: int, layers: dict[str, nn.Module]) -> None:
    """PEFT would cut a rank that is too large without a word."""
    for name, layer in layers.items():
        smaller_side = min(dense_weight(layer).shape)
        if not 1 <= rank <= smaller_side:
            raise InputError(
                f"r is {rank}, but the weight of {name} has shape {tuple(dense_weight(layer).shape)}; allowed: 1 to "
                f"{smaller_side}. Lower model.adapter.settings.r, or leave this layer out of targets."
            )


def _frozen_tensors(layers: dict[str, Any]) -> list[Tensor]:
    """The weights under the adapters, and what the adapters have beside their parameters, each tensor once."""
    tensors = [layer.get_base_layer().weight for layer in layers.values()]
    tensors += [buffer for layer in layers.values() for buffer in layer.buffers()]
    return list({id(tensor): tensor for tensor in tensors}.values())
