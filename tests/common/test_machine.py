import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallopt is glibc's")
def test_it_takes_effect_with_glibc_and_freed_memory_stays():
    code = """
import ctypes, re
from common.machine import keep_freed_memory
effective = keep_freed_memory()
def resident():
    return int(re.search(r"VmRSS:\\s+(\\d+)", open("/proc/self/status").read())[1])
block = bytearray(200 * 2**20); block[:] = b"x" * len(block)
held = resident(); del block
print(effective, held - resident() < 50 * 2**10)
"""
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert output[0] == output[1]  # kept if, and only if, the settings took effect


def test_the_peak_is_the_processs_own_not_its_parents():
    """getrusage's is inherited: a small run begun by a large notebook would report the notebook's."""
    held = bytearray(300 * 2**20)
    code = "from common.machine import peak_resident_bytes as p; a = p(); b = bytearray(60 * 2**20); print(a, p())"
    root = Path(__file__).parents[2]
    told = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True).stdout
    before, after = map(int, told.split())
    assert len(held) > before and after - before > 50 * 2**20
