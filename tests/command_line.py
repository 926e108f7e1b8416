"""Running the command line inside a test, on a tiny model."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import yaml
from lightning.pytorch import Callback
from matplotlib.figure import Figure

import cli
from callbacks import stop_together
from lora.products import frozen_products


class CrashError(RuntimeError):
    """What a test's callback raises to end a run in the middle."""


class CrashAt(Callback):
    """Ends a run at a hook of a step, as a kill would."""

    def __init__(self, hook: str, step: int) -> None:
        self.hook, self.step = hook, step

    def _crash(self, hook: str, trainer: Any) -> None:
        if hook == self.hook and trainer.global_step == self.step and not trainer.sanity_checking:
            raise CrashError

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        self._crash("batch_start", trainer)

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0) -> None:
        self._crash("validation", trainer)

    def on_train_epoch_end(self, trainer, pl_module) -> None:
        self._crash("epoch_end", trainer)


class MoveAt(Callback):
    """Moves a folder away in the middle of a step, as somebody else might, and may put another one in its place."""

    def __init__(self, folder: str, to: str, other: str | None = None) -> None:
        self.folder, self.to, self.other = folder, to, other

    def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
        if trainer.global_step == 7:
            os.rename(self.folder, self.to)
            if self.other is not None:
                shutil.copytree(self.other, self.folder)


def crash_at(step: int, hook: str = "batch_start") -> list[str]:
    """Options that end a run at a hook of a step, with a checkpoint after each step before it."""
    crash = {"class_path": "tests.command_line.CrashAt", "init_args": {"hook": hook, "step": step}}
    return [f"--trainer.callbacks={json.dumps(crash)}", "--checkpoint_every_n_minutes=0"]


def write_config(folder: Path, backbone: str, data_dir: str, adapter: dict[str, Any] | None = None) -> Path:
    """A config for a run of three epochs, five steps each."""
    adaptive = {"class_path": "lora.AdaptiveLoRAXS", "init_args": {"rank_min": 2, "rank_max": 8, "rank_average": 5}}
    config = {
        "seed_everything": 1,
        "model": {
            "class_path": "lightning_modules.TextClassificationModule",
            "init_args": {
                "backbone": backbone,
                "adapter": adaptive if adapter is None else adapter,
                "optimizer": {"learning_rate": 0.02, "head_learning_rate": 0.02, "allocation_learning_rate": 0.1},
            },
        },
        "data": {
            "class_path": "datamodules.GLUEDataModule",
            "init_args": {"task": "cola", "data_dir": data_dir, "batch_size": 8, "max_length": 32},
        },
        "trainer": {"max_epochs": 3, "log_every_n_steps": 1, "accelerator": "cpu", "devices": 1},
        "rank_logging": {"every_n_steps": 2, "pictures_every_n_epochs": 0},  # they take four fifths of the time
    }
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def write_language_config(folder: Path, backbone: str, data_dir: str, adapter: dict[str, Any]) -> Path:
    """The same for a language model on WikiText's layout."""
    path = write_config(folder, backbone, data_dir, adapter)
    config = yaml.safe_load(path.read_text())
    config["model"]["class_path"] = "lightning_modules.LanguageModellingModule"
    settings = {"data_dir": data_dir, "batch_size": 8, "evaluation_batch_size": 4, "block_size": 16}
    config["data"] = {"class_path": "datamodules.WikiTextDataModule", "init_args": settings}
    path.write_text(yaml.safe_dump(config))
    return path


def run(verb: str, config: Path | str, runs_dir: Path, *options: str) -> int:
    """The exit code of one call; rank maps are empty, because drawing one takes a tenth of a run."""
    with patch("experiments.fit_results.rank_map", lambda *_: Figure(figsize=(1, 1))):
        return cli.main([verb, "--config", str(config), "--runs_dir", str(runs_dir), *options])


