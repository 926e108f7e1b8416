"""A self-test of one GPU: whether it computes what the CPU does, and how fast it trains. On a CPU in a reduced form."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jsonargparse.typing import NonNegativeInt

from benchmarks.inputs import BenchmarkSettings, made_model, with_possible_steps
from benchmarks.output import origin, print_table, processor
from benchmarks.pairs import run_side
from benchmarks.timing import Figures
from common.errors import reason
from common.files import write_json

# Largest ‖g − g'‖ / ‖g‖ of the adapter's gradient between float32 on the CPU and the device, by the device's type
LIMITS = {"float32": 1e-3, "bfloat16": 0.1}


_FIGURES = {"samples_per_second": "samples/s", "share_of_peak": "of peak", "peak_memory_bytes": "bytes", "error": ""}
_COLUMNS = {"side": "side", "batch_size": "batch", "at_once": "at once", **_FIGURES}


def planned(cuda: bool) -> list[tuple[str, int, int]]:
    """What is measured, the most telling first: side, rows of a batch, and processes that train at the same time."""
    if not cuda:
        return [("adaptive_softmax", 4, 1), ("trainer_peft_lora", 4, 1), ("adaptive_softmax", 4, 2)]
    ways = ("adaptive_softmax", "trainer_peft_lora", "adaptive_compiled", "adaptive_graphs", "adaptive_nf4")
    alone = [(side, size, 1) for size in (32, 512) for side in ways]
    return [*alone, ("adaptive_softmax", 32, 2), ("adaptive_softmax", 32, 4)]


def attempted(side: str, settings: BenchmarkSettings, at_once: int = 1) -> tuple[list[Figures], str | None]:
    """What the processes of a side measured, or why they couldn't: a self-test goes on."""
    try:
        return run_side(side, with_possible_steps(settings), at_once), None
    except Exception as error:  # out of memory, a missing package, a driver's fault: whatever this GPU brings
        return [], reason(error) or type(error).__name__


def measured(side: str, settings: BenchmarkSettings, at_once: int) -> dict[str, object]:
    """The figures of a row; speeds of processes that train at the same time add up, memory is that of one."""
    found, error = attempted(side, settings, at_once)
    alone = len(found) == 1 and "needed" in found[0]
    return {
        "samples_per_second": sum(figures["samples_per_second"] for figures in found) or None,
        "share_of_peak": found[0]["needed"] / found[0]["peak"] if alone else None,
        "peak_memory_bytes": max((figures["peak_memory_bytes"] for figures in found), default=None),
        "error": error,
    }


def measure_gpu(output: Path = Path("gpu.json"), minutes: NonNegativeInt = 10) -> bool:
    """Runs the self-test, writes its file after each measurement, and prints a table.

    Args:
        output: JSON file to write.
        minutes: after so many no further measurement begins.

    Returns:
        Whether the device's gradients are those of the CPU.
    """
    deadline = time.monotonic() + 60 * minutes
    cuda = torch.cuda.is_available()
    asked = BenchmarkSettings(steps=2, warm_up_steps=1, threads=1)
    if cuda:
        asked = BenchmarkSettings(model="roberta-large", precision="bf16-mixed", steps=20, warm_up_steps=10)
    with made_model(asked) as settings:
        content: dict[str, Any] = {"reduced": not cuda, "model": asked.model, "precision": asked.precision}
        found, error = attempted("correctness", replace(settings, batch_size=8))
        passed = error is None and all(found[0][name] <= limit for name, limit in LIMITS.items())
        content["correctness"] = {"passed": passed, "limits": LIMITS, **(found[0] if found else {"error": error})}
        content |= {"rows": [], **origin(settings)}
        for side, batch_size, at_once in planned(cuda):
            row: dict[str, object] = {"side": side, "batch_size": batch_size, "at_once": at_once}
            if time.monotonic() > deadline:
                row |= {**dict.fromkeys(_FIGURES), "error": "not measured: the time was over (--minutes)"}
            else:
                row |= measured(side, replace(settings, batch_size=batch_size), at_once)
            content["rows"].append(row)
            write_json(output, content)
            print(*(f"{name}: {value}" for name, value in row.items() if value is not None), sep=", ", flush=True)
    title = torch.cuda.get_device_name() if cuda else f"{processor()}, reduced: no GPU here"
    print_table(title, content["rows"], _COLUMNS)
    print("the same gradients as on the CPU" if passed else "OTHER GRADIENTS THAN THE CPU", content["correctness"])
    print(f"{output} can be pasted into an issue.")
    return passed
