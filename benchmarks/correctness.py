"""Whether the device computes the adapter's gradient that the CPU computes."""

import torch
from torch import Tensor
from transformers import BatchEncoding, PreTrainedModel

from benchmarks.data import training_rows
from benchmarks.frozen import make_fast
from benchmarks.models import pretrained_model
from benchmarks.settings import SEED, BenchmarkSettings
from benchmarks.timing import Figures
from benchmarks.trainer_peft import examples
from lora import LoRAXS
from lora.injection import freeze


def correctness(settings: BenchmarkSettings) -> Figures:
    """‖g − g'‖ / ‖g‖ of R's gradient for one batch: g in float32 on the CPU, g' on the device in each type."""
    rows, tokenizer = training_rows(settings)
    batch = tokenizer.pad(examples(rows)[: settings.batch_size], return_tensors="pt")
    model = pretrained_model(settings)
    freeze(model, ())
    torch.manual_seed(SEED)
    adapter = LoRAXS(8, initial_std=0.1)
    adapter.attach(model, model.config.model_type)
    make_fast(model)
    adapter.join_layers(model)
    model.eval()  # without dropout: the devices draw other random numbers
    device = "cuda" if torch.cuda.is_available() else "cpu"
    expected = _gradient(model, adapter, batch, "cpu", torch.float32)
    found = {
        name: _gradient(model, adapter, batch, device, dtype)
        for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16))
    }
    return {name: float((gradient - expected).norm() / expected.norm()) for name, gradient in found.items()}


def _gradient(model: PreTrainedModel, adapter: LoRAXS, batch: BatchEncoding, device: str, dtype: torch.dtype) -> Tensor:
    model.to(device)
    adapter.to(device).zero_grad()
    with torch.autocast(device, dtype, enabled=dtype != torch.float32):
        adapter.refresh()  # in here, as in training: cores are folded into their factors in 16 bits
        loss = model(**{name: cells.to(device) for name, cells in batch.items()}).loss
    loss.backward()
    assert adapter.R.grad is not None
    return adapter.R.grad.float().cpu()
