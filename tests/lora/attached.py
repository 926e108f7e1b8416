"""Adapters attached to tiny models, and the same models with dense updates in their weights."""

import torch
from transformers.pytorch_utils import Conv1D

from tests.architectures import classifier

IDS = torch.arange(2, 14).view(2, 6)


def attached(adapter, model_type: str = "bert"):
    torch.manual_seed(1)
    model, head = classifier(model_type)
    model.requires_grad_(False)
    adapter.attach(model, model_type, head)
    adapter.refresh()
    return model, adapter


def filled(adapter):
    """What is trained at a size that shows in the logits."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in adapter.named_parameters():
            if not name.startswith("rank_allocation."):
                size = 1.0 if name == "R" else 0.3
                parameter.copy_(size * torch.randn(parameter.shape, generator=generator))
    adapter.refresh()
    return adapter


def logits(model):
    return model(input_ids=IDS).logits


def dense_logits(model_type: str, updates) -> torch.Tensor:
    """Logits of the plain model with `updates`, (out, in) by full path, added to its weights."""
    model, _ = classifier(model_type)
    with torch.no_grad():
        for name, update in updates.items():
            layer = model.get_submodule(name)
            layer.weight += update.T if isinstance(layer, Conv1D) else update
    return logits(model)
