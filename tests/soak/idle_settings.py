"""Settings that change nothing and say nothing: `python -m tests.soak.idle_settings` changes one at a time.

Each run of a few steps is compared with that of its base config: results, metrics, ranks, checkpoints, pictures, files,
and what is printed. Settings come from the constructors, so that a new one is tried without being listed here.
"""

import argparse
import contextlib
import io
import os
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from importlib import import_module
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import torch
import yaml
from lightning.pytorch import Trainer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import cli
from experiments.arguments import NAMED_CALLBACKS
from experiments.setting_values import parameters_of
from tests.command_line import differences, outcome
from tests.hostile.bad_configs import STARTS_PROCESSES, base_configs, changed

# Places and sources, which are no choice of a value, and what starts other machinery.
_LEFT_OUT = re.compile(
    r"class_path|run_name|runs_dir|overwrite|ckpt_path|output|(data|model)\.(backbone|revision)|.*(data_dir|dataset\w*)"
    r"|.*_file|.*_split|.*init_from|.*quantization|.*cuda_graphs|.*\.compile"
    r"|trainer\.(accelerator|devices|num_nodes|strategy|plugins|callbacks|logger|default_root_dir|profiler|barebones)"
)
# Where no other value follows from the type and the present value.
_VALUES: dict[str, Any] = {
    "trainer.max_steps": 3,
    "trainer.max_time": "00:00:00:00",
    "trainer.gradient_clip_val": 1e-3,
    "trainer.precision": "64-true",
    "trainer.benchmark": True,
    "trainer.deterministic": True,
    "trainer.val_check_interval": 0.5,
    "trainer.accumulate_grad_batches": 2,
    "model.adapter.budget": 100,
    "model.optimizer.warmup_fraction": 0.5,
    "model.adapter.targets": ["query"],
    "data.length_multiple": 16,
    "data.max_length": 4,
    "data.train_rows": 8,
    "data.validation_rows": 4,
}
# What no output can show, with the reason.
INVISIBLE = {
    "checkpoint_every_n_minutes": "the run ends with the same last.ckpt",
    "checkpoint_every_n_steps": "likewise",
    "divergence.skip_at_most": "nothing diverges",
    "data.evaluation_batch_size": "figures don't depend on it",
    "model.gradient_checkpointing": "memory and time",
    "trainer.enable_progress_bar": "there is no terminal",
    "trainer.limit_val_batches": "there is one batch",
    "trainer.limit_test_batches": "likewise",
    "trainer.limit_predict_batches": "of predict alone",
    "trainer.num_sanity_val_steps": "a check before training",
    "trainer.enable_model_summary": "it is printed",
    "trainer.reload_dataloaders_every_n_epochs": "the loaders made anew are the same",
    "trainer.enable_autolog_hparams": "settings go into TensorBoard all the same",
    "trainer.benchmark": "of GPUs",
    "trainer.deterministic": "of GPUs",
    "trainer.sync_batchnorm": "of several processes",
    "trainer.inference_mode": "time",
    "trainer.detect_anomaly": "nothing is anomalous",
}


@dataclass(frozen=True)
class Setting:
    """One setting of a base config: keys from the top, and another value for it."""

    path: tuple[str, ...]
    other: Any

    @property
    def name(self) -> str:
        """As it is given on the command line."""
        return ".".join(key for key in self.path if key != "init_args")


@dataclass(frozen=True)
class Left:
    """What a run leaves: its exit code, the lines that it prints, and its folder's content."""

    code: int
    lines: tuple[str, ...]
    content: dict[str, Any]

    def differs(self, other: "Left") -> bool:
        """Whether anything but times is another."""
        return self.code != other.code or self.lines != other.lines or bool(differences(self.content, other.content))


def settings_of(config: Mapping[str, Any]) -> Iterator[Setting]:
    """Each setting of a complete config, with another value of its type where there is one."""
    groups = {"trainer": Trainer, **NAMED_CALLBACKS}
    for name, value in config.items():
        if name in groups:
            yield from _of_class((name,), groups[name], value)
        elif isinstance(value, Mapping):
            yield from _of_value((name,), Any, value)
        else:
            yield from _with_other((name,), type(value), value)


