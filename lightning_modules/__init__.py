"""What is trained: one shared base, and one module per kind of task."""

from lightning_modules.adapted_module import AdaptedModule
from lightning_modules.language_modelling import LanguageModellingModule
from lightning_modules.optimization import OptimizerSettings
from lightning_modules.peft_adapter import PEFTAdapter
from lightning_modules.text_classification import TextClassificationModule

__all__ = ["AdaptedModule", "LanguageModellingModule", "OptimizerSettings", "PEFTAdapter", "TextClassificationModule"]
