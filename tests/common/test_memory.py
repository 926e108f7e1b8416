import subprocess
import sys

import pytest


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallopt is glibc's")
def test_it_takes_effect_with_glibc_and_freed_memory_stays():
    code = """
import ctypes, re
from common.memory import keep_freed_memory
effective = keep_freed_memory()
def resident():
    return int(re.search(r"VmRSS:\\s+(\\d+)", open("/proc/self/status").read())[1])
block = bytearray(200 * 2**20); block[:] = b"x" * len(block)
held = resident(); del block
print(effective, held - resident() < 50 * 2**10)
"""
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert output[0] == output[1]  # kept if, and only if, the settings took effect
