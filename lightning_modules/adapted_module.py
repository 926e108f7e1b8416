"""The shared base: a pretrained model, adapted, and trained by groups of parameters."""

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from lightning.pytorch import Callback
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from callbacks.lightning_callbacks import check_monitors, refuse_unsuitable
from callbacks.trained_module import Batch
from callbacks.training_record import TrainingRecord
from common.terminal import logger
from lightning_modules.accepted_settings import callbacks_for, check_attention, check_precision
from lightning_modules.adapter_import import adapter_kind, import_adapter
from lightning_modules.attention_masks import accept_ready_masks, with_ready_mask
from lightning_modules.backbone_loading import load_skeleton
from lightning_modules.backbone_sketch import backbone_identity, check_data, check_files, data_identity
from lightning_modules.checkpoint_content import (
    check_content,
    check_training_state,
    checkpoint_keys,
    identity,
    training_identity,
)
from lightning_modules.compiled_step import check_compiling, compiled
from lightning_modules.factor_cache import cached_factorise
from lightning_modules.optimization import OptimizedModule, OptimizerSettings, apply_settings
from lightning_modules.quantization import BackboneDtype, BackboneStorage, Quantization, enable_checkpointing
from lora.adapter import Adapter
from lora.dropout import use_sixteen_bit_dropout
from lora.injection import describe_share, freeze, matrix_sizes, may_leave_parameters_out, prepare_frozen_layers


