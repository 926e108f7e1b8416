"""The methods of PEFT that can be trained here, and what their settings may be."""

import re
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Literal

from jsonargparse import ArgumentError, ArgumentParser

from common.errors import InputError, check_one_of
from lora.adapter import LARGEST_RANK

# PEFT's name for the only adapter that a model gets here.
ADAPTER_NAME = "default"

Method = Literal["lora", "rslora", "dora", "pissa", "eva", "vera", "adalora", "tinylora"]


@dataclass(frozen=True)
class PEFTMethod:
    """One method."""

    title: str  # the method as its paper spells it
    config_class: str  # the class of its settings in PEFT
    # the names that a user may set; all others are PEFT's defaults or this project's business
    settings: tuple[str, ...]
    fixed: dict[str, Any] = field(default_factory=dict)  # settings that make it this method
    # whether its rank must fit into every adapted weight, because it factorises them
    rank_bounded_by_layer: bool = False

    @property
    def name(self) -> str:
        """What results.json calls the adapter."""
        return f"PEFT {self.title}"


_LORA = ("r", "lora_alpha", "lora_dropout", "init_lora_weights")
_ADALORA = ("init_r", "target_r", "tinit", "tfinal", "deltaT", "beta1", "beta2", "orth_reg_weight")
_TINYLORA = ("r", "u", "weight_tying", "projection_seed", "init_weights", "init_v_bound", "tinylora_dropout")

METHODS: dict[str, PEFTMethod] = {
    "lora": PEFTMethod("LoRA", "LoraConfig", _LORA),
    "rslora": PEFTMethod("rsLoRA", "LoraConfig", _LORA, {"use_rslora": True}),
    "dora": PEFTMethod("DoRA", "LoraConfig", _LORA, {"use_dora": True}),
    "pissa": PEFTMethod("PiSSA", "LoraConfig", _LORA, {"init_lora_weights": "pissa"}, rank_bounded_by_layer=True),
    "eva": PEFTMethod("EVA", "LoraConfig", _LORA[:3], {"init_lora_weights": "eva"}, rank_bounded_by_layer=True),
    "vera": PEFTMethod("VeRA", "VeraConfig", ("r", "d_initial", "projection_prng_key", "vera_dropout")),
    "adalora": PEFTMethod("AdaLoRA", "AdaLoraConfig", (*_ADALORA, "lora_alpha", "lora_dropout")),
    "tinylora": PEFTMethod("TinyLoRA", "TinyLoraConfig", _TINYLORA, rank_bounded_by_layer=True),
}


def make_config(method: str, settings: dict[str, Any]) -> Any:
    """PEFT's config object of a method, its layers not yet named.

    `InputError`: PEFT isn't installed, or the method, a setting or its value isn't allowed.
    """
    check_one_of("method", method, METHODS)
    chosen = METHODS[method]
    for name in settings:
        check_one_of(f"a setting of PEFT's {chosen.title}", name, chosen.settings)
    peft = import_peft(f"the adapter is PEFT's {chosen.title}, which")
    config_class = getattr(peft, chosen.config_class)
    _check_initialisation(method, settings)
    _check_types(chosen, config_class, settings)
    given = {**chosen.fixed, **settings}
    for name in ("r", "init_r"):
        if not 1 <= given.get(name, 1) <= LARGEST_RANK:
            raise InputError(f"{name} is {given[name]}; allowed: 1 or more, up to {LARGEST_RANK:,}.")
    if method == "adalora":
        init_r, target_r = given.get("init_r", config_class.init_r), given.get("target_r", config_class.target_r)
        if not 1 <= target_r < init_r:
            raise InputError(
                f"AdaLoRA's init_r is {init_r} and target_r is {target_r}; allowed: 1 <= target_r < init_r, because "
                "ranks start at init_r and are cut to an average of target_r."
            )
        # The run's real number of steps is known when training starts; PEFT wants one here.
        given["total_step"] = given.get("tinit", 0) + given.get("tfinal", 0) + 1
    if method == "eva":  # rho 1: the same rank in every layer, as with all the others
        given["eva_config"] = peft.EvaConfig(rho=1.0)
    try:
        return config_class(**given)
    except (ValueError, TypeError) as error:
        raise InputError(f"PEFT refuses these settings of {chosen.title}: {error}") from error


def import_peft(what: str) -> ModuleType:
    """The peft package; an `InputError` that begins with `what` needs it if it isn't installed."""
    try:
        import peft
    except ImportError as error:
        raise InputError(f"{what} needs the package {error.name}. Run `pip install -e '.[peft]'`.") from error
    return peft


def _check_initialisation(method: str, settings: dict[str, object]) -> None:
    """Left out: memory as it was (false), and initialisations that need data or are a method of their own."""
    value = settings.get("init_lora_weights")
    if method == "pissa" and value is not None and not re.fullmatch(r"pissa(_niter_\d+)?", str(value)):
        raise InputError(
            f"init_lora_weights is {value!r}; allowed for PiSSA: pissa (exact SVD) or pissa_niter_N (randomised, such "
            "as pissa_niter_16). Choose method: lora for other initialisations."
        )
    if method in ("lora", "rslora", "dora") and value not in (None, True, "gaussian", "orthogonal"):
        raise InputError(
            f"init_lora_weights is {value!r}; allowed: true (Kaiming), gaussian or orthogonal. For PiSSA, choose "
            "method: pissa."
        )
    if settings.get("init_weights", True) not in (True, "uniform"):
        raise InputError(f"init_weights is {settings['init_weights']!r}; allowed: true (zeros) or uniform.")


def _check_types(method: PEFTMethod, config_class: type, settings: dict[str, object]) -> None:
    """PEFT's configs take any value of any type; the command line's parser knows better."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(config_class, "settings", skip={"init_lora_weights"})
    typed = {name: value for name, value in settings.items() if name != "init_lora_weights"}
    try:
        parser.parse_object({"settings": typed})
    except ArgumentError as error:
        reason = " ".join(str(error).replace('Parser key "settings.', '"').split())
        raise InputError(f"a setting of PEFT's {method.title} has a wrong value: {reason}") from error
