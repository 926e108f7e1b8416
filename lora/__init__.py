"""The mathematics of low-rank adapters: plain PyTorch, no Lightning and no files."""

from lora.adapter import Adapter
from lora.lora_xs import AdaptiveLoRAXS, LoRAXS

__all__ = ["Adapter", "AdaptiveLoRAXS", "LoRAXS"]
