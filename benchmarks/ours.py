"""Our sides: the whole path of `python cli.py fit` in this process, and evaluation after it."""

import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import torch
from numpy.polynomial import Polynomial
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from benchmarks.inputs import SEED, BenchmarkSettings, batches, data_config
from benchmarks.timing import Figures, StepWindow, now
from common.machine import keep_freed_memory
from experiments.fit import Fit
from experiments.run import Run
from experiments.settings import parse
from lora import Adapter

_ADAPTIVE = {"rank_min": 5, "rank_max": 25, "rank_average": 20, "allocation": "softmax"}
ADAPTERS: dict[str, dict[str, Any] | None] = {
    "adaptive_softmax": {"class_path": "lora.AdaptiveLoRAXS", "init_args": _ADAPTIVE},
    # R of the same size in every layer, and no allocation
    "fixed_rank": {"class_path": "lora.LoRAXS", "init_args": {"rank": 25}},
    # in the layers that PEFT's LoRA has on the other side: the very same arithmetic
    "lora": {"class_path": "lora.LoRA", "init_args": {"rank": 8, "lora_alpha": 16, "targets": "default"}},
    "full": None,
}
_PASSES = 3  # of each way of evaluating
_LENGTHS = (8, 16, 32)  # of rows whose operations are counted


def train(adapter: str, settings: BenchmarkSettings, options: tuple[str, ...] = ()) -> Figures:
    """Trains with one of `ADAPTERS`, on the same rows in the same order as all other sides."""
    return _trained(adapter, settings, options)[0]


def adaptive_softmax(settings: BenchmarkSettings) -> Figures:
    """Adaptive LoRA-XS, ranks 5 to 25, average 20, the study's softmax allocation; masks stay soft.

    Then, in the same process, a large product of matrices: operations per second of both.
    """
    figures, trainer = _trained("adaptive_softmax", settings)
    lengths = trainer.datamodule.train_dataloader().split.lengths
    timed = lengths[torch.cat(batches(lengths, settings)[settings.warm_up_steps :])]
    assert int(timed.sum()) == _window(trainer).tokens  # these are the batches that the run had
    module, seconds = trainer.lightning_module, settings.steps * figures["seconds_per_step"]
    return {
        **figures,
        "needed": needed_operations(module.model, module.adapter, timed) / seconds,
        "peak": peak_operations_per_second(settings.precision),
    }


def _trained(adapter: str, settings: BenchmarkSettings, options: tuple[str, ...] = ()) -> tuple[Figures, Any]:
    """Trains with everything a run has by default; gives what `StepWindow` timed, and the trainer.

    In the window: our data module and loader, the Lightning loop, every default callback and logger (TensorBoard,
    metrics.csv, ranks, learning rates; no progress bar, because the output is no terminal). Not in it: start-up,
    validation (off), checkpoints, pictures and the test (they come after the epoch).
    """
    keep_freed_memory()  # as cli.py does
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "benchmark.yaml"
        config.write_text(json.dumps(run_config(settings, ADAPTERS[adapter])))  # which is YAML, too
        run = Run(parse(["fit", "--config", str(config), "--runs_dir", folder, "--run_name", "benchmark", *options]))
        fit = Fit(run.settings, run.folder, run.signals)
        fit.carry_out(None, False)
    trainer: Any = fit.trainer
    assert trainer.strategy.root_device.type == ("cuda" if torch.cuda.is_available() else "cpu")
    return _window(trainer).figures(), trainer


def _window(trainer: Any) -> StepWindow:
    return next(callback for callback in trainer.callbacks if isinstance(callback, StepWindow))


