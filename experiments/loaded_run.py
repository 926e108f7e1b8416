"""A run's model in memory, as exports need it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from callbacks.checkpoints import read_checkpoint
from datamodules.loaders import Batch
from datamodules.tokenized_data import TokenizedDataModule
from experiments.results import RunResults
from experiments.settings import Objects, Settings
from experiments.trainer_parts import evaluation_trainer
from lightning_modules.adapted_module import AdaptedModule

# Exports are compared digit by digit, whatever machine and precision the run was trained with.
ON_THE_CPU = {
    "trainer.accelerator": "cpu",
    "trainer.devices": 1,
    "trainer.strategy": "auto",
    "trainer.precision": "32-true",
}


@dataclass(frozen=True)
class LoadedRun:
    """A run at one moment, its model in memory.

    Attributes:
        folder: the run folder.
        checkpoint: the file the weights come from.
        epoch: the epoch it was written in.
        ranks_are_discrete: whether the run had made its ranks discrete for good by then, or has none to learn.
        config: the run's settings, as plain values.
        results: None if the run didn't finish.
        module: the trained module, in evaluation mode, at its discrete ranks.
        data: the data module, set up.
    """

    folder: Path
    checkpoint: Path
    epoch: int
    ranks_are_discrete: bool
    config: dict[str, Any]
    results: RunResults | None
    module: AdaptedModule
    data: TokenizedDataModule

    def batches(self) -> list[Batch]:
        """Up to three validation batches, from the shortest rows to the longest."""
        loader = self.data.val_dataloader()[0]
        chosen = (0, round((len(loader) - 1) / 2), len(loader) - 1)
        return [batch for place, batch in enumerate(loader) if place in chosen]

    def metrics(self) -> dict[str, float]:
        """Validation figures of this moment's epoch in results.json; empty if there are none."""
        for entry in self.results.validations if self.results is not None else []:
            if entry["epoch"] == self.epoch:
                return {name: value for name, value in entry.items() if name != "epoch" and value is not None}
        return {}


def load_run(path: Path, settings: Settings, objects: Objects, folder: Path, results: RunResults | None) -> LoadedRun:
    """The model with the weights of the checkpoint at `path`, at its discrete ranks: see `Run.load`."""
    trainer, module, data = evaluation_trainer(objects, []), objects.module, objects.data
    trainer.datamodule = data  # type: ignore[attr-defined]
    module.trainer = trainer
    content = read_checkpoint(path)
    data.setup("fit")
    module.configure_model()
    module.load_checkpoint(content)
    module.use_discrete_ranks()
    notes = [value for key, value in content["state_dict"].items() if key.endswith("_extra_state")]
    return LoadedRun(
        folder=folder,
        checkpoint=path,
        epoch=int(content["epoch"]),
        ranks_are_discrete=module.rank_allocation is None or any(bool(note.get("discrete")) for note in notes),
        config=settings.plain,
        results=results,
        module=module.eval(),
        data=data,
    )
