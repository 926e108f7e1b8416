"""A self-test of one GPU: whether it computes what the CPU does, and how fast it trains. On a CPU in a reduced form."""

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentParser
from rich.console import Console
from rich.table import Column, Table

from benchmarks.data import with_possible_steps
from benchmarks.machine import origin, processor
from benchmarks.models import made_model
from benchmarks.pairs import run_at_once
from benchmarks.settings import BenchmarkSettings, at_least
from common.files import write_json

# Largest ‖g − g'‖ / ‖g‖ of the adapter's gradient between float32 on the CPU and the device, by the device's type
LIMITS = {"float32": 1e-3, "bfloat16": 0.1}


@dataclass(frozen=True)
class Row:
    """One measurement.

    Attributes:
        side: its name in `benchmarks.pairs.SIDES`.
        batch_size: rows of a batch.
        at_once: processes that train at the same time; speeds add up.
        samples_per_second: None where it wasn't measured.
        share_of_peak: of a large product of matrices in the same process, needed work only.
        peak_memory_bytes: of one process.
        error: why there are no figures.
    """

    side: str
    batch_size: int
    at_once: int = 1
    samples_per_second: float | None = None
    share_of_peak: float | None = None
    peak_memory_bytes: float | None = None
    error: str | None = None

    @property
    def speed(self) -> str:
        """As it is printed, or why there is none."""
        return self.error or f"{self.samples_per_second:,.1f} samples/s"


def planned(cuda: bool) -> list[Row]:
    """What is measured, the most telling first."""
    if not cuda:
        return [Row("adaptive_softmax", 4), Row("trainer_peft_lora", 4), Row("adaptive_softmax", 4, at_once=2)]
    ways = ("adaptive_softmax", "trainer_peft_lora", "adaptive_compiled", "adaptive_graphs", "adaptive_nf4")
    alone = [Row(side, size) for size in (32, 512) for side in ways]
    return [*alone, *(Row("adaptive_softmax", 32, at_once=count) for count in (2, 4))]


def measured(row: Row, settings: BenchmarkSettings) -> Row:
    """The row with its figures, or with what went wrong: a self-test goes on."""
    try:
        settings = with_possible_steps(replace(settings, batch_size=row.batch_size))
        found = run_at_once(row.side, settings, row.at_once)
    except Exception as error:  # out of memory, a missing package, a driver's fault: whatever this GPU brings
        return replace(row, error=_reason(error))
    shares = [figures["needed"] / figures["peak"] for figures in found if "needed" in figures]
    return replace(
        row,
        samples_per_second=sum(figures["samples_per_second"] for figures in found),
        share_of_peak=sum(shares) if shares and row.at_once == 1 else None,
        peak_memory_bytes=max(figures["peak_memory_bytes"] for figures in found),
    )


def measure_gpu(arguments: list[str]) -> bool:
    """Runs the self-test, writes its file after each measurement, and prints a table.

    Returns:
        Whether the device's gradients are those of the CPU.
    """
    parser = ArgumentParser(prog="python -m benchmarks gpu", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("gpu.json"), help="JSON file to write")
    parser.add_argument("--minutes", type=int, default=10, help="after so many no further measurement begins")
    parsed = parser.parse_args(arguments)
    at_least("minutes", parsed.minutes, 0)
    deadline = time.monotonic() + 60 * parsed.minutes
    cuda = torch.cuda.is_available()
    asked = BenchmarkSettings(model="tiny", steps=2, warm_up_steps=1, threads=1)
    if cuda:
        asked = BenchmarkSettings(model="roberta-large", precision="bf16-mixed", steps=20, warm_up_steps=10)
    with made_model(asked) as settings:
        content: dict[str, Any] = {"reduced": not cuda, "model": asked.model, "precision": asked.precision}
        content |= {"correctness": _correctness(settings), "rows": [], **origin(settings)}
        for row in planned(cuda):
            late = time.monotonic() > deadline
            row = replace(row, error="not measured: the time was over (--minutes)") if late else measured(row, settings)
            content["rows"].append(asdict(row))
            write_json(parsed.output, content)
            print(f"{row.side}, batch {row.batch_size}, {row.at_once} at once: {row.speed}", flush=True)
    write_json(parsed.output, content)
    Console().print(table(content, torch.cuda.get_device_name() if cuda else f"{processor()}, reduced: no GPU here"))
    print(f"{parsed.output} can be pasted into an issue.")
    return bool(content["correctness"]["passed"])


def _correctness(settings: BenchmarkSettings) -> dict[str, object]:
    try:
        (found,) = run_at_once("correctness", replace(settings, batch_size=8), 1)
    except Exception as error:  # the rest is still worth having
        return {"passed": False, "error": _reason(error)}
    return {**found, "limits": LIMITS, "passed": all(found[name] <= limit for name, limit in LIMITS.items())}


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]


def table(content: dict[str, Any], title: str) -> Table:
    """The rows as a table, with the correctness below."""
    numbers = (Column(name, justify="right") for name in ("batch", "at once", "speed", "of peak", "memory"))
    found = content["correctness"]
    verdict = "the same gradients as on the CPU" if found["passed"] else "OTHER GRADIENTS THAN THE CPU"
    differences = {name: f"{found[name]:.1g} ({limit:g} allowed)" for name, limit in LIMITS.items() if name in found}
    details = found.get("error") or ", ".join(f"{name} {value}" for name, value in differences.items())
    made = Table("side", *numbers, title=title, caption=f"{verdict}: {details}")
    for row in (Row(**entry) for entry in content["rows"]):
        share = "" if row.share_of_peak is None else f"{row.share_of_peak:.1%}"
        memory = "" if row.peak_memory_bytes is None else f"{row.peak_memory_bytes / 2**20:,.0f} MiB"
        made.add_row(row.side, str(row.batch_size), str(row.at_once), row.speed, share, memory)
    return made
