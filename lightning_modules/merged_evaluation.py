"""How an adapted module is evaluated: with merged weights where that is exact, and which figures came of it."""

from typing import Any

from lightning.pytorch import LightningModule
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy

from lora.adapter import Adapter


class MergedEvaluation(LightningModule):
    """Merges the adapter into the frozen weights for each evaluation, and parts them again after it."""

    adapter: Adapter | None

    def __init__(self) -> None:
        super().__init__()
        self._validated_epoch = -1

    @property
    def data(self) -> Any:
        """The data module of the run."""
        return self.trainer.datamodule  # type: ignore[attr-defined]

    def validation_figures(self) -> dict[str, float]:
        """Figures of the validation splits by their tags; empty if this epoch has had no validation."""
        if self._validated_epoch != self.trainer.current_epoch:
            return {}  # Lightning keeps those of an earlier epoch
        figures = self.trainer.callback_metrics.items()
        return {name: float(value) for name, value in figures if name.partition("/")[0] in self.data.validation_names}

    def refresh_adapter(self) -> None:
        """Prepares the adapted layers for the next pass."""
        if self.adapter is not None:
            self.adapter.refresh()

    def on_validation_epoch_start(self) -> None:
        self._prepare_evaluation()

    def on_test_epoch_start(self) -> None:
        self._prepare_evaluation()

    def on_predict_epoch_start(self) -> None:
        self._prepare_evaluation()

    def on_validation_end(self) -> None:
        if not self.trainer.sanity_checking:
            self._validated_epoch = self.trainer.current_epoch
        self._end_evaluation()

    def on_test_end(self) -> None:
        self._end_evaluation()

    def on_predict_end(self) -> None:
        self._end_evaluation()

    def _prepare_evaluation(self) -> None:
        """Hands the adapter over, merged into the frozen weights where rounding and the strategy allow it."""
        self.refresh_adapter()
        # in 16 bits W + ΔW would lose most of ΔW; a sharded W can't be added to
        whole = isinstance(self.trainer.strategy, SingleDeviceStrategy | DDPStrategy)
        if self.adapter is not None and whole and self.trainer.precision == "32-true":
            self.adapter.merge()

    def _end_evaluation(self) -> None:
        if self.adapter is not None:
            self.adapter.unmerge()
