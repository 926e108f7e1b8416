"""Products with frozen weights, prepared once: what makes a training step fast on the CPU and under autocast."""
