"""An export folder as the model of validate, test and predict."""

from pathlib import Path
from typing import Any

import yaml

import datamodules
import lightning_modules
from common.errors import InputError
from lightning_modules.adapter_import import export_kind
from lightning_modules.native_adapter import NativeAdapter

CONFIG_NAME = "config.yaml"


def serving_config(config: dict[str, Any], data: Any) -> dict[str, Any]:
    """The part of a run's settings that using its export needs: which model class, backbone and data."""
    model, settings = config["model"], config["data"]["init_args"]
    if "label_names" in settings and data.class_names:
        # as training found them: who has the export needn't have the training split
        settings = {**settings, "label_names": list(data.class_names)}
    kept = {name: model["init_args"][name] for name in ("backbone", "revision") if name in model["init_args"]}
    # without an adapter: what the export holds is added to the weights
    return {
        "model": {"class_path": model["class_path"], "init_args": {**kept, "adapter": None}},
        "data": {**config["data"], "init_args": settings},
    }


def use_export(arguments: list[str]) -> list[str]:
    """Puts the settings that `--export FOLDER` stands for before what the user typed, which wins.

    Raises:
        InputError: the folder holds no export, or one that can't answer.
    """
    folder = _export_folder(arguments)
    if folder is None:
        return arguments
    kind = export_kind(folder)
    if not (folder / CONFIG_NAME).is_file():
        raise InputError(
            f"{folder} holds a {kind} model, but no {CONFIG_NAME} that says which task it is for: it wasn't written by "
            "`python cli.py export`. Give the settings yourself: --config NAME.yaml --model.adapter null "
            f"--model.init_from {folder} in a fit, or export a run."
        )
    _check_classes(folder / CONFIG_NAME)
    if kind == "native" and NativeAdapter.read(folder).lacks_head:
        raise InputError(
            f"{folder} was exported without its head, so it can't answer. Export it without --without_head."
        )
    source = ["--model.backbone", str(folder)] if kind == "merged" else ["--model.init_from", str(folder)]
    # predictions.tsv goes into the export's folder
    place = ["--runs_dir", str(folder.parent), "--run_name", folder.name]
    return [arguments[0], "--config", str(folder / CONFIG_NAME), *place, *source, *arguments[1:]]


def _check_classes(path: Path) -> None:
    """Refuses a config.yaml that isn't what an export writes: exports travel, and a class named there would be run."""
    try:
        content = yaml.safe_load(path.read_text())
        parts = {name: (part["class_path"], part["init_args"]) for name, part in content.items()}
    except (OSError, ValueError, yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} isn't what an export writes ({type(error).__name__}). Export the run again."
        ) from error
    known = {
        "model": {f"lightning_modules.{name}" for name in lightning_modules.__all__},
        "data": {f"datamodules.{name}" for name in datamodules.__all__},
    }
    for name, (class_path, settings) in parts.items():
        inner = _first_class(settings)
        foreign = class_path if class_path not in known.get(name, ()) else inner
        if foreign is not None:
            raise InputError(
                f"{path} names {foreign!r} for {name}; allowed: this project's own model and data classes, because "
                "what an export names would be run. If you trust it, give its settings yourself: --config NAME.yaml "
                f"--model.adapter null --model.init_from {path.parent}."
            )


def _first_class(settings: Any) -> Any:
    """The first class named anywhere in some settings, or None."""
    if isinstance(settings, dict):
        if "class_path" in settings:
            return settings["class_path"]
        settings = list(settings.values())
    if isinstance(settings, list):
        return next((found for inner in settings if (found := _first_class(inner)) is not None), None)
    return None


def _export_folder(arguments: list[str]) -> Path | None:
    for place, argument in enumerate(arguments):
        if argument.startswith("--export="):
            return Path(argument.partition("=")[2]).expanduser().resolve()
        if argument == "--export":
            if place + 1 == len(arguments):
                raise InputError("--export needs the folder of an export, such as `--export runs/NAME/exports/peft`.")
            return Path(arguments[place + 1]).expanduser().resolve()
    return None
