"""A module as callbacks see it; `lightning_modules.AdaptedModule` is one, and brings some of them along."""

import math
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor, nn
from torch.optim import Optimizer

from callbacks.training_record import TrainingRecord
from common.errors import InputError
from datamodules.loaders import Batch as Batch
from lora.adapter import Adapter
from lora.rank_allocation import RankAllocation

if TYPE_CHECKING:
    from lightning_modules.peft_adalora import AdaLoRABudget


class TrainedModule(LightningModule):
    """What callbacks use: the adapter, the run measured in optimizer steps, its record, and the module's figures.

    Schedules are pure functions of the step, so resuming needs no state.
    """

    backbone_name: str
    model: Any
    higher_is_better = True  # whether the best epoch is the one with the largest `metric_name`

    def __init__(self, adapter: Adapter | None) -> None:
        super().__init__()
        self.adapter = adapter
        self.record = TrainingRecord()
        self.step_limit = math.inf  # of the run; set by callbacks.StepLimit
        self.epochs_rank_discrete = 0  # at the run's end; set by callbacks.RankDiscretisation
        self._validated_epoch = -1

    @property
    def data(self) -> Any:
        return self.trainer.datamodule  # type: ignore[attr-defined]

    @property
    def rank_allocation(self) -> RankAllocation | None:
        return self.adapter.rank_allocation if self.adapter is not None else None

    @property
    def adalora(self) -> "AdaLoRABudget | None":
        """The rank budget of PEFT's AdaLoRA, if that is the adapter."""
        return getattr(self.adapter, "adalora", None)

    @property
    def metric_name(self) -> str:
        """The metric that chooses the best epoch, logged as `val/metric_name`; known once a trainer is attached."""
        raise NotImplementedError

    @property
    def figure_names(self) -> tuple[str, ...]:
        """The names of `split_figures`; known once the data are set up."""
        raise NotImplementedError

    def head_optimizer(self) -> Optimizer | None:
        """A new optimizer of the head alone, with the run's settings; None without a head."""
        raise NotImplementedError

    def load_model(self) -> tuple[nn.Module, tuple[str, ...]]:
        """Loads the pretrained model and names the modules of its head."""
        raise NotImplementedError

    def split_figures(self, split: str) -> dict[str, Tensor]:
        """Figures by name of the split just evaluated; what collected them starts anew.

        Every process asks for them, also one that had no batch of this split.
        """
        raise NotImplementedError

    def constant_answer(self, split: str) -> str | None:
        """What the model answered for every row of the split just evaluated, or None if answers differed."""
        return None

    def tag_accuracies(self) -> dict[str, float]:
        """Accuracy by tag on the test split just evaluated; empty when its rows have no tags."""
        return {}

    def prediction_table(self, scores: dict[int, list[float]]) -> str:
        """What predict writes, as tab-separated text, from `scores` of `predict_step` by row."""
        raise NotImplementedError

    def mean_epoch_loss(self) -> float:
        """Mean training loss of the epoch so far over all processes, which must all ask; NaN if none was finite."""
        raise NotImplementedError

    def log_now(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Hands metrics straight to the loggers, by default for the optimizer step that has just been made."""
        for logger in self.trainer.loggers:
            logger.log_metrics(metrics, step=self.trainer.global_step - 1 if step is None else step)

    def validation_figures(self) -> dict[str, float]:
        """Figures of the validation splits by their tags; empty if this epoch has had no validation."""
        if self._validated_epoch != self.trainer.current_epoch:
            return {}  # Lightning keeps those of an earlier epoch
        figures = self.trainer.callback_metrics.items()
        return {name: float(value) for name, value in figures if name.partition("/")[0] in self.data.validation_names}

    def on_validation_end(self) -> None:
        if not self.trainer.sanity_checking:
            self._validated_epoch = self.trainer.current_epoch

    def use_discrete_ranks(self) -> None:
        """Takes the discrete ranks of this moment and hands them to the layers: for evaluation and export."""
        if self.rank_allocation is not None:
            self.rank_allocation.discretise()
        self.refresh_adapter()

    def refresh_adapter(self) -> None:
        """Prepares the adapted layers for the next pass."""
        if self.adapter is not None:
            self.adapter.refresh()

    def training_steps(self) -> int:
        """Optimizer steps of the whole run; `InputError`: the run has no end."""
        steps = min(self.trainer.estimated_stepping_batches, self.step_limit)
        if steps == math.inf:
            raise InputError(
                "trainer.max_epochs is -1, a run without end; allowed: a number of epochs (or trainer.max_steps), "
                "because alpha, budget and learning rate are functions of the step."
            )
        return int(steps)

    def steps_per_epoch(self) -> int:
        return math.ceil(self.trainer.num_training_batches / self.trainer.accumulate_grad_batches)

    def soft_steps(self) -> int:
        """Optimizer steps of the run before ranks become discrete for good."""
        return max(0, self.training_steps() - self.epochs_rank_discrete * self.steps_per_epoch())

    def ends_step(self, batch_idx: int) -> bool:
        """Whether an optimizer step ends with this batch of the epoch; the epoch's last batch always ends one."""
        batches = batch_idx + 1
        return batches % self.trainer.accumulate_grad_batches == 0 or batches >= self.trainer.num_training_batches


class StepCallback(Callback):
    """A callback that acts when an optimizer step has ended."""

    def on_step_end(self, trainer: Trainer, pl_module: TrainedModule) -> None:
        """Called when the step's last batch has ended: gradients are still there, and `global_step` counts the step."""
        raise NotImplementedError

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: TrainedModule, outputs: STEP_OUTPUT, batch: Batch, batch_idx: int
    ) -> None:
        if pl_module.ends_step(batch_idx):
            self.on_step_end(trainer, pl_module)
