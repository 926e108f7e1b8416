"""The reference side without an adapter: the frozen backbone's own arithmetic, and nothing around it."""

from collections.abc import Iterator
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from benchmarks.data import data_module, epoch_rows
from benchmarks.machine import figures
from benchmarks.settings import Settings
from benchmarks.sides_peft import pretrained_model
from benchmarks.timing import StepWindow
from common.memory import keep_freed_memory
from lightning_modules.first_token import use_first_token_only
from lora.dropout import use_sixteen_bit_dropout
from lora.injection import freeze, prepare_frozen_layers


def frozen_backbone(settings: Settings) -> dict[str, Any]:
    """Forward and activation backward of the frozen model, made as fast as ours: packed, cheap dropout, one token."""
    model = _frozen(settings)
    use_first_token_only(model)
    prepare_frozen_layers(model)
    use_sixteen_bit_dropout(model)
    keep_freed_memory()
    return _run(settings, model)


def frozen_backbone_plain(settings: Settings) -> dict[str, Any]:
    """The same with transformers' own model, as it comes."""
    return _run(settings, _frozen(settings))


def _frozen(settings: Settings) -> Any:
    model = pretrained_model(settings)
    freeze(model, ())
    # gradients of the activations are asked for from the first layer's input on, and go no further
    model.get_input_embeddings().register_forward_hook(lambda module, inputs, output: output.requires_grad_())
    return model.train()


def _run(settings: Settings, model: Any) -> dict[str, Any]:
    """Batches as ours, in the same order; no optimizer, no adapter, no Lightning, nothing recorded."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device)
    data = data_module(settings, epoch_rows(settings))
    data.setup("fit")
    model.config.pad_token_id = data.tokenizer.pad_token_id
    window, rows = StepWindow(settings.warm_up_steps, settings.steps), 0
    for batch in _epochs(data, settings):
        timed = window.done >= settings.warm_up_steps
        inputs = {name: tensor.to(device) for name, tensor in batch["inputs"].items()}
        with torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bf16-mixed"):
            logits = model(**inputs).logits.float()
        labels = batch["labels"].to(device)
        if settings.models_language:  # the next token of each
            logits, labels = logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
        cross_entropy(logits, labels).backward()
        rows += batch["real_rows"] if timed else 0
        window.step_ended()
    assert window.complete and rows == settings.timed_rows
    return figures(window.seconds, rows)


def _epochs(data: Any, settings: Settings) -> Iterator[dict[str, Any]]:
    """As many batches as a measured run has steps."""
    left, epoch = settings.warm_up_steps + settings.steps, 0
    loader = data.train_dataloader()
    while left > 0:
        loader.batch_sampler.set_epoch(epoch)
        for batch in loader:
            yield batch
            left -= 1
            if left == 0:
                return
        epoch += 1