def outcome(run_folder: Path) -> dict[str, Any]:
    """Everything a run leaves that a second run must repeat: times and paths left out."""
    results = json.loads((run_folder / "results.json").read_text())
    for name in ("throughput", "wall_seconds", "peak_memory_bytes", "run_name"):
        del results[name]
    (results.get("factors") or {}).pop("seconds", None)
    results["versions"].pop("rankwise", None)  # changes with a commit while tests run
    files = {
        name: torch.load(run_folder / "checkpoints" / name, weights_only=True) for name in ("last.ckpt", "best.ckpt")
    }
    checkpoints = {
        name: {key: content[key] for key in ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "epoch")}
        for name, content in files.items()
    }
    return {
        "results": results,
        "ranks": json.loads((run_folder / "ranks.json").read_text()),
        "metrics": (run_folder / "metrics.csv").read_text(),
        "checkpoints": checkpoints,
    }


def differences(ours: Any, theirs: Any, place: str = "") -> list[str]:
    """Where two outcomes differ, bit by bit."""
    if isinstance(ours, torch.Tensor):
        return [] if isinstance(theirs, torch.Tensor) and torch.equal(ours, theirs) else [place]
    if type(ours) is not type(theirs):
        return [f"{place}: {type(ours).__name__} and {type(theirs).__name__}"]
    if isinstance(ours, dict):
        if ours.keys() != theirs.keys():
            return [f"{place}: {ours.keys() ^ theirs.keys()}"]
        return [line for key in ours for line in differences(ours[key], theirs[key], f"{place}/{key}")]
    if isinstance(ours, list | tuple):
        if len(ours) != len(theirs):
            return [f"{place}: {len(ours)} and {len(theirs)} entries"]
        pairs = enumerate(zip(ours, theirs, strict=True))
        return [line for index, (a, b) in pairs for line in differences(a, b, f"{place}/{index}")]
    return [] if ours == theirs else [f"{place}: {ours} and {theirs}"]


class SignalAt(Callback):
    """A process sends itself a signal at a step; the other processes are not told."""

    def __init__(self, step: int, number: int, rank: int = 1) -> None:
        self.step, self.number, self.rank = step, number, rank
        stop_together._SECONDS = 0.0  # processes ask each other after each batch, instead of about every second

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if trainer.global_step == self.step and trainer.global_rank == self.rank:
            os.kill(os.getpid(), self.number)


class LocalBytes(Callback):
    """Writes down the bytes of the frozen parameters: all of them, and what this process holds."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def on_train_end(self, trainer, pl_module) -> None:
        frozen = [parameter for parameter in pl_module.model.parameters() if not parameter.requires_grad]
        local = [parameter.to_local() if hasattr(parameter, "to_local") else parameter for parameter in frozen]
        if trainer.global_rank == 0:
            self.path.write_text(" ".join(str(sum(tensor.nbytes for tensor in held)) for held in (frozen, local)))


class CastWeights(Callback):
    """Lets a process cast frozen weights, as on a GPU, instead of packing them."""

    def __init__(self) -> None:
        frozen_products.can_pack = lambda dtype: False


class SlowSteps(Callback):
    """Makes steps long enough for a signal to arrive in the middle of a run."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        time.sleep(0.3)


def start_fit(config: Path, runs_dir: Path, *options: str, **how: Any) -> "subprocess.Popen[str]":
    """A `fit` in a process of its own, with all its output in one place; `how` goes to Popen."""
    return subprocess.Popen(
        [sys.executable, "cli.py", "fit", "--config", str(config), "--runs_dir", str(runs_dir), *options],
        cwd=Path(__file__).parents[1],
        env={**os.environ, "PYTHONPATH": ".", **how.pop("environment", {})},
        stderr=subprocess.STDOUT,
        **{"stdout": subprocess.PIPE, "text": True, **how},
    )


def run_until_signalled(config: Path, runs_dir: Path, number: int, **environment: str) -> tuple[int, str]:
    """Exit code and output of a slow `fit` in a process of its own that gets a signal once it logs."""
    slow = json.dumps({"class_path": "tests.command_line.SlowSteps"})
    process = start_fit(config, runs_dir, f"--trainer.callbacks={slow}", environment=environment)
    table, deadline = runs_dir / "tiny" / "metrics.csv", time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline and not table.exists():
        time.sleep(0.05)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    return process.returncode, output
