"""The mathematics of low-rank adapters: plain PyTorch, no Lightning and no files."""

from lora.adapter import Adapter
from lora.lora import AdaptiveLoRA, LoRA
from lora.lora_xs import AdaptiveLoRAXS, LoRAXS
from lora.nested import NestedLoRA, NestedLoRAXS

__all__ = ["Adapter", "AdaptiveLoRA", "AdaptiveLoRAXS", "LoRA", "LoRAXS", "NestedLoRA", "NestedLoRAXS"]
