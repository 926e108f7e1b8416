"""config.yaml: the complete settings of a run, which run it again unchanged."""

import contextlib
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from common.files import write_text


class SavedConfig(Callback):
    """Writes the settings as YAML into the run folder when training begins: a run that never began leaves nothing.

    A finished run that goes on keeps its figures so far as results.previous.json and ranks.previous.json: they belong
    to the settings before.
    """

    def __init__(self, folder: Path, text: str) -> None:
        self.path, self.text = folder / "config.yaml", text

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        for name in ("results", "ranks"):
            with contextlib.suppress(FileNotFoundError):
                path = self.path.with_name(f"{name}.json")
                path.replace(path.with_name(f"{name}.previous.json"))
        write_text(self.path, self.text)
