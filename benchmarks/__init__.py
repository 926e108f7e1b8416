"""Side-by-side measurements: `python -m benchmarks --output FILE.json`."""
