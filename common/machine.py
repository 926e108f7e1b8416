"""What the process may use of its machine: processor cores, and memory, which it keeps and counts."""

import ctypes
import os
import platform
import resource
import sys
from pathlib import Path

# glibc's mallopt parameters (malloc.h)
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_LARGEST = 2**31 - 1
_TOP_PAD = 64 * 2**20

_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # cgroup version 2, as a container sees its own

GPU_SHARE = "RANKWISE_GPU_SHARE"  # of the GPU's memory, for one of several processes on it
_FOR_TENSORS = 0.95  # the rest is CUDA's own, outside of PyTorch's count


def keep_freed_memory() -> bool:
    """Makes glibc keep what tensors free instead of returning it to the system after every operation.

    A training step on the CPU frees and asks for the same few megabytes hundreds of times; giving them back each time
    means that each page is mapped and zeroed again. Values don't change, only who holds the free memory. Returns
    whether it took effect, which it does on Linux with glibc alone.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    settings = ((_M_MMAP_THRESHOLD, 2**30), (_M_TRIM_THRESHOLD, _LARGEST), (_M_TOP_PAD, _TOP_PAD))
    return all(mallopt(parameter, value) == 1 for parameter, value in settings)


def keep_to_gpu_share() -> None:
    """Lets this process have its share of a GPU that it isn't alone on: one that needs more fails by itself."""
    if (share := float(os.environ.get(GPU_SHARE, "1"))) < 1:
        import torch

        torch.cuda.set_per_process_memory_fraction(_FOR_TENSORS * share)


def peak_resident_bytes() -> int:
    """Most memory this process held. On Linux not getrusage's figure, which a child inherits from its parent."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024


def usable_cores() -> int:
    """Cores, at least 1: those the process may run on, within its container's share of time."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        share, period = _QUOTA.read_text().split()
        cores = min(cores, int(share) // int(period))
    except (OSError, ValueError):  # no such file, or "max"
        pass
    return max(cores, 1)
