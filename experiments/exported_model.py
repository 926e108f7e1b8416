"""An export folder as the model of validate, test and predict."""

from pathlib import Path
from typing import Any

import datamodules
import lightning_modules
from common.errors import InputError
from datamodules.tokenized_data import TokenizedDataModule
from experiments.config_files import flatten, group_of, read_yaml
from lightning_modules.adapter_import import export_kind
from lightning_modules.backbone_sketch import check_files
from lightning_modules.native_adapter import NativeAdapter

CONFIG_NAME = "config.yaml"
_STORAGE = ("backbone_dtype", "quantization")
_OF_THE_BACKBONE = ("backbone", "revision", *_STORAGE)


def serving_config(config: dict[str, Any], data: TokenizedDataModule) -> dict[str, Any]:
    """The part of a run's settings that using its export needs: which model class, backbone and data."""
    model, settings = config["model"], config["data"]["init_args"]
    if "label_names" in settings and data.class_names:
        # as training found them: who has the export needn't have the training split
        settings = {**settings, "label_names": list(data.class_names)}
    kept = {name: model["init_args"][name] for name in _OF_THE_BACKBONE if name in model["init_args"]}
    # without an adapter: what the export holds is added to the weights
    return {
        "model": {"class_path": model["class_path"], "init_args": {**kept, "adapter": None}},
        "data": {**config["data"], "init_args": settings},
    }


def settings_of_export(folder: Path) -> dict[str, Any]:
    """The settings that `--export FOLDER` stands for; refused if that can't answer."""
    kind = export_kind(folder)
    if not (folder / CONFIG_NAME).is_file():
        raise InputError(
            f"{folder} holds a {kind} model, but no {CONFIG_NAME} that says which task it is for: it wasn't written by "
            "`python cli.py export`. Give the settings yourself: --config NAME.yaml --model.adapter null "
            f"--model.init_from {folder} in a fit, or export a run."
        )
    check_files(folder)
    settings = _own_classes(folder / CONFIG_NAME)
    if kind == "native" and NativeAdapter.read(folder).lacks_head:
        raise InputError(
            f"{folder} was exported without its head, so it can't answer. Export it without --without_head."
        )
    model = settings["model"]["init_args"]
    model["backbone" if kind == "merged" else "init_from"] = str(folder)
    if kind == "merged":  # its weights are dense, and moved: they can't be rounded again
        settings["model"]["init_args"] = {name: value for name, value in model.items() if name not in _STORAGE}
    # predictions.tsv goes into the export's folder
    return {**settings, "runs_dir": str(folder.parent), "run_name": folder.name}


def _own_classes(path: Path) -> dict[str, Any]:
    """The config.yaml of an export; refused if it isn't what an export writes: a class named there would be run."""
    content = read_yaml(path)
    if len(content) != 2 or not all(group_of(content, part, "init_args") for part in ("model", "data")):
        raise InputError(
            f"{path} isn't what an export writes: model and data with their settings. Export the run again."
        )
    known = {
        "model.class_path": {f"lightning_modules.{name}" for name in lightning_modules.__all__},
        "data.class_path": {f"datamodules.{name}" for name in datamodules.__all__},
    }
    for name, named in flatten(content).items():
        is_foreign = name.endswith("class_path") and named not in known.get(name, ())
        if is_foreign or "class_path" in str(named):  # a list is one text here, with all it holds
            raise InputError(
                f"{path} names {named!r} for {name}; allowed: this project's own model and data classes, because "
                "what an export names would be run. If you trust it, give its settings yourself: --config NAME.yaml "
                f"--model.adapter null --model.init_from {path.parent}."
            )
    return content