class AdaptedModule(OptimizedModule):
    """A pretrained model with a head, adapted by low rank or trained in full.

    Subclasses load their model, and say what a batch costs and how it is evaluated.

    Args:
        backbone: hub name, folder, .gguf file, or package:NAME for a model carried by an installed package.
        adapter: lora.LoRA, lora.AdaptiveLoRA, lora.NestedLoRA, lora.LoRAXS, lora.AdaptiveLoRAXS, lora.NestedLoRAXS,
            lightning_modules.PEFTAdapter, or null for full fine-tuning.
        optimizer: rates, weight decay and schedule.
        revision: branch, tag or commit of the backbone on the hub.
        init_from: folder of an export (native, or any PEFT LoRA) to start from; a checkpoint takes precedence.
        backbone_dtype: type in which frozen weights are held; bfloat16 halves their memory. What trains is float32.
        quantization: hold the frozen linear layers in 4 bits (nf4) or 8 (int8). This needs bitsandbytes.
        gradient_checkpointing: compute activations again in the backward pass, which saves memory and takes time.
        compile: compile the training step with torch.compile, once for all lengths. This makes the start slower.
        cuda_graphs: record the training step as a CUDA graph for each length, so that a GPU doesn't wait for launches.
            With data.length_multiple there are few lengths.
    """

    # Checkpoints hold no frozen weights; `on_load_checkpoint` checks that everything else is there.
    strict_loading = False
    architecture: str | None = None  # transformers' class that `load_model` loads, for checks without weights
    needs_all_weights = False  # whether no part of the model may start at random
    brings_its_head = False  # whether the backbone is an export, which answers with its own head or not at all
    sees_padding = False  # whether rows of different length have to go through the model apart
    takes_ready_masks = False
    _compiled_loss: Any = None

    def __init__(
        self,
        backbone: str,
        adapter: Adapter | None = None,
        optimizer: OptimizerSettings = OptimizerSettings(),  # noqa: B008
        revision: str | None = None,
        init_from: str | None = None,
        backbone_dtype: BackboneDtype = "float32",
        quantization: Quantization | None = None,
        gradient_checkpointing: bool = False,
        compile: bool = False,
        cuda_graphs: bool = False,
    ) -> None:
        super().__init__(adapter)
        self.storage = BackboneStorage(backbone_dtype, quantization)
        self.gradient_checkpointing = gradient_checkpointing
        self.compiles, self.captures = compile, cuda_graphs
        self.backbone_name, self.revision, self.init_from = backbone, revision, init_from
        self.optimizer_settings = optimizer
        self.model: Any = None
        self.backbone_about: dict[str, Any] = {}  # what a checkpoint notes of them, known once the model is loaded
        self.data_about: dict[str, Any] = {}
        self.epoch_loss: Tensor
        self.register_buffer("epoch_loss", torch.zeros(2))  # Σ loss over rows, rows: of the epoch so far

    def make_metrics(self) -> None:
        """Makes what collects the figures of each split that is evaluated."""
        raise NotImplementedError

    def batch_loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Summed loss of a training batch, and how much counts in it: rows, or scored tokens."""
        raise NotImplementedError

    def evaluate_batch(self, batch: Batch, split: str) -> None:
        """Adds a batch to the figures of its split."""
        raise NotImplementedError

    def configure_callbacks(self) -> list[Callback]:
        """What training and evaluating this module needs to be right; one of a kind that the trainer has wins.

        `InputError`: the trainer has a callback that doesn't work here.
        """
        present: list[Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
        refuse_unsuitable(present)
        needed = callbacks_for(self.adapter, present)
        return [callback for callback in needed if not any(isinstance(other, type(callback)) for other in present)]

    def setup(self, stage: str) -> None:
        if stage == "fit":
            check_monitors(self.trainer.callbacks, self)  # type: ignore[attr-defined]
        if stage == "fit" and self.trainer.global_step == 0:  # else the same trainer goes on
            self.record = TrainingRecord()

    def check_shape(self) -> None:
        """Tries settings and adapter on the backbone without its weights; this module is of no other use afterwards.

        `InputError`: they don't fit, or the backbone or what it starts from can't be found or isn't whole.
        """
        if self.init_from is not None:
            adapter_kind(self.init_from)
        if self.architecture is None:
            return
        check_files(Path(self.backbone_name).expanduser())
        model, head = self._skeleton()
        self.check_model(model)
        if self.adapter is not None:
            self.adapter.check_fit(model, model.config.model_type, head)

    def _skeleton(self) -> tuple[transformers.PreTrainedModel, tuple[str, ...]]:
        """A copy of the backbone's shape, and the modules of its head."""
        auto_class = getattr(transformers, str(self.architecture))
        found = load_skeleton(auto_class, self.backbone_name, self.revision, self.needs_all_weights)
        return deepcopy(found[0]), found[1]

    def may_leave_parameters_out(self) -> bool:
        """Whether a step may have no gradient of a part of what trains: see `lora.injection`."""
        if self.architecture is None:
            return False
        model, head = self._skeleton()
        if self.adapter is not None:  # its layers act: it has tried them
            freeze(model, () if self.adapter.wrap_head else head)
        return may_leave_parameters_out(model)

    def check_model(self, model: transformers.PreTrainedModel) -> None:
        """Refuses a model, maybe on the meta device, that can't be trained with these settings; sets up others.

        `InputError`: its attention can't run here, or it can't be compiled or checkpointed as asked for.
        """
        check_attention(self, model)
        self.takes_ready_masks = not self.sees_padding and accept_ready_masks(model)
        check_compiling(self, model.config.model_type, self.takes_ready_masks)
        if self.gradient_checkpointing:
            enable_checkpointing(model, self.backbone_name)

    def configure_model(self) -> None:
        """Loads and adapts the model, once.

        On the CPU, whatever device Lightning has made the default: it moves the module afterwards, so that a seed
        draws the same initial weights for every device.
        """
        if self.model is not None:
            return
        check_precision(self)
        with torch.device("cpu"):
            self._build_model()

    def _build_model(self) -> None:
        if not self.brings_its_head:  # else `--export` has checked them
            check_files(Path(self.backbone_name).expanduser())
        self.model, self.head_modules = self.load_model()
        self.check_model(self.model)
        self.backbone_about = backbone_identity(self.model, self.head_modules, self.adapter is not None)
        self.data_about = data_identity(self.data)
        if self.brings_its_head and self.data_about["classes"]:
            labels = list(self.model.config.id2label.values())
            check_data(self.data_about, {"classes": labels}, f"the model in {self.backbone_name}", with_head=True)
        self.make_metrics()
        if self.adapter is not None:
            freeze(self.model, () if self.adapter.wrap_head else self.head_modules)
            sizes = matrix_sizes(self.model, self.head_modules)
            self.adapter.attach(self.model, self.model.config.model_type, self.head_modules, cached_factorise)
            if self.trainer.state.fn == "fit" and getattr(self.adapter, "targets", None) == "all-linear":
                logger.info(describe_share(sizes, self.adapter.layer_names))
        if self.init_from is not None:
            import_adapter(self, self.init_from)
        if self.adapter is not None:
            self.storage.pack(self.model, self.head_modules, self.adapter.layer_names)
            prepare_frozen_layers(self.model)
            self.adapter.join_layers(self.model)
        use_sixteen_bit_dropout(self.model)
        self.trainer.precision_plugin.convert_module(self)  # before a checkpoint's float64 would be rounded
        self.model.train()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss to differentiate: this process's share of the mean over the global batch.

        The batch's denominator makes the mean come out, whatever the devices and accumulation.
        """
        total, counted = (self._compiled_loss or self.refreshed_loss)(batch)
        loss = total / batch["loss_denominator"]
        if self.adapter is not None and isinstance(more := self.adapter.regularisation(), Tensor):
            loss = loss + more
        sound = torch.rsub(loss.detach(), 1, alpha=0)  # 1 - 0 · loss: 1, or NaN if it isn't finite
        rows = torch.stack([total.detach(), counted]) * sound
        self.epoch_loss += rows.nan_to_num(0, 0, 0)  # one batch doesn't spoil the epoch's mean
        return loss * sound  # NaN makes every gradient NaN

    def ready_batch(self, batch: Batch) -> Batch:
        """A batch of the loader without what training doesn't use, and with a mask that no layer has to make."""
        if self.trainer.training:
            batch = cast(Batch, {name: value for name, value in batch.items() if name not in ("row", "tag")})
        if not self.takes_ready_masks:
            return batch
        kind, precision = self.model.config.model_type, str(self.trainer.precision)
        always = self.trainer.training and (self.compiles or self.captures)
        return {**batch, "inputs": with_ready_mask(batch["inputs"], kind, precision, always)}

    def refreshed_loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """`batch_loss` with the adapter as its parameters are now."""
        self.refresh_adapter()
        return self.batch_loss(batch)

    def mean_epoch_loss(self) -> float:
        total, counted = self.trainer.strategy.reduce(self.epoch_loss.clone(), reduce_op="sum").tolist()
        return total / counted if counted else float("nan")

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.evaluate_batch(batch, self.data.validation_names[dataloader_idx])

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.evaluate_batch(batch, self.data.test_names[dataloader_idx])

    def on_validation_epoch_end(self) -> None:
        self._log_figures(self.data.validation_names)

    def on_test_epoch_end(self) -> None:
        self._log_figures(self.data.test_names)

    def _log_figures(self, splits: Sequence[str]) -> None:
        for split in splits:
            for name, value in self.split_figures(split).items():
                self.log(f"{split}/{name}", value, prog_bar=name == self.metric_name)

    def on_train_start(self) -> None:
        """Lets a resumed run go on with its own optimizer settings and length: the checkpoint's have been restored."""
        if self.trainer.ckpt_path is not None:
            schedule = self.lr_schedulers()
            assert isinstance(schedule, LambdaLR)
            apply_settings(self.trainer.optimizers[0], schedule, self.optimizer_settings)
        if self.compiles or self.captures:
            self._compiled_loss = compiled(self, self.captures, self.compiles)

    def on_train_epoch_start(self) -> None:
        self.epoch_loss.zero_()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leaves the frozen weights out, and notes what the rest belongs to."""
        state = checkpoint["state_dict"]
        total = self.trainer.strategy.reduce(state["epoch_loss"].clone(), reduce_op="sum")
        checkpoint["state_dict"] = {key: state[key] for key in checkpoint_keys(self)} | {"epoch_loss": total}
        checkpoint["rankwise"] = identity(self) | training_identity(self)
        self.record.save(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses a checkpoint that doesn't belong to this model, and takes up its record of training.

        `InputError`: see `check_content`, and where training goes on `check_training_state`.
        """
        self._check_checkpoint(checkpoint)
        if self.trainer.state.fn == "fit":
            check_training_state(self, checkpoint)
        self.record = TrainingRecord.of(checkpoint)

    def load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes over the weights of a checkpoint, and nothing else of it; `InputError`: see `on_load_checkpoint`."""
        self._check_checkpoint(checkpoint)
        self.load_state_dict(checkpoint["state_dict"], strict=False)

    def _check_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        check_content(self, checkpoint)
        state = checkpoint["state_dict"]
        # Each process takes its part, so that the sum over processes is kept, however many they are.
        state["epoch_loss"] = state["epoch_loss"] / (self.trainer.world_size if self._trainer is not None else 1)
