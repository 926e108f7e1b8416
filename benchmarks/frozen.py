"""Sides in a bare loop: the frozen backbone's own arithmetic, and the adapter's gradient on this device."""

from collections.abc import Mapping
from itertools import islice

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from benchmarks.inputs import BenchmarkSettings, data_module, pretrained_model, training_rows
from benchmarks.timing import Figures, StepWindow
from benchmarks.trainer_peft import example
from common.machine import keep_freed_memory
from lightning_modules.first_token import use_first_token_only
from lora import LoRAXS
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
    _make_fast(model)
    keep_freed_memory()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device)
    data = data_module(settings)
    data.setup("fit")
    model.config.pad_token_id = data.tokenizer.pad_token_id
    window = StepWindow(settings)
    for batch in islice(data.train_dataloader(), settings.all_steps):
        inputs = {name: tensor.to(device) for name, tensor in batch["inputs"].items()}
        with torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bf16-mixed"):
            logits = model(**inputs).logits.float()
        labels = batch["labels"].to(device)
        if settings.models_language:  # the next token of each
            logits, labels = logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
        cross_entropy(logits, labels).backward()
        window.step_ended()
    return window.figures()


def correctness(settings: BenchmarkSettings) -> Figures:
    """‖g − g'‖ / ‖g‖ of R's gradient for one batch: g in float32 on the CPU, g' on the device in each type."""
    rows, tokenizer = training_rows(settings)
    batch = tokenizer.pad([example(rows, row) for row in range(settings.batch_size)], return_tensors="pt")
    model = pretrained_model(settings)
    freeze(model, ())
    adapter = LoRAXS(8, initial_std=0.1)
    adapter.attach(model, model.config.model_type)
    _make_fast(model)
    adapter.join_layers(model)
    model.eval()  # without dropout: the devices draw other random numbers
    device = "cuda" if torch.cuda.is_available() else "cpu"
    expected = _gradient(model, adapter, batch, "cpu", torch.float32)
    types = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    found = {name: _gradient(model, adapter, batch, device, dtype) for name, dtype in types.items()}
    return {name: float((gradient - expected).norm() / expected.norm()) for name, gradient in found.items()}


def _make_fast(model: PreTrainedModel) -> None:
    """What our modules do to a frozen model: packed products, cheap dropout, one token behind the last attention."""
    use_first_token_only(model)
    prepare_frozen_layers(model)
    use_sixteen_bit_dropout(model)


def _gradient(
    model: PreTrainedModel, adapter: LoRAXS, batch: Mapping[str, Tensor], device: str, dtype: torch.dtype
) -> Tensor:
    model.to(device)
    adapter.to(device).zero_grad()
    with torch.autocast(device, dtype, enabled=dtype != torch.float32):
        adapter.refresh()  # in here, as in training: cores are folded into their factors in 16 bits
        loss = model(**{name: cells.to(device) for name, cells in batch.items()}).loss
    loss.backward()
    assert adapter.R.grad is not None
    return adapter.R.grad.float().cpu()
