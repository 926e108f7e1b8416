"""The reference side without an adapter: the frozen backbone's own arithmetic, and nothing around it."""

import itertools
from collections.abc import Iterator

import torch
from lightning.pytorch import LightningDataModule
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from benchmarks.data import data_module, epoch_rows
from benchmarks.models import pretrained_model
from benchmarks.settings import BenchmarkSettings
from benchmarks.timing import Figures, StepWindow, training_figures
from callbacks.trained_module import Batch
from common.machine import keep_freed_memory
from lightning_modules.first_token import use_first_token_only
from lora.dropout import use_sixteen_bit_dropout
from lora.injection import freeze, prepare_frozen_layers


def frozen_backbone(settings: BenchmarkSettings) -> Figures:
    """Forward and activation backward of the frozen model, made as fast as ours.

    Batches as ours, in the same order; no optimizer, no adapter, no Lightning, nothing recorded.
    """
    model = pretrained_model(settings)
    freeze(model, ())
    # from the first layer's input on, as no parameter asks for gradients
    model.get_input_embeddings().register_forward_hook(lambda module, inputs, output: output.requires_grad_())
    model.train()
    make_fast(model)
    keep_freed_memory()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device)
    data = data_module(settings, epoch_rows(settings))
    data.setup("fit")
    model.config.pad_token_id = data.tokenizer.pad_token_id
    window = StepWindow(settings.warm_up_steps, settings.steps)
    for batch in itertools.islice(_batches(data), settings.all_steps):
        inputs = {name: tensor.to(device) for name, tensor in batch["inputs"].items()}
        with torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bf16-mixed"):
            logits = model(**inputs).logits.float()
        labels = batch["labels"].to(device)
        if settings.models_language:  # the next token of each
            logits, labels = logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
        cross_entropy(logits, labels).backward()
        window.step_ended()
    assert window.complete
    return training_figures(window.seconds, settings)


def make_fast(model: PreTrainedModel) -> None:
    """What our modules do to a frozen model: packed products, cheap dropout, one token behind the last attention."""
    use_first_token_only(model)
    prepare_frozen_layers(model)
    use_sixteen_bit_dropout(model)


def _batches(data: LightningDataModule) -> Iterator[Batch]:
    """Those of one epoch after the other."""
    loader = data.train_dataloader()
    for epoch in itertools.count():
        loader.batch_sampler.set_epoch(epoch)
        yield from loader
