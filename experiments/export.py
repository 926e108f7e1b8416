"""A run's model as files that other programs load, checked against the run before they are kept; and used again."""

import math
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import datamodules
import lightning_modules
from callbacks.rank_discretisation import describe_ranks
from common.errors import InputError, VerificationError, check_one_of
from common.files import write_text
from common.terminal import logger
from datamodules.tokenized_data import TokenizedDataModule
from experiments.config_files import dump_yaml, flatten, group_of, read_yaml
from experiments.export_formats import FORMATS, ExportOptions, cut_update, logits
from experiments.loaded_run import LoadedRun
from experiments.model_card import model_card
from lightning_modules.adapter_import import export_kind
from lightning_modules.backbone_sketch import check_files, write_checksums
from lightning_modules.native_adapter import NativeAdapter

CONFIG_NAME = "config.yaml"
_STORAGE = ("backbone_dtype", "quantization")
_OF_THE_BACKBONE = ("backbone", "revision", *_STORAGE)
_OF_ONE_FORMAT = {"dtype": "merged", "max_shard_size": "merged", "with_factors": "native", "without_head": "native"}
_SIZE = re.compile(r"[1-9]\d*[KMGT]B", re.IGNORECASE)


def check_options(kind: str, options: ExportOptions) -> None:
    """Raises `InputError` for a value out of range, or one without effect on the format."""
    check_one_of("the format", kind, FORMATS)
    usual = ExportOptions()
    for name, other in _OF_ONE_FORMAT.items():
        value = getattr(options, name)
        if value != getattr(usual, name) and kind != other:
            given = "given" if value is True else str(value).removeprefix("torch.")
            raise InputError(f"--{name} is {given} and --format is {kind}; allowed: --{name} with --format {other}.")
    if not _SIZE.fullmatch(options.max_shard_size):
        raise InputError(f"--max_shard_size is {options.max_shard_size!r}; allowed: a size such as 500MB or 5GB.")
    if not 0 <= options.tolerance < math.inf:
        raise InputError(f"--tolerance is {options.tolerance}; allowed: a finite number from 0, such as 1e-5.")


def _check_ranks(run: LoadedRun, force: bool) -> None:
    if run.results is not None or run.ranks_are_discrete:
        return
    assert run.module.adapter is not None
    ranks = ", ".join(str(rank) for rank in run.module.adapter.discrete_ranks().values())
    rounded = f"{describe_ranks(run.module)} (by layer: {ranks})"
    if not force:
        raise InputError(
            f"the run in {run.folder} isn't finished, and its ranks are still soft in {run.checkpoint.name} (epoch "
            f"{run.epoch}). Rounded, they would be {rounded}. Finish the run (fit … --ckpt_path last), or export these "
            "ranks with --force."
        )
    logger.info(f"The run isn't finished; its soft ranks are rounded to {rounded}.")


def write_export(run: LoadedRun, kind: str, options: ExportOptions, folder: Path) -> str:
    """Writes everything into the folder, and says how far its logits are from the run's: see `Run.export`."""
    _check_ranks(run, options.force)
    batches = run.batches()
    cut = None if options.budget is None else cut_update(run, options.budget)
    ours = logits(run.module.model, batches)
    ranks = run.module.adapter.discrete_ranks() if run.module.adapter is not None else {}
    if cut is not None:
        ranks = {name: len(A) for name, (A, _) in cut.items()}
        logger.info(f"Cut to {options.budget:,}: ranks {min(ranks.values())} to {max(ranks.values())}.")
    dtype, tolerance = options.dtype, options.tolerance
    export = FORMATS[kind](run, options, cut)
    export.write(folder)
    loaded = export.logits(folder, batches)
    if dtype in (None, torch.float32):
        said = _compare(ours, loaded, tolerance, "the run's" if cut is None else "those of the run after the cut")
    else:  # rounding the weights moves the logits; the files must hold exactly the rounded model
        rounded = str(dtype).removeprefix("torch.")
        said = _compare(logits(export.model, batches), loaded, tolerance, f"those of the {rounded} weights")
        moved = _largest(ours, export.logits(folder, batches, dtype))
        if not moved < math.inf:
            raise VerificationError(
                f"computed in {rounded}, the logits aren't all finite. Nothing was kept. Try --dtype bfloat16."
            )
        said += f" Rounding to {rounded} moved them by at most {moved:.1e} from the run's."
    write_text(folder / "README.md", model_card(run, kind, ranks, said))
    write_text(folder / CONFIG_NAME, dump_yaml(serving_config(run.config, run.data)))
    write_checksums(folder)
    return said


def _compare(ours: list[Tensor], theirs: list[Tensor], tolerance: float, whose: str) -> str:
    difference = _largest(ours, theirs)
    # float32 has seven digits: logits of 30, as language models have, can't agree to 1e-5
    allowed = tolerance * max(1.0, *(float(batch.abs().max()) for batch in ours))
    rows = sum(len(batch) for batch in ours)
    if not all(bool(batch.isfinite().all()) for batch in ours):
        raise VerificationError(
            f"{whose} logits of {rows} validation rows aren't all finite, so an export can't be compared with them. "
            "Nothing was kept. Choose another checkpoint (--ckpt_path); for --dtype float16, bfloat16 or float32."
        )
    said = f"logits of {rows} validation rows differ by at most {difference:.1e} from {whose}"
    if not difference <= allowed:  # also when it isn't a number
        raise VerificationError(
            f"loaded from the files, {said}; allowed: {allowed:.1e}. Nothing was kept. Try another --format; pass a "
            "larger --tolerance only if a difference of this size is rounding for your logits."
        )
    return f"{said} (allowed: {allowed:.1e})."


def _largest(ours: list[Tensor], theirs: list[Tensor]) -> float:
    # torch's maximum, because Python's passes over a NaN that comes after a number
    return float(torch.stack([(a - b).abs().max() for a, b in zip(ours, theirs, strict=True)]).max())


def serving_config(config: dict[str, Any], data: TokenizedDataModule) -> dict[str, object]:
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


def settings_of_export(folder: Path) -> dict[str, object]:
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
