"""Settings that somebody set and that change nothing in a fit, each with the reason.

They aren't refused, because a sweep sets some for all its methods; what contradicts itself is (`Settings.build`).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping

from datamodules import GLUEDataModule, QuickstartDataModule
from experiments.arguments import NAMED_CALLBACKS
from experiments.setting_values import parameters_of
from experiments.settings import Objects, Settings
from lightning_modules import LanguageModellingModule, OptimizerSettings
from lora import LoRA, LoRAXS

Reasons = dict[str, str | None]  # by a setting's name on the command line; None where it acts


def idle_settings(settings: Settings, objects: Objects) -> list[str]:
    """Names of settings without effect in this run, each with the reason in brackets.

    Args:
        settings: the run's.
        objects: made of them.
    """
    values = _by_place(settings.values.as_dict())
    learns_nothing = _why_nothing_is_learned(values, objects)
    reasons = {
        **_of_model_and_trainer(values, objects),
        **_of_adapter(values, objects, learns_nothing),
        **_of_optimizer(values, objects, learns_nothing),
        **_of_callbacks(values, objects, learns_nothing),
        **_of_data(values, objects),
    }
    changed = _changed(values, objects)
    return [f"{name} ({reason})" for name, reason in reasons.items() if reason and name in changed]


def _by_place(values: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The values of each group of settings, by the beginning of their names."""
    model, data = values["model"]["init_args"], values["data"].get("init_args") or {}
    adapter = (model.get("adapter") or {}).get("init_args") or {}
    plain = {name: values[name] for name in (*NAMED_CALLBACKS, "trainer")}
    return {"model": model, "model.adapter": adapter, "model.optimizer": model["optimizer"], "data": data, **plain}


def _changed(values: Mapping[str, Mapping[str, Any]], objects: Objects) -> set[str]:
    """Names of the settings that don't have their class's default."""
    module = objects.module
    own = {"model": type(module), "model.adapter": type(module.adapter), "data": type(objects.data)}
    owners = {**own, "model.optimizer": OptimizerSettings, "trainer": Trainer, **NAMED_CALLBACKS}
    return {
        f"{place}.{name}"
        for place, owner in owners.items()
        for name, parameter in parameters_of(owner).items()
        if name in values[place] and values[place][name] != parameter.default
    }


def _is_fixed(values: Mapping[str, Mapping[str, Any]]) -> bool:
    return values["model.adapter"].get("allocation") == "fixed_by_energy"


def _why_nothing_is_learned(values: Mapping[str, Mapping[str, Any]], objects: Objects) -> str | None:
    """Why ranks don't follow from weights that are trained."""
    adapter, epochs = objects.module.adapter, values["trainer"]["max_epochs"] or -1
    if adapter is None or not adapter.allocates_ranks:
        return "no ranks are learned"
    if _is_fixed(values):
        return "allocation is fixed_by_energy"
    discrete = values["rank_discretisation"]["epochs_rank_discrete"]
    return f"the last {discrete} epochs have discrete ranks: all of them" if 0 < epochs <= discrete else None


def _of_model_and_trainer(values: Mapping[str, Mapping[str, Any]], objects: Objects) -> Reasons:
    backbone, trainer = str(values["model"]["backbone"]), values["trainer"]
    is_here = backbone.startswith("package:") or Path(backbone).expanduser().exists()
    callbacks = objects.trainer["callbacks"] or ()
    callbacks = callbacks if isinstance(callbacks, list | tuple) else [callbacks]
    has_limit = trainer["max_time"] is not None or trainer["max_steps"] not in (None, -1)
    ends_early = has_limit or any(isinstance(one, EarlyStopping) for one in callbacks)
    return {
        "model.revision": "the backbone isn't on the hub" if is_here else None,
        **dict.fromkeys(("trainer.min_epochs", "trainer.min_steps"), None if ends_early else "nothing ends it early"),
    }


def _of_adapter(values: Mapping[str, Mapping[str, Any]], objects: Objects, learns_nothing: str | None) -> Reasons:
    adapter, headless = objects.module.adapter, isinstance(objects.module, LanguageModellingModule)
    if not isinstance(adapter, LoRA | LoRAXS):
        return {}
    by_gradient = isinstance(adapter, LoRAXS) and adapter.gradient_pass is not None
    fixed = learns_nothing if _is_fixed(values) else None
    reasons = {
        "head_warmup_steps": "no head is trained" if headless or adapter.wrap_head else None,
        "initial_std": "R starts from the gradient" if by_gradient else None,
        "wrap_head": "a language model has no head" if headless else None,
        "tau": learns_nothing,
        "rounding": fixed,
        "initial_weights": fixed,
    }
    return {f"model.adapter.{name}": reason for name, reason in reasons.items()}


def _of_optimizer(values: Mapping[str, Mapping[str, Any]], objects: Objects, learns_nothing: str | None) -> Reasons:
    adapter, headless = objects.module.adapter, isinstance(objects.module, LanguageModellingModule)
    constant = "the schedule is constant" if values["model.optimizer"]["schedule"] == "constant" else None
    wrapped = "the head is adapted" if adapter is not None and adapter.wrap_head else None
    reasons = {
        **dict.fromkeys(("allocation_learning_rate", "allocation_weight_decay"), learns_nothing),
        **dict.fromkeys(("warmup_fraction", "warmup_rounding"), constant),
        "head_learning_rate": "a language model has no head" if headless else wrapped,
    }
    return {f"model.optimizer.{name}": reason for name, reason in reasons.items()}


def _of_callbacks(values: Mapping[str, Mapping[str, Any]], objects: Objects, learns_nothing: str | None) -> Reasons:
    adapter = objects.module.adapter
    fixed = None if adapter is None or (adapter.allocates_ranks and not _is_fixed(values)) else learns_nothing
    no_pictures = "trainer.logger is false" if values["trainer"]["logger"] is False else None
    return {
        **{f"alpha_growth.{name}": learns_nothing for name in values["alpha_growth"]},
        "rank_discretisation.epochs_rank_discrete": fixed,
        "rank_logging.every_n_steps": None if adapter is not None and adapter.allocates_ranks else learns_nothing,
        "rank_logging.pictures_every_n_epochs": no_pictures or learns_nothing,
        "update_norms.every_n_steps": "full fine-tuning has none" if adapter is None else None,
    }


def _of_data(values: Mapping[str, Mapping[str, Any]], objects: Objects) -> Reasons:
    data = values["data"]
    whole = not any(data.get(name) for name in ("train_rows", "validation_rows", "held_out_rows"))
    draws = not whole or not isinstance(objects.data, GLUEDataModule | QuickstartDataModule)
    validated = next((name for name in ("validation_file", "validation_rows") if data.get(name) is not None), None)
    ends = [str(data.get(name)).removesuffix(".gz")[-4:] for name in ("train_file", "validation_file", "test_file")]
    is_csv = data.get("train_file") is None or ".csv" in ends
    reasons = {
        "cola_validation": None if data.get("task") == "cola" else f"the task is {data.get('task')}",
        "subset_seed": None if draws else "all rows are taken",
        "validation_fraction": f"{validated} is given" if validated else None,
        "separator": None if is_csv else "no file is a .csv",
    }
    return {f"data.{name}": reason for name, reason in reasons.items()}
