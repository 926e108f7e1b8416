"""The reference side of `trainer_peft_lora`: Hugging Face Trainer and PEFT's LoRA."""

import itertools
import tempfile
from typing import Any

import torch

from benchmarks.data import training_rows
from benchmarks.settings import BACKBONE, BATCH_SIZE, SEED, Settings
from benchmarks.timing import StepWindow
from common.backbones import locate_backbone
from common.errors import InputError
from datamodules.tokenization import TokenizedSplit

RANK = 8
TARGETS = ("query", "value", "attention.output.dense", "output.dense")


def trainer_peft_lora(settings: Settings) -> dict[str, Any]:
    """Trains plain LoRA (rank 8) with the Trainer, and times the steps as `StepWindow` says.

    The same model, rows (tokenised beforehand), batch size, number of steps, AdamW and schedule as ours; batches
    grouped by length with the lengths given, and padded to their longest row. As ours, it neither evaluates, nor
    clips gradients; unlike ours, it logs nothing, saves nothing and shows no progress.
    """
    _refuse_without_packages()
    from transformers import DataCollatorWithPadding, Trainer

    window = StepWindow(settings.warm_up_steps, settings.steps)
    rows, tokenizer = training_rows(settings, settings.steps * BATCH_SIZE)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=_model(),
            args=_arguments(settings, folder),
            train_dataset=_dataset(rows),
            processing_class=tokenizer,
            data_collator=DataCollatorWithPadding(tokenizer),
            callbacks=[_timer(window)],
        )
        trainer.train()
    assert window.complete and len(rows) == settings.steps * BATCH_SIZE
    return {"seconds": window.seconds, "rows": len(rows), "threads": torch.get_num_threads()}


def _refuse_without_packages() -> None:
    try:
        import accelerate  # noqa: F401
        import peft  # noqa: F401
    except ImportError as error:
        raise InputError(f"trainer_peft_lora needs {error.name}. Run `pip install -e '.[peft]'`.") from error


def _model() -> Any:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification, set_seed
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    set_seed(SEED)
    model = AutoModelForSequenceClassification.from_pretrained(
        locate_backbone(BACKBONE), num_labels=2, dtype=torch.float32
    )
    config = LoraConfig(
        task_type="SEQ_CLS", r=RANK, lora_alpha=16, target_modules=list(TARGETS), modules_to_save=["classifier"]
    )
    return get_peft_model(model, config)


def _arguments(settings: Settings, folder: str) -> Any:
    from transformers import TrainingArguments

    steps = settings.warm_up_steps + settings.steps
    return TrainingArguments(
        output_dir=folder,
        max_steps=steps,
        per_device_train_batch_size=BATCH_SIZE,
        train_sampling_strategy="group_by_length",  # the lengths are in the column `length`
        learning_rate=1e-3,
        lr_scheduler_type="linear",
        warmup_steps=0.06,  # a share of all steps
        optim="adamw_torch_fused",
        max_grad_norm=0.0,  # no clipping, as on our side
        dataloader_num_workers=0,
        dataloader_pin_memory=torch.cuda.is_available(),
        eval_strategy="no",
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=SEED,
    )


def _dataset(rows: TokenizedSplit) -> Any:
    """The rows as a `datasets.Dataset`, with the lengths that grouping needs."""
    from datasets import Dataset

    ends = rows.offsets.tolist()
    spans = list(itertools.pairwise(ends))
    tokens = rows.input_ids.tolist()
    columns: dict[str, Any] = {
        "input_ids": [tokens[start:end] for start, end in spans],
        "attention_mask": [[1] * (end - start) for start, end in spans],
        "length": [end - start for start, end in spans],
    }
    if rows.token_type_ids is not None:
        types = rows.token_type_ids.tolist()
        columns["token_type_ids"] = [types[start:end] for start, end in spans]
    assert rows.labels is not None
    return Dataset.from_dict({**columns, "labels": rows.labels.tolist()})


def _timer(window: StepWindow) -> Any:
    from transformers import TrainerCallback

    class Timer(TrainerCallback):
        def on_step_end(self, *arguments: Any, **more: Any) -> None:
            window.step_ended()

        def on_epoch_begin(self, *arguments: Any, **more: Any) -> None:
            window.epoch_started()

        def on_epoch_end(self, *arguments: Any, **more: Any) -> None:
            window.epoch_ended()

    return Timer()