def run_config(settings: BenchmarkSettings, adapter: dict[str, Any] | None) -> dict[str, Any]:
    """The config of a measured run: default settings, but no validation and no discrete phase."""
    optimizer = {"learning_rate": 1e-3, "head_learning_rate": 1e-3, "schedule": "linear_with_warmup"}
    kind = "LanguageModellingModule" if settings.models_language else "TextClassificationModule"
    config: dict[str, Any] = {
        "seed_everything": SEED,
        "model": {
            "class_path": f"lightning_modules.{kind}",
            "init_args": {"backbone": settings.model, "adapter": adapter, "optimizer": optimizer},
        },
        "data": data_config(settings),
        "trainer": {
            "max_epochs": 1,
            "max_steps": settings.all_steps,
            "limit_val_batches": 0,
            "devices": 1,
            "precision": settings.precision,
            "callbacks": [
                {"class_path": "benchmarks.timing.StepWindow", "init_args": {"settings": asdict(settings)}},
            ],
        },
    }
    if adapter is not None and "Adaptive" in adapter["class_path"]:
        config["rank_discretisation"] = {"epochs_rank_discrete": 0}
    return config


def needed_operations(model: PreTrainedModel, adapter: Adapter, lengths: Tensor) -> float:
    """Floating-point operations of training on rows of these lengths (rows,): PyTorch counts those of three rows.

    Padding isn't needed. Products with tokens grow with the length, attention with its square.
    """
    counted = [_row_operations(model, adapter, length) for length in _LENGTHS]
    return float(Polynomial.fit(_LENGTHS, counted, deg=2)(lengths.numpy()).sum())


def _row_operations(model: PreTrainedModel, adapter: Adapter, length: int) -> int:
    tokens = torch.ones(1, length, dtype=torch.long, device=model.device)
    labels = torch.zeros_like(tokens[:, 0]) if model.get_output_embeddings() is None else tokens
    # in single products that are neither packed nor fused: the counter doesn't know those
    unpacked, unfused = patch("lora.products.frozen_products.can_pack", return_value=False), SDPBackend.MATH
    with unpacked, sdpa_kernel(unfused), FlopCounterMode(display=False) as counter:
        adapter.refresh()
        model(input_ids=tokens, labels=labels).loss.backward()
    return counter.get_total_flops()


def peak_operations_per_second(precision: str) -> float:
    """Rate of a large product of square matrices, median of two seconds, in the type that training uses."""
    device, size = ("cuda", 8192) if torch.cuda.is_available() else ("cpu", 2048)
    dtype = torch.bfloat16 if precision == "bf16-mixed" else torch.float32
    left, right, out = (torch.randn(size, size, device=device).to(dtype) for _ in range(3))
    names = {"multiply": torch.mm, "left": left, "right": right, "out": out}
    timer = Timer("multiply(left, right, out=out)", globals=names, num_threads=torch.get_num_threads())
    return 2 * size**3 / timer.blocked_autorange(min_run_time=2).median


def evaluation(settings: BenchmarkSettings) -> Figures:
    """Trains, then goes over the validation split with merged weights, merging included, and with adapters apart.

    `RuntimeError`: the two ways don't give the same answers.
    """
    _, trainer = _trained("adaptive_softmax", settings)
    module = trainer.lightning_module.eval().to(trainer.strategy.root_device)
    module.rank_allocation.discretise()
    loaders = trainer.datamodule.val_dataloader()
    loader = loaders[0] if isinstance(loaders, list | tuple) else loaders
    batches = [module.transfer_batch_to_device(batch, module.device, 0) for batch in loader]
    answers: dict[str, Tensor] = {}
    seconds: dict[str, list[float]] = {"apart": [], "merged": []}
    with torch.inference_mode():
        for _ in range(1 + _PASSES):
            for way, passes in seconds.items():
                started = now()
                module.refresh_adapter()
                if way == "merged":
                    module.adapter.merge()
                answers[way] = torch.cat([module(batch["inputs"]).argmax(dim=-1) for batch in batches])
                module.adapter.unmerge()
                passes.append(now() - started)
    if not torch.equal(answers["apart"], answers["merged"]):
        raise RuntimeError("merged weights answer differently")
    rows = sum(batch["real_rows"] for batch in batches)
    return {way: rows / median(passes[1:]) for way, passes in seconds.items()}  # the first pass warms up
