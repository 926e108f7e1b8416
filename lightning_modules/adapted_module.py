"""The shared base: a pretrained model, adapted, and trained by groups of parameters."""

from copy import deepcopy
from typing import Any

import torch
import transformers
from lightning.pytorch import LightningModule
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch import Tensor, nn

from common.errors import InputError
from lightning_modules.adapter_import import import_adapter
from lightning_modules.backbone_loading import load_skeleton
from lightning_modules.factor_cache import cached_factorise
from lightning_modules.optimization import OptimizerSettings, make_optimizer, make_schedule
from lora.adapter import Adapter
from lora.dropout import use_sixteen_bit_dropout
from lora.factors import same_fingerprint
from lora.injection import freeze, is_inside, pack_frozen_layers
from lora.rank_allocation import RankAllocation


class AdaptedModule(LightningModule):
    """A pretrained model with a head, adapted by low rank or trained in full.

    Subclasses load their model in `load_model` and define the steps. Callbacks use `adapter`, `rank_allocation`,
    `metric_name`, `parameter_counts` and `epoch_loss`.
    """

    # Checkpoints hold no frozen weights; `on_load_checkpoint` checks that everything else is there.
    strict_loading = False
    architecture: str | None = None  # transformers' class that `load_model` loads, for checks without weights
    higher_is_better = True  # whether the best epoch is the one with the largest `metric_name`

    def __init__(
        self,
        backbone: str,
        adapter: Adapter | None = None,
        optimizer: OptimizerSettings = OptimizerSettings(),  # noqa: B008
        revision: str | None = None,
        init_from: str | None = None,
    ) -> None:
        super().__init__()
        self.backbone_name, self.revision, self.init_from = backbone, revision, init_from
        self.adapter = adapter
        self.optimizer_settings = optimizer
        self.model: Any = None
        self.head_modules: tuple[str, ...] = ()
        self.step_limit = float("inf")
        self.epoch_loss: Tensor
        self.register_buffer("epoch_loss", torch.zeros(2))  # Σ loss over rows, rows: of the epoch so far

    @property
    def rank_allocation(self) -> RankAllocation | None:
        """The learnable rank allocation, if the adapter has one."""
        return self.adapter.rank_allocation if self.adapter is not None else None

    @property
    def metric_name(self) -> str:
        """The metric that chooses the best epoch, logged as `val/metric_name`; known once a trainer is attached."""
        raise NotImplementedError

    @property
    def data(self) -> Any:
        """The data module of the run."""
        return self.trainer.datamodule  # type: ignore[attr-defined]

    def constant_answer(self, split: str) -> str | None:
        """What the model answered for every row of the split just evaluated, or None if answers differed."""
        return None

    def tag_accuracies(self) -> dict[str, float]:
        """Accuracy by tag on the test split just evaluated; empty when its rows have no tags."""
        return {}

    def prediction_table(self, scores: dict[int, list[float]]) -> str:
        """What predict writes, as tab-separated text, from `scores` of `predict_step` by row."""
        raise NotImplementedError

    def load_model(self) -> tuple[nn.Module, tuple[str, ...]]:
        """Loads the pretrained model and names the modules of its head."""
        raise NotImplementedError

    def check_adapter(self) -> None:
        """Tries the adapter on the backbone's shape, without its weights; this module is of no other use afterwards.

        Raises:
            InputError: the adapter doesn't fit, or the backbone can't be found.
        """
        if self.adapter is None or self.architecture is None:
            return
        skeleton, head = load_skeleton(getattr(transformers, self.architecture), self.backbone_name, self.revision)
        self.adapter.check_fit(deepcopy(skeleton), skeleton.config.model_type, head)

    def configure_model(self) -> None:
        """Loads and adapts the model, once.

        On the CPU, whatever device Lightning has made the default: it moves the module afterwards, so that a seed
        draws the same initial weights for every device.
        """
        if self.model is not None:
            return
        with torch.device("cpu"):
            self._build_model()

    def _build_model(self) -> None:
        self.model, self.head_modules = self.load_model()
        if self.adapter is not None:
            freeze(self.model, () if self.adapter.wrap_head else self.head_modules)
            self.adapter.attach(self.model, self.model.config.model_type, self.head_modules, cached_factorise)
        if self.init_from is not None:
            import_adapter(self, self.init_from)
        if self.adapter is not None:
            pack_frozen_layers(self.model)
        use_sixteen_bit_dropout(self.model)
        self.model.train()

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Trainable parameters by group: head, adapter, allocation, backbone."""
        groups: dict[str, list[nn.Parameter]] = {"head": [], "adapter": [], "allocation": [], "backbone": []}
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                rest = "backbone" if self.adapter is None else "adapter"  # an adapter may train parts of the model
                groups["head" if is_inside(name, self.head_modules) else rest].append(parameter)
        for name, parameter in self.adapter.named_parameters() if self.adapter is not None else ():
            groups["allocation" if name.startswith("rank_allocation.") else "adapter"].append(parameter)
        return groups

    def parameter_counts(self) -> dict[str, int]:
        """Trainable parameters as numbers, with their total; a trained backbone counts as adapter."""
        counts = {name: sum(p.numel() for p in group) for name, group in self.parameter_groups().items()}
        counts["adapter"] += counts.pop("backbone")
        return {**counts, "total": sum(counts.values())}

    def training_steps(self) -> int:
        """Optimizer steps of the whole run.

        Raises:
            InputError: the run has no end.
        """
        steps = min(self.trainer.estimated_stepping_batches, self.step_limit)
        if steps == float("inf"):
            raise InputError(
                "trainer.max_epochs is -1, a run without end; allowed: a number of epochs (or trainer.max_steps), "
                "because alpha, budget and learning rate are functions of the step."
            )
        return int(steps)

    def configure_optimizers(self) -> Any:
        optimizer = make_optimizer(self.parameter_groups(), self.optimizer_settings)
        schedule = make_schedule(optimizer, self.optimizer_settings, self.training_steps())
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step", "name": "learning_rate"},
        }

    def refresh_adapter(self) -> None:
        """Prepares the adapted layers for the next pass."""
        if self.adapter is not None:
            self.adapter.refresh()

    def training_loss(self, total: Tensor, counted: Tensor, batch: dict[str, Any]) -> Tensor:
        """The loss to differentiate: this process's share of the mean over the global batch.

        Args:
            total: summed loss of what counts in the batch.
            counted: how much counts: rows, or scored tokens.
            batch: its denominator makes the mean come out, whatever the devices and accumulation.
        """
        self.epoch_loss += torch.stack([total.detach(), counted])
        loss = total / batch["loss_denominator"] + self.regularisation()
        # for the progress bar; callbacks.TrainingLog gives the loggers the mean over processes
        self.log("train/loss", loss.detach(), prog_bar=True, logger=False, batch_size=batch["real_rows"])
        return loss

    def regularisation(self) -> Tensor | float:
        """What the adapter adds to the loss of a training step."""
        return self.adapter.regularisation() if self.adapter is not None else 0.0

    def on_fit_start(self) -> None:
        if self.adapter is not None:
            self.adapter.check_ready_to_train()

    def on_train_epoch_start(self) -> None:
        self.epoch_loss.zero_()

    def on_validation_epoch_start(self) -> None:
        self._prepare_evaluation()

    def on_test_epoch_start(self) -> None:
        self._prepare_evaluation()

    def on_predict_epoch_start(self) -> None:
        self._prepare_evaluation()

    def on_validation_end(self) -> None:
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

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leaves the frozen weights out, and notes what the rest belongs to."""
        kept = self._checkpoint_keys()
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {key: state[key] for key in kept}
        checkpoint["state_dict"]["epoch_loss"] = self._mean_over_processes(state["epoch_loss"])
        checkpoint["rankwise"] = self._identity()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses a checkpoint that doesn't belong to this model.

        Raises:
            InputError: another backbone, adapter, set of layers or shape, other frozen factors, or missing tensors.
        """
        theirs, ours = checkpoint.get("rankwise"), self._identity()
        if theirs is None:
            raise InputError("the checkpoint wasn't written by this project. Pass --ckpt_path last, best or FILE.")
        for name in ("adapter", "backbone", "layers"):
            if theirs[name] != ours[name]:
                raise _mismatch(name, theirs[name], ours[name])
        if (ours["fingerprint"] is None) != (theirs["fingerprint"] is None) or (
            ours["fingerprint"] is not None and not same_fingerprint(ours["fingerprint"], theirs["fingerprint"])
        ):
            raise InputError(
                "the checkpoint was trained on other frozen factors (its fingerprint differs): another backbone "
                "revision, rank_max or rule for the factors. Use the run's own config.yaml, or start a new run."
            )
        self._check_tensors(checkpoint["state_dict"])

    def load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes over the weights of a checkpoint, and nothing else of it.

        Raises:
            InputError: see `on_load_checkpoint`.
        """
        self.on_load_checkpoint(checkpoint)
        self.load_state_dict(checkpoint["state_dict"], strict=False)

    def _check_tensors(self, state: dict[str, Any]) -> None:
        current = self.state_dict()
        expected = set(self._checkpoint_keys())
        if missing := sorted(expected - set(state)):
            raise InputError(f"the checkpoint lacks {missing[0]} (and {len(missing) - 1} more). Use another one.")
        for key in expected:
            ours, theirs = current[key], state[key]
            if isinstance(ours, Tensor) and ours.shape != theirs.shape:
                raise _mismatch(f"shape of {key}", tuple(theirs.shape), tuple(ours.shape))

    def _checkpoint_keys(self) -> list[str]:
        frozen = {name for name, parameter in self.named_parameters() if not parameter.requires_grad}
        state = self.state_dict()
        if self.adapter is None:
            return list(state)
        trained, head = _trained(self), tuple(f"model.{path}." for path in self.head_modules)
        return [
            key
            for key in state
            if key.startswith(head)  # starts at random: frozen under its adapter, it is in no other file
            or (key not in frozen and (key in trained or not key.startswith("model.")))
        ]

    def _identity(self) -> dict[str, Any]:
        return {
            "backbone": self.backbone_name,
            "adapter": self.adapter.name if self.adapter is not None else "full fine-tuning",
            "layers": list(self.adapter.layer_names) if self.adapter is not None else [],
            "fingerprint": self.adapter.fingerprint if self.adapter is not None else None,
        }

    def _mean_over_processes(self, value: Tensor) -> Tensor:
        # Each process restores the mean, so that the sum over processes is kept.
        if self._trainer is None or self.trainer.world_size == 1:
            return value
        return self.trainer.strategy.reduce(value.clone(), reduce_op="mean")


def _trained(module: nn.Module) -> set[str]:
    return {name for name, parameter in module.named_parameters() if parameter.requires_grad}


def _mismatch(name: str, theirs: object, ours: object) -> InputError:
    return InputError(
        f"the checkpoint's {name} is {_short(theirs)}, this run's is {_short(ours)}; allowed: the same. Use the "
        "settings it was trained with (the config.yaml in its run folder), or start a new run with --run_name."
    )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
