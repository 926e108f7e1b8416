"""What the figures were measured on, beside them in the output."""

import platform
import sys
from importlib.metadata import distributions
from pathlib import Path

import psutil
import torch

from benchmarks.settings import BenchmarkSettings
from common.code_version import code_version
from common.machine import usable_cores

_PACKAGES = ("torch", "lightning", "transformers", "peft", "accelerate", "datasets", "tokenizers", "numpy")


def origin(settings: BenchmarkSettings) -> dict[str, object]:
    """The part of the output that says where figures come from: machine, versions (None if not there), command."""
    installed = {distribution.name: distribution.version for distribution in distributions()}
    versions = {"rankwise": code_version(), "python": platform.python_version()}
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
