"""Adaptive LoRA-XS with Lightning's own Trainer instead of the command line: `python -m examples.library`.

The module brings the callbacks its method needs: mask sharpness (alpha) grows, and the last epoch's ranks are whole
numbers. Nothing is downloaded: the model comes with an installed package, and the sentences are made on the spot.
Trains for about five minutes on two cores.
"""

from lightning.pytorch import Trainer, seed_everything

from datamodules import QuickstartDataModule
from lightning_modules import OptimizerSettings, TextClassificationModule
from lora import AdaptiveLoRAXS


def main(
    backbone: str = "package:all-MiniLM-L6-v2", sentences: int = 8000, epochs: int = 5
) -> TextClassificationModule:
    """Trains, tests and returns the module."""
    seed_everything(42)
    adapter = AdaptiveLoRAXS(rank_min=5, rank_max=25, rank_average=20, allocation="bounded")
    optimizer = OptimizerSettings(learning_rate=4e-3, head_learning_rate=2e-3, allocation_learning_rate=2e-2)
    module = TextClassificationModule(backbone, adapter, optimizer)
    data = QuickstartDataModule(backbone=backbone, train_sentences=sentences, batching="neighbour_pairs", max_length=64)
    trainer = Trainer(max_epochs=epochs, accelerator="auto", logger=False, enable_checkpointing=False)
    trainer.fit(module, datamodule=data)
    trainer.test(module, datamodule=data)
    print(adapter.discrete_ranks())  # {layer: rank}
    return module


if __name__ == "__main__":
    main()
