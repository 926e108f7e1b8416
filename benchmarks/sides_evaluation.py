"""Evaluating with merged weights beside evaluating with adapters, both in one process."""

from typing import Any

import torch

from benchmarks.machine import figures
from benchmarks.settings import Settings
from benchmarks.sides_ours import ADAPTIVE, trained
from benchmarks.timing import now

_PASSES = 3  # of each way, in turn


def evaluation(settings: Settings) -> dict[str, Any]:
    """Trains as always, then goes over the validation split with and without merging; merging itself is timed, too.

    Raises:
        RuntimeError: the two ways don't give the same answers.
    """
    found, trainer = trained(settings, ADAPTIVE)
    module = trainer.lightning_module.eval().to(trainer.strategy.root_device)
    module.rank_allocation.discretise()
    batches = [module.transfer_batch_to_device(batch, module.device, 0) for batch in _validation_batches(trainer)]
    seconds: dict[str, list[float]] = {"apart": [], "merged": []}
    answers: dict[str, torch.Tensor] = {}
    with torch.inference_mode():
        for _ in range(_PASSES + 1):
            for way in seconds:
                started = now()
                module.refresh_adapter()
                if way == "merged":
                    module.adapter.merge()
                answers[way] = torch.cat([module(batch["inputs"]).argmax(dim=-1) for batch in batches])
                module.adapter.unmerge()
                seconds[way].append(now() - started)
    if not torch.equal(answers["apart"], answers["merged"]):
        raise RuntimeError("merged weights answer differently")
    rows = sum(batch["real_rows"] for batch in batches)
    middle = {way: sorted(times[1:])[_PASSES // 2] for way, times in seconds.items()}  # the first one warms up
    return {**figures(found["seconds"], found["rows"]), **{way: rows / time for way, time in middle.items()}}


def _validation_batches(trainer: Any) -> list[dict[str, Any]]:
    loaders = trainer.datamodule.val_dataloader()
    return list(loaders[0] if isinstance(loaders, list | tuple) else loaders)
