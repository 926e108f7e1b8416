"""A fit's results, put together when its training has ended, and the files that tell them."""

import platform
from importlib.metadata import version
from math import isfinite
from pathlib import Path

import torch
from jsonargparse import Namespace
from lightning.pytorch import Trainer

from callbacks.rank_pictures import rank_map
from callbacks.results import Results
from common.files import atomic_write, write_json
from common.machine import peak_resident_bytes
from experiments.results import (
    Budget,
    DataCounts,
    FactorCost,
    Figure,
    Metric,
    NormsOverTime,
    RankFigures,
    RunResults,
    Throughput,
    TrainableParameters,
)
from lightning_modules.adapted_module import AdaptedModule

_PACKAGES = ("torch", "lightning", "transformers", "datasets", "torchmetrics", "tensorboard")


def summarise(values: Namespace, figures: Results, trainer: Trainer, module: AdaptedModule) -> RunResults:
    """What a run with these settings came to when training has ended: before best.ckpt, the test and a rank curve."""
    split = module.data.validation_names[0]
    record = module.record
    val_losses = [validation.get(f"{split}/loss") for validation in figures.validations]
    ranks = rank_figures(module)
    device = trainer.strategy.root_device  # the module itself is back on the CPU once fit or test is over
    on_gpu, seconds = device.type == "cuda", max(figures.training_seconds, 1e-9)
    return RunResults(
        run_name=values.run_name,
        seed=values.seed_everything,
        data=DataCounts.from_plain(module.data.summary),
        backbone=module.backbone_name,
        width=getattr(module.model.config.get_text_config(), "hidden_size", None),
        adapter=module.adapter.name if module.adapter is not None else "full fine-tuning",
        metric=best_of(figures.validations, f"{split}/{module.metric_name}", module.higher_is_better),
        validations=figures.validations,
        test=figures.test,
        train_losses=list(record.train_losses),
        val_losses=val_losses,
        best_val_loss=min((loss for loss in val_losses if loss is not None and isfinite(loss)), default=None),
        trainable_parameters=TrainableParameters.from_plain(module.parameter_counts()),
        budget=ranks.budget,
        average_rank=ranks.average_rank,
        equal_area_rank=ranks.equal_area_rank,
        update_norms=None if record.update_norms is None else NormsOverTime.from_plain(record.update_norms),
        factors=None if record.factors is None else FactorCost.from_plain(record.factors),
        throughput=Throughput(
            train_samples_per_second=figures.train_rows / seconds,
            train_tokens_per_second=figures.train_tokens / seconds,
            train_rows=figures.train_rows,
        ),
        wall_seconds=figures.wall_seconds,
        peak_memory_bytes=torch.cuda.max_memory_allocated(device) if on_gpu else peak_resident_bytes(),
        device=str(device),
        device_name=torch.cuda.get_device_name(device) if on_gpu else platform.machine(),
        processes=trainer.world_size,
        status=status(module, record.diverged_at is not None, record.collapsed),
        skipped_updates=record.skipped_updates,
        collapsed_epochs=record.collapsed_epochs,
        versions=versions(figures.code),
    )


def best_of(validations: list[dict[str, Figure]], tag: str, higher_is_better: bool) -> Metric:
    """Best and last value of a metric, such as val/accuracy, and the first epoch that reached the best.

    `validations` are the figures of each epoch by their tags, with "epoch"; without the tag where it wasn't validated.
    """
    values = [validation.get(tag) for validation in validations]
    sign = 1 if higher_is_better else -1
    known = [(sign * value, -place) for place, value in enumerate(values) if value is not None and value == value]
    name = tag.partition("/")[2]
    if not known:
        return Metric(name=name, higher_is_better=higher_is_better, best=None, best_epoch=None, last=None)
    best, place = max(known)
    epoch = int(validations[-place]["epoch"] or 0)
    return Metric(name=name, higher_is_better=higher_is_better, best=sign * best, best_epoch=epoch, last=values[-1])


def status(module: AdaptedModule, diverged: bool, collapsed: bool) -> str:
    """finished, collapsed (the last validation gave one answer for every row), diverged or budget_missed."""
    if diverged:
        return "diverged"
    if module.adapter is not None and module.adapter.shortfall() is not None:
        return "budget_missed"
    return "collapsed" if collapsed else "finished"


def rank_figures(module: AdaptedModule) -> RankFigures:
    """Budget, mean of the discrete ranks, and the one rank of all layers that would use as much, as they are now."""
    if module.adapter is None:
        return RankFigures(budget=None, average_rank=None, equal_area_rank=None)
    ranks = list(module.adapter.discrete_ranks().values())
    average = sum(ranks) / len(ranks)
    allocation = module.rank_allocation
    if allocation is None:
        return RankFigures(budget=None, average_rank=average, equal_area_rank=average)
    used = float(allocation.area(torch.tensor(ranks)).sum())
    return RankFigures(
        budget=Budget(requested=allocation.budget, used=used),
        average_rank=average,
        equal_area_rank=allocation.rank_of_area(used),
    )


def versions(code: list[str]) -> dict[str, str]:
    """Versions of this project (several where a run was resumed with other code), Python and the main packages."""
    own = {"rankwise": ", then ".join(code)} if code else {}
    return {**own, "python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}


def write_files(folder: Path, results: RunResults, ranks: dict[str, int], module: AdaptedModule) -> None:
    """Writes ranks.json with the last discrete ranks, the rank map and, last, results.json, from the first process."""
    if not module.trainer.is_global_zero:
        return
    write_json(folder / "ranks.json", {"layers": ranks, "history": module.record.rank_history})
    allocation = module.rank_allocation
    if allocation is not None:
        title = f"{results.run_name}: discrete ranks, average {results.average_rank:.2f}"
        figure = rank_map({k: float(v) for k, v in ranks.items()}, allocation.rank_min, allocation.rank_max, title)
        atomic_write(folder / "rank_map.png", lambda file: figure.savefig(file, format="png", dpi=120))
    results.write(folder / "results.json")
