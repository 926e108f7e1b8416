"""What the figures were measured on."""

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
import torch

from benchmarks.settings import Settings, available_cores
from common.code_version import code_version
from common.memory import peak_resident_bytes

_PACKAGES = ("torch", "lightning", "transformers", "peft", "accelerate", "datasets", "tokenizers", "numpy")


def machine(settings: Settings) -> dict[str, Any]:
    """Processor, cores, threads of a measured process, memory, load and system."""
    return {
        "cpu": _processor(),
        "device": "cuda" if uses_cuda(settings) else "cpu",
        "cores": available_cores(),
        "threads": settings.thread_count,
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "load_average_at_start": round(psutil.getloadavg()[0], 2),
        "accelerator": torch.cuda.get_device_name() if uses_cuda(settings) else None,
        "platform": platform.platform(),
    }


def uses_cuda(settings: Settings) -> bool:
    """Whether measured processes run on a GPU."""
    return settings.device != "cpu" and torch.cuda.is_available()


def figures(seconds: float, rows: int) -> dict[str, Any]:
    """What every side reports of itself: time, rows, threads, device and the most memory held."""
    cuda = torch.cuda.is_available()
    return {
        "seconds": seconds,
        "rows": rows,
        "threads": torch.get_num_threads(),
        "device": "cuda" if cuda else "cpu",
        "peak_memory_bytes": torch.cuda.max_memory_allocated() if cuda else peak_resident_bytes(),
    }


def versions() -> dict[str, str | None]:
    """This code's commit, Python and the packages that the figures depend on; None for what isn't known."""
    packages = {name: _version(name) for name in _PACKAGES}
    return {"rankwise": code_version(), "python": platform.python_version(), **packages}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()
