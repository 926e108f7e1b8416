"""Run folders with made figures, as a sweep leaves them, for tests of the report."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

LAYERS = [f"encoder.layer.{layer}.attention.self.{name}" for layer in range(2) for name in ("query", "value")]


def results(name: str, seed: int, best: float | None, metric: str = "accuracy", **changes: Any) -> dict[str, Any]:
    """A results.json."""
    last = None if best is None else best - 0.01
    content = {
        **{"run_name": name, "seed": seed, "backbone": "made-base", "adapter": "LoRA"},
        "data": {"name": "made/news", "train_rows": 100, "validation_rows": 20, "test_rows": 20},
        "metric": {
            "name": metric,
            "higher_is_better": metric != "perplexity",
            "best": best,
            "best_epoch": 1,
            "last": last,
        },
        "test": None if best is None else {"accuracy": 0.8, "loss": 0.4, metric: best - 0.02},
        **{"train_losses": [0.9, 0.5], "val_losses": [0.8, 0.6], "best_val_loss": 0.6},
        "trainable_parameters": {"adapter": 1000, "allocation": 0, "head": 10, "total": 1010},
        **{"budget": None, "average_rank": 8.0, "at_best_epoch": None},
        "throughput": {"train_samples_per_second": 10.0, "train_tokens_per_second": 100.0, "train_rows": 200},
        **{"wall_seconds": 36.0, "peak_memory_bytes": 2**20, "status": "finished"},
        "versions": {"python": "3.11", "torch": "2.13.0"},
    }
    return {**content, **changes}


def config(rate: float, seed: int, rank: int | None) -> dict[str, Any]:
    """A config.yaml of plain LoRA, or of full fine-tuning without a rank."""
    adapter = None if rank is None else {"class_path": "lora.LoRA", "init_args": {"rank": rank, "lora_alpha": 32}}
    optimizer = {"learning_rate": rate, "head_learning_rate": None}
    return {
        "seed_everything": seed,
        "run_name": f"run{seed}",
        "model": {"class_path": "made.Module", "init_args": {"adapter": adapter, "optimizer": optimizer}},
        "data": {"class_path": "made.News", "init_args": {"batch_size": 8}},
    }


def write_run(folder: Path, settings: dict[str, Any], outcome: dict[str, Any] | None, ranks: Any = None) -> None:
    """One run folder."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    name = outcome["metric"]["name"] if outcome else "accuracy"
    (folder / "metrics.csv").write_text(f"step,train/epoch_loss,val/loss,val/{name}\n4,0.9,0.8,0.5\n9,0.5,0.6,0.7\n")
    if outcome is not None:
        (folder / "results.json").write_text(json.dumps(outcome))
    if ranks is not None:
        (folder / "ranks.json").write_text(json.dumps(ranks))


def write_rate_sweep(
    folder: Path,
    curves: dict[str, tuple[int | None, dict[float, dict[int, float]]]],
    metric: str = "accuracy",
    change: Callable[[dict[str, Any]], object] = id,
) -> Path:
    """A sweep over learning rates: method -> (rank, rate -> seed -> best figure); `change` may edit each trial."""
    trials = []
    for method, (rank, rates) in curves.items():
        for rate, by_seed in rates.items():
            for seed, best in by_seed.items():
                name = f"{method}-{rate:g}-{seed}"
                kind = "full fine-tuning" if rank is None else "LoRA"
                outcome = results(name, seed, best, metric, adapter=kind, average_rank=rank)
                write_run(folder / name, config(rate, seed, rank), outcome)
                trials.append({"name": name, "method": method, "overrides": {}, "results": outcome})
                change(trials[-1])
    (folder / "sweep.yaml").write_text("config: made.yaml\n")
    (folder / "results.json").write_text(json.dumps({"trials": trials}))
    return folder


def adaptive_config(seed: int) -> dict[str, Any]:
    """A config.yaml of adaptive LoRA-XS."""
    settings = config(1e-3, seed, 1)
    ranks = {"rank_min": 2, "rank_max": 8, "rank_average": 5}
    settings["model"]["init_args"]["adapter"] = {"class_path": "lora.AdaptiveLoRAXS", "init_args": ranks}
    settings["model"]["init_args"]["optimizer"]["allocation_learning_rate"] = 0.02
    settings["alpha_growth"] = {"alpha_min": 0.5, "alpha_max": 3.0}
    return settings


def ranks(final: list[int]) -> dict[str, Any]:
    """A ranks.json of four layers."""
    history = [
        {"epoch": 0, "step": 0, "alpha": 0.5, "budget": 100.0, "ranks": [5.0, 5.0, 5.0, 5.0]},
        {"epoch": 1, "step": 9, "alpha": 3.0, "budget": 100.0, "ranks": [float(rank) for rank in final]},
    ]
    return {"layers": dict(zip(LAYERS, final, strict=True)), "history": history}


def write_adaptive_run(folder: Path, seed: int, best: float | None, final: list[int], **changes: Any) -> None:
    """The folder of a run of adaptive LoRA-XS with these final ranks."""
    outcome = results(folder.name, seed, best, adapter="AdaptiveLoRAXS", **changes)
    write_run(folder, adaptive_config(seed), outcome, ranks(final))
