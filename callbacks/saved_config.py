"""config.yaml: the complete settings of a run, which run it again unchanged."""

from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from common.files import write_text


class SavedConfig(Callback):
    """Writes the settings into the run folder when training begins: a run that never began leaves nothing.

    Args:
        folder: the run folder.
        text: the settings as YAML.
    """

    def __init__(self, folder: Path, text: str) -> None:
        self.path, self.text = folder / "config.yaml", text

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            write_text(self.path, self.text)
