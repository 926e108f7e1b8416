"""What is printed, and what stands beside the figures in the files: machine, versions, command."""

import platform
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import distributions
from pathlib import Path
from typing import Literal

import psutil
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.inputs import BenchmarkSettings
from common.code_version import code_version
from common.machine import usable_cores

_PACKAGES = ("torch", "lightning", "transformers", "peft", "accelerate", "datasets", "tokenizers", "numpy")


def origin(settings: BenchmarkSettings) -> dict[str, object]:
    """The part of the output that says where figures come from: machine, versions (None if not there), command."""
    installed = {distribution.name: distribution.version for distribution in distributions()}
    uses_cuda = settings.device != "cpu" and torch.cuda.is_available()
    machine = {
        "cpu": processor(),
        "device": "cuda" if uses_cuda else "cpu",
        "cores": usable_cores(),
        "threads": settings.thread_count,
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "load_average_at_start": round(psutil.getloadavg()[0], 2),
        "accelerator": torch.cuda.get_device_name() if uses_cuda else None,
        "platform": platform.platform(),
    }
    versions = {"rankwise": code_version(), "python": platform.python_version()}
    return {
        "machine": machine,
        "versions": versions | {name: installed.get(name) for name in _PACKAGES},
        "command": " ".join(["python -m benchmarks", *sys.argv[1:]]),
    }


def processor() -> str:
    """The processor's name, as Linux or else Python knows it."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def number(value: float) -> str:
    """A figure as it is printed."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def print_table(title: str, rows: Sequence[Mapping[str, object]], columns: Mapping[str, str]) -> None:
    """Prints these columns of the rows under their headings: figures, text, and nothing for None."""
    table = Table(title=title)
    for name, heading in columns.items():
        justify: Literal["left", "right"] = "left" if isinstance(rows[0][name], str) else "right"
        table.add_column(heading, justify=justify, overflow="fold")
    for row in rows:
        cells = (row[name] for name in columns)
        table.add_row(*(number(cell) if isinstance(cell, int | float) else str(cell or "") for cell in cells))
    Console().print(table)