def _of_class(path: tuple[str, ...], owner: type, values: Mapping[str, Any]) -> Iterator[Setting]:
    for name, parameter in parameters_of(owner).items():
        if name in values:
            yield from _of_value((*path, name), parameter.annotation, values[name])


def _of_value(path: tuple[str, ...], hint: Any, value: Any) -> Iterator[Setting]:
    if isinstance(value, Mapping) and "class_path" in value:
        module, _, name = value["class_path"].rpartition(".")
        yield from _of_class((*path, "init_args"), getattr(import_module(module), name), value["init_args"])
    elif is_dataclass(hint):
        yield from _of_class(path, hint, value)
    else:
        yield from _with_other(path, hint, value)


def _with_other(path: tuple[str, ...], hint: Any, value: Any) -> Iterator[Setting]:
    name = ".".join(key for key in path if key != "init_args")
    if _LEFT_OUT.fullmatch(name) or name in STARTS_PROCESSES:
        return
    other = _VALUES.get(name, _other(hint, value))
    if other is not None and other != value:
        yield Setting(path, other)


def _other(hint: Any, value: Any) -> Any:
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    for kind in kinds:
        if get_origin(kind) is Literal and (others := [one for one in get_args(kind) if one != value]):
            return others[-1]
    if isinstance(value, bool) or (value is None and bool in kinds):
        return not value
    if isinstance(value, int) or (value is None and int in kinds):
        return (value or 0) + 1
    if isinstance(value, float) or (value is None and float in kinds):
        return value / 2 if value else 0.25
    if isinstance(value, list | tuple) and value and all(isinstance(one, float) for one in value):
        return [one / 2 for one in value]
    return None


def leave(config: Mapping[str, Any], folder: Path) -> Left:
    """Runs a config in this process."""
    path, printed = folder / "case.yaml", io.StringIO()
    path.write_text(yaml.safe_dump(dict(config), allow_unicode=True))
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            code = cli.main(["fit", "--config", str(path)])
        except Exception as error:
            return Left(1, (f"fault: {type(error).__name__}: {error}",), {})
    lines = [line for line in printed.getvalue().splitlines() if "without effect" in line or line.startswith("error")]
    return Left(code, tuple(lines), _content(folder / "runs" / "base") if code == 0 else {})


def _content(run: Path) -> dict[str, Any]:
    pictures = EventAccumulator(str(run)).Reload().Tags()["images"]
    callbacks = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["callbacks"]
    files = sorted(path.name for path in run.rglob("*") if not path.name.startswith("events"))
    left = outcome(run)
    left["results"].pop("data", None)  # of its settings it holds the summary
    columns = left.pop("metrics").partition("\n")[0]  # figures are in the results, but for times
    return {**left, "pictures": pictures, "callbacks": sorted(callbacks), "files": files, "columns": columns}


def main() -> int:
    """Changes each setting of each base config and prints those that change nothing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="settings whose name holds this text")
    parser.add_argument("--base", help="one base config; by default all of them")
    parser.add_argument("--again", action="store_true", help="settings that were tried in another base, too")
    options = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    tally: Counter[str] = Counter()
    seen: set[str] = set()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["RANKWISE_CACHE"] = str(folder / "cache")
        for base, config in base_configs(folder).items():
            if options.base not in (None, base):
                continue
            config = changed(config, {("trainer", "max_epochs"): 2, ("trainer", "logger"): True})
            undisturbed = leave(config, folder)
            assert undisturbed.code == 0, undisturbed.lines
            assert not leave(config, folder).differs(undisturbed), "two equal runs differ"
            for setting in settings_of(config):
                if options.only not in setting.name or (setting.name in seen and not options.again):
                    continue
                seen.add(setting.name)
                left = leave(changed(config, {setting.path: setting.other}), folder)
                kind = "fault" if left.code == 1 else "refused" if left.code else "told" if left.lines else "acts"
                if kind == "acts" and not left.differs(undisturbed):
                    kind = "invisible" if setting.name in INVISIBLE else "idle"
                tally[kind] += 1
                if kind != "acts":
                    said = " ".join(left.lines)[:300]
                    print(f"{base}: {setting.name} = {setting.other!r}: {kind} {said}", flush=True)
    print(dict(tally))
    return 1 if tally["idle"] or tally["fault"] else 0


if __name__ == "__main__":
    sys.exit(main())
