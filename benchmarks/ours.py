"""Our sides: the whole path of `python cli.py fit` in this process, and evaluation after it."""

import math
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks.arithmetic import Work, needed_operations, peak_operations_per_second
from benchmarks.data import batches, data_config, epoch_rows
from benchmarks.settings import SEED, BenchmarkSettings
from benchmarks.timing import Figures, StepTimer, median_seconds, training_figures
from common.machine import keep_freed_memory

RANK_MAX = 25
_RANKS = {"rank_min": 5, "rank_max": RANK_MAX, "rank_average": 20}
_PASSES = 3  # of each way of evaluating

Adapter = dict[str, Any] | None
ADAPTERS: dict[str, Adapter] = {
    "adaptive_softmax": {"class_path": "lora.AdaptiveLoRAXS", "init_args": {**_RANKS, "allocation": "softmax"}},
    # R of the same size in every layer, and no allocation
    "fixed_rank": {"class_path": "lora.LoRAXS", "init_args": {"rank": RANK_MAX}},
    # in the layers that PEFT's LoRA has on the other side: the very same arithmetic
    "lora": {"class_path": "lora.LoRA", "init_args": {"rank": 8, "lora_alpha": 16, "targets": "default"}},
    "lora_all_linear": {"class_path": "lora.LoRA", "init_args": {"rank": 32, "lora_alpha": 32}},
    "full": None,
}


def train(adapter: str, settings: BenchmarkSettings) -> Figures:
    """Trains with one of `ADAPTERS`, on the same rows in the same order as all other sides."""
    return trained(settings, ADAPTERS[adapter])[0]


def adaptive_softmax(settings: BenchmarkSettings, options: Sequence[str] = ()) -> Figures:
    """Adaptive LoRA-XS, ranks 5 to 25, average 20, the study's softmax allocation; masks stay soft.

    Then, in the same process, a large product of matrices: operations per second of both.
    """
    figures, trainer, timer = trained(settings, ADAPTERS["adaptive_softmax"], *options)
    lengths = trainer.datamodule.train_dataloader().split.lengths
    timed = lengths[torch.cat(batches(lengths, settings)[settings.warm_up_steps :])].double()
    assert int(timed.sum()) == timer.tokens  # these are the batches that the run had
    work = Work(timer.rows, timer.tokens, float((timed**2).sum()))
    module, seconds = trainer.lightning_module, timer.window.seconds
    return {
        **figures,
        "needed": needed_operations(module.model, module.head_modules, work) / seconds,
        "peak": peak_operations_per_second(settings.precision),
    }


def trained(settings: BenchmarkSettings, adapter: Adapter, *options: str) -> tuple[Figures, Any, StepTimer]:
    """Trains with everything a run has by default, and times the steps as `StepWindow` says.

    In the window: our data module and loader, the Lightning loop, every default callback and logger (TensorBoard,
    metrics.csv, ranks, learning rates; no progress bar, because the output is no terminal). Not in it: start-up,
    validation (off), checkpoints, pictures and the test (they come between and after epochs).

    Args:
        settings: of the measurement.
        adapter: one of `ADAPTERS`.
        options: more settings of the run, as typed on the command line.

    Returns:
        The figures, the trainer, and the timer with what it counted.
    """
    from common.terminal import quiet_libraries
    from experiments.fit import Fit
    from experiments.run import Run
    from experiments.settings import parse

    quiet_libraries()
    keep_freed_memory()  # as cli.py does
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "benchmark.yaml"
        config.write_text(yaml.safe_dump(run_config(settings, adapter)))
        arguments = ["fit", "--config", str(config), "--runs_dir", folder, "--run_name", "benchmark", *options]
        run = Run(parse(arguments))
        fit = Fit(run.settings, run.folder, run.signals)
        fit.carry_out(None, False)
        trainer: Any = fit.trainer
    timer = next(callback for callback in trainer.callbacks if isinstance(callback, StepTimer))
    assert timer is trainer.callbacks[0] and timer.window.complete
    assert timer.rows == settings.steps * settings.batch_size
    assert trainer.strategy.root_device.type == ("cuda" if torch.cuda.is_available() else "cpu")
    figures = training_figures(timer.window.seconds, settings) | {"warm_up_seconds": timer.warm_up_seconds}
    return figures, trainer, timer


def run_config(settings: BenchmarkSettings, adapter: Adapter) -> dict[str, Any]:
    """The config of a measured run: default settings, but no validation and no discrete phase."""
    rows = epoch_rows(settings)
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
            "max_epochs": math.ceil(settings.all_steps * settings.batch_size / rows),
            "max_steps": settings.all_steps,
            "limit_val_batches": 0,
            "devices": 1,
            "precision": settings.precision,
            "callbacks": [{"class_path": "benchmarks.timing.StepTimer", "init_args": timer}],
        },
    }
    if adapter is not None and "Adaptive" in adapter["class_path"]:
        config["rank_discretisation"] = {"epochs_rank_discrete": 0}
    return config


def evaluation(settings: BenchmarkSettings) -> Figures:
    """Trains, then goes over the validation split with merged weights, merging included, and with adapters apart.

    Raises:
        RuntimeError: the two ways don't give the same answers.
    """
    _, trainer, _ = trained(settings, ADAPTERS["adaptive_softmax"])
    module = trainer.lightning_module.eval().to(trainer.strategy.root_device)
    module.rank_allocation.discretise()
    loaders = trainer.datamodule.val_dataloader()
    loader = loaders[0] if isinstance(loaders, list | tuple) else loaders
    batches = [module.transfer_batch_to_device(batch, module.device, 0) for batch in loader]
    answers: dict[bool, torch.Tensor] = {}

    def evaluate(merged: bool) -> None:
        module.refresh_adapter()
        if merged:
            module.adapter.merge()
        answers[merged] = torch.cat([module(batch["inputs"]).argmax(dim=-1) for batch in batches])
        module.adapter.unmerge()

    with torch.inference_mode():
        seconds = median_seconds({"apart": partial(evaluate, False), "merged": partial(evaluate, True)}, _PASSES)
    if not torch.equal(answers[False], answers[True]):
        raise RuntimeError("merged weights answer differently")
    rows = sum(batch["real_rows"] for batch in batches)
    return {way: rows / time for way, time in seconds.items()}
