"""Our side of the pairs that train: the whole path of `python cli.py fit`, in this process."""

import math
import tempfile
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks.arithmetic import Work, formula_operations, needed_operations, peak_operations_per_second
from benchmarks.data import batches, data_config, epoch_rows
from benchmarks.machine import figures
from benchmarks.settings import SEED, Settings
from benchmarks.timing import StepTimer, now
from common.memory import keep_freed_memory

RANK_MAX = 25
_RANKS = {"rank_min": 5, "rank_max": RANK_MAX, "rank_average": 20}
ADAPTIVE = {"class_path": "lora.AdaptiveLoRAXS", "init_args": {**_RANKS, "allocation": "softmax"}}


def adaptive_softmax(settings: Settings) -> dict[str, Any]:
    """Adaptive LoRA-XS, ranks 5 to 25, average 20, the study's softmax allocation; masks stay soft.

    Then, in the same process, a large product of matrices: operations per second of both.
    """
    found, trainer = trained(settings, ADAPTIVE)
    lengths = trainer.datamodule.train_dataloader().split.lengths
    timed = lengths[torch.cat(batches(lengths, settings)[settings.warm_up_steps :])].double()
    assert int(timed.sum()) == found["tokens"]  # these are the batches that the run had
    work = Work(found["rows"], found["tokens"], float((timed**2).sum()))
    module = trainer.lightning_module
    return {
        **found,
        "needed": needed_operations(module.model, module.head_modules, work) / found["seconds"],
        "formula": formula_operations(module.model, module.head_modules, work) / found["seconds"],
        "peak": peak_operations_per_second(settings.precision),
    }


def adaptive_bounded(settings: Settings) -> dict[str, Any]:
    """The same with the bounded allocation."""
    return train(settings, {"class_path": "lora.AdaptiveLoRAXS", "init_args": {**_RANKS, "allocation": "bounded"}})


def fixed_rank(settings: Settings) -> dict[str, Any]:
    """LoRA-XS with R of the same size (25) in every layer and no allocation; the same rows in the same order."""
    return train(settings, {"class_path": "lora.LoRAXS", "init_args": {"rank": RANK_MAX}})


def lora_all_linear(settings: Settings) -> dict[str, Any]:
    """LoRA of rank 32 in every linear layer."""
    return train(settings, {"class_path": "lora.LoRA", "init_args": {"rank": 32, "lora_alpha": 32}})


def lora(settings: Settings) -> dict[str, Any]:
    """LoRA of rank 8 in the layers that PEFT's LoRA has on the other side: the very same arithmetic."""
    return train(
        settings, {"class_path": "lora.LoRA", "init_args": {"rank": 8, "lora_alpha": 16, "targets": "default"}}
    )


def full(settings: Settings) -> dict[str, Any]:
    """Full fine-tuning of the same model on the same rows in the same order."""
    return train(settings, None)


def train(settings: Settings, adapter: dict[str, Any] | None) -> dict[str, Any]:
    """Trains as `trained` does, and gives the figures alone."""
    return trained(settings, adapter)[0]


def trained(settings: Settings, adapter: dict[str, Any] | None) -> tuple[dict[str, Any], Any]:
    """Trains with everything a run has by default, and times the steps as `StepWindow` says.

    In the window: our data module and loader, the Lightning loop, every default callback and logger (TensorBoard,
    metrics.csv, ranks, learning rates; no progress bar, because the output is no terminal). Not in it: start-up,
    validation (off), checkpoints, pictures and the test (they come between and after epochs).

    Returns:
        The figures, and the trainer.
    """
    from common.terminal import quiet_libraries
    from experiments.fit import Fit
    from experiments.run import Run
    from experiments.settings import parse

    quiet_libraries()
    keep_freed_memory()  # as cli.py does
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "benchmark.yaml"
        config.write_text(yaml.safe_dump(_config(settings, adapter)))
        arguments = ["fit", "--config", str(config), "--runs_dir", folder, "--run_name", "benchmark"]
        run = Run(parse(arguments))
        fit = Fit(run.settings, run.folder, run.signals)
        fit.carry_out(None, False)
        trainer: Any = fit.trainer
        checkpoint = _checkpoint_cost(trainer, Path(folder) / "measured.ckpt")
    timer = next(callback for callback in trainer.callbacks if isinstance(callback, StepTimer))
    assert timer is trainer.callbacks[0] and timer.window.complete
    assert timer.rows == settings.timed_rows
    found = {**figures(timer.window.seconds, timer.rows), "tokens": timer.tokens, **checkpoint}
    assert trainer.strategy.root_device.type == found["device"]
    return found, trainer


def _checkpoint_cost(trainer: Any, path: Path) -> dict[str, float]:
    started = now()
    trainer.save_checkpoint(path)
    return {"checkpoint_seconds": now() - started, "checkpoint_bytes": path.stat().st_size}


def _config(settings: Settings, adapter: dict[str, Any] | None) -> dict[str, Any]:
    steps, rows = settings.warm_up_steps + settings.steps, epoch_rows(settings)
    timer = {"warm_up_steps": settings.warm_up_steps, "steps": settings.steps}
    optimizer = {"learning_rate": 1e-3, "head_learning_rate": 1e-3, "schedule": "linear_with_warmup"}
    kind = "LanguageModellingModule" if settings.models_language else "TextClassificationModule"
    config: dict[str, Any] = {
        "seed_everything": SEED,
        "model": {
            "class_path": f"lightning_modules.{kind}",
            "init_args": {"backbone": settings.model, "adapter": adapter, "optimizer": optimizer},
        },
        "data": data_config(settings, rows),
        "trainer": {
            "max_epochs": math.ceil(steps * settings.batch_size / rows),
            "max_steps": steps,
            "limit_val_batches": 0,
            "devices": 1,
            "precision": settings.precision,
            "callbacks": [{"class_path": "benchmarks.timing.StepTimer", "init_args": timer}],
        },
    }
    if adapter is not None and "Adaptive" in adapter["class_path"]:
        config["rank_discretisation"] = {"epochs_rank_discrete": 0}
    return config
