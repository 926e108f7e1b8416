"""What the models are trained on: one data module per data set."""

from importlib import import_module
from typing import Any

_HOMES = {
    "AGNewsDataModule": "datamodules.ag_news",
    "GLUEDataModule": "datamodules.glue",
    "LanguageModellingDataModule": "datamodules.language_modelling",
    "PlainTextDataModule": "datamodules.plain_text",
    "QuickstartDataModule": "datamodules.quickstart",
    "TableDataModule": "datamodules.table",
    "TextClassificationDataModule": "datamodules.text_classification",
    "WikiTextDataModule": "datamodules.wikitext",
}
__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    # On first use: `import datamodules` alone stays cheap.
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
