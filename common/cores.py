"""How many processor cores this process may use, which in a container or a job is less than the machine has."""

import os
from pathlib import Path

_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # cgroup version 2, as a container sees its own


def usable_cores() -> int:
    """Cores, at least 1: those the process may run on, within its container's share of time."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(min(cores, _quota() or cores), 1)


def _quota() -> int | None:
    """The container's share in whole cores, or None where there is no limit."""
    try:
        share, period = _QUOTA.read_text().split()
        return max(int(share) // int(period), 1)
    except (OSError, ValueError):  # no such file, or "max"
        return None
