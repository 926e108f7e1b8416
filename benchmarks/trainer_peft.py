"""The reference sides that train with Hugging Face's Trainer and PEFT."""

import tempfile
from collections.abc import Sequence
from typing import Any

import torch
from transformers import (
    DataCollatorForLanguageModeling,
    DataCollatorWithPadding,
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
)

from benchmarks.inputs import SEED, BenchmarkSettings, batches, pretrained_model, training_rows
from benchmarks.timing import Figures, StepWindow
from datamodules.tokenization import TokenizedSplit
from lightning_modules.peft_methods import import_peft
from lora.target_names import DEFAULT_TARGETS

RANK, LORA_ALPHA = 8, 16


def trainer_peft_lora(settings: BenchmarkSettings) -> Figures:
    """Trains plain LoRA (rank 8) with the Trainer, and times the steps as `StepWindow` says.

    The same model, batches (tokenised beforehand), number of steps, AdamW and schedule as ours; each batch is padded
    to its longest row. As ours, it neither evaluates, nor clips gradients; unlike ours, it logs nothing, saves nothing
    and shows no progress.
    """
    return train_with_trainer(settings, _adapted(settings, "LoraConfig", r=RANK))


def trainer_peft_adalora(settings: BenchmarkSettings) -> Figures:
    """The same with AdaLoRA, from rank 12 to 8 on average, its ranks allocated after every step as PEFT asks for."""
    steps = settings.all_steps
    schedule = {"tinit": steps // 10, "tfinal": steps // 10, "deltaT": 10, "total_step": steps}
    model = _adapted(settings, "AdaLoraConfig", init_r=12, target_r=RANK, **schedule)

    class Allocation(TrainerCallback):
        def on_optimizer_step(
            self, arguments: TrainingArguments, state: TrainerState, *others: object, **more: object
        ) -> None:
            model.base_model.update_and_allocate(state.global_step + 1)  # gradients are still there

    return train_with_trainer(settings, model, [Allocation()])


def _adapted(settings: BenchmarkSettings, config_class: str, **method: Any) -> Any:
    peft = import_peft("this pair")
    model = pretrained_model(settings)
    head = ["classifier", "score", "pre_classifier"]
    config = getattr(peft, config_class)(
        task_type="CAUSAL_LM" if settings.models_language else "SEQ_CLS",
        lora_alpha=LORA_ALPHA,
        fan_in_fan_out=model.config.model_type == "gpt2",  # its layers hold their weights as (in, out)
        target_modules=list(DEFAULT_TARGETS[model.config.model_type]),
        modules_to_save=[name for name in head if hasattr(model, name)] or None,
        **method,
    )
    return peft.get_peft_model(model, config)


def train_with_trainer(
    settings: BenchmarkSettings,
    model: PreTrainedModel,
    callbacks: Sequence[TrainerCallback] = (),
    trainer_class: type[Trainer] = Trainer,
    pad_to: int | None = None,
    **arguments: Any,
) -> Figures:
    """Trains a model with Hugging Face's Trainer and times the steps as `StepWindow` says.

    Rows are padded to `pad_to` tokens, or to the longest of their batch. `arguments` are more `TrainingArguments`.
    """
    window = StepWindow(settings)
    chosen: dict[str, Any] = {
        "train_sampling_strategy": "sequential",  # the very batches of our side, which are grouped by length
        "learning_rate": 1e-3,
        "lr_scheduler_type": "linear",
        "warmup_steps": 0.06,  # a share of all steps
        "optim": "adamw_torch_fused",
        "max_grad_norm": 0.0,  # no clipping, as on our side
        "logging_strategy": "no",
        "max_steps": settings.all_steps,
        "per_device_train_batch_size": settings.batch_size,
        "bf16": settings.precision == "bf16-mixed",
        "use_cpu": not torch.cuda.is_available(),
        "dataloader_pin_memory": torch.cuda.is_available(),
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": SEED,
    }

    class Timer(TrainerCallback):
        def on_step_end(self, *arguments: object, **more: object) -> None:
            window.step_ended()

    rows, tokenizer = training_rows(settings)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token  # blocks of text are never padded
    model.config.pad_token_id = tokenizer.pad_token_id
    padding = "longest" if pad_to is None else "max_length"
    collator: Any = DataCollatorWithPadding(tokenizer, padding=padding, max_length=pad_to)
    if settings.models_language:
        collator = DataCollatorForLanguageModeling(tokenizer, mlm=False)
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_class(
            model=model,
            args=TrainingArguments(folder, **{**chosen, **arguments}),
            train_dataset=[example(rows, row) for row in torch.cat(batches(rows.lengths, settings)).tolist()],
            processing_class=tokenizer,
            data_collator=collator,
            callbacks=[*callbacks, Timer()],
        )
        trainer.train()
    return window.figures()


def example(rows: TokenizedSplit, row: int) -> dict[str, object]:
    """A row as the Trainer takes it, its tokens as lists: in memory, which is its fastest way."""
    span = slice(*rows.offsets[row : row + 2].tolist())
    made: dict[str, object] = {"input_ids": rows.input_ids[span].tolist()}
    if rows.token_type_ids is not None:
        made["token_type_ids"] = rows.token_type_ids[span].tolist()
    if rows.labels is not None:  # language modelling has none of its own
        made["labels"] = rows.labels[row].item()
    return made
