"""What the figures were measured on."""

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
import torch

from benchmarks.settings import Settings, available_cores

_PACKAGES = ("torch", "lightning", "transformers", "peft", "accelerate", "datasets", "tokenizers", "numpy")


def machine(settings: Settings) -> dict[str, Any]:
    """Processor, cores, threads of a measured process, memory, load and system."""
    return {
        "cpu": _processor(),
        "cores": available_cores(),
        "threads": settings.thread_count,
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "load_average_at_start": round(psutil.getloadavg()[0], 2),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "platform": platform.platform(),
    }


def versions() -> dict[str, str | None]:
    """Python and the packages that the figures depend on; None for one that isn't installed."""
    return {"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}}


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
