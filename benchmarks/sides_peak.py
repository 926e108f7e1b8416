"""Training beside the machine's own limit, both in one process."""

from typing import Any

from benchmarks.arithmetic import Work, formula_operations, needed_operations, peak_operations_per_second
from benchmarks.settings import Settings
from benchmarks.sides_ours import ADAPTIVE_SOFTMAX, trained


def share_of_peak(settings: Settings) -> dict[str, Any]:
    """Adaptive LoRA-XS as always, then a large matrix product: operations per second of both."""
    found, trainer = trained(settings, ADAPTIVE_SOFTMAX)
    module = trainer.lightning_module
    lengths = trainer.datamodule.train_dataloader().split.lengths.double()
    squares = float((lengths**2).mean()) * found["rows"]
    model, head = module.model, module.head_modules
    work = Work(found["rows"], found["tokens"], squares)
    return {
        **found,
        "needed_operations_per_second": needed_operations(model, head, work) / found["seconds"],
        "formula_operations_per_second": formula_operations(model, head, work) / found["seconds"],
        "peak_operations_per_second": peak_operations_per_second(settings.precision),
    }
