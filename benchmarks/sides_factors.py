"""Frozen factors of all adapted layers: worked out, and read from the cache."""

import os
import tempfile
from typing import Any

from benchmarks.machine import figures
from benchmarks.settings import Settings
from benchmarks.sides_ours import RANK_MAX
from benchmarks.sides_peft import pretrained_model
from benchmarks.timing import now
from lightning_modules.factor_cache import cached_factorise
from lora.injection import choose_layers
from lora.layers import dense_weight


def factors(settings: Settings) -> dict[str, Any]:
    """Seconds for the SVD of the default layers at rank 25 with an empty cache, then with a full one."""
    model = pretrained_model(settings)
    layers = choose_layers(model, model.config.model_type, "default")
    weights = [dense_weight(layer) for layer in layers.values()]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["RANKWISE_CACHE"] = folder
        times = []
        for _ in range(2):
            started = now()
            cached_factorise(weights, RANK_MAX, "svd")
            times.append(now() - started)
    return {**figures(sum(times), len(weights)), "cold": times[0], "cached": times[1]}
