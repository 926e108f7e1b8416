"""Side-by-side measurements: `python -m benchmarks --output FILE.json`."""

from common.terminal import quiet_libraries

quiet_libraries()  # before PEFT is imported, in measured processes, too
