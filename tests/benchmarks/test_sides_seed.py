"""The study's loop written anew computes what our adapter computes: only its way there differs."""

import torch
from transformers import AutoModelForSequenceClassification

from benchmarks import seed_loop
from lightning_modules.backbone_loading import load_backbone
from lora import AdaptiveLoRAXS
from lora.injection import freeze


def models(tiny_bert, monkeypatch):
    """The study's model and ours with the same weights, ranks and alpha; ours with its adapter."""
    monkeypatch.setattr(seed_loop, "RANK_MIN", 1)
    monkeypatch.setattr(seed_loop, "RANK_MAX", 4)
    torch.manual_seed(0)
    theirs, _ = load_backbone(AutoModelForSequenceClassification, str(tiny_bert), num_labels=2)
    ours, head = load_backbone(AutoModelForSequenceClassification, str(tiny_bert), num_labels=2)
    ours.load_state_dict(theirs.state_dict())
    layers = seed_loop.adapt(theirs, seed_loop.draw_mask)
    freeze(ours, head)
    adapter = AdaptiveLoRAXS(1, 4, rank_average=2.5, lora_alpha=16)
    adapter.attach(ours, "bert", head)
    adapter.allocation.alpha = 1.5
    with torch.no_grad():
        for layer in layers:
            layer.R.normal_()
        adapter.R.copy_(torch.stack([layer.R for layer in layers]))
        adapter.allocation.weights.copy_(theirs.rank_allocation_weights)
    ranks = torch.sqrt(1 + len(layers) * (2.5**2 - 1) * torch.softmax(theirs.rank_allocation_weights, dim=0))
    for layer, rank in zip(layers, ranks, strict=True):
        layer.rank, layer.alpha = rank, 1.5
    adapter.refresh()
    return theirs.eval(), layers, ours.eval(), adapter


def test_logits_and_gradients_are_ours(tiny_bert, monkeypatch):
    theirs, layers, ours, adapter = models(tiny_bert, monkeypatch)
    tokens = {"input_ids": torch.tensor([[2, 5, 6, 7, 3], [2, 8, 9, 3, 0]]), "labels": torch.tensor([0, 1])}
    first, second = theirs(**tokens), ours(**tokens)
    torch.testing.assert_close(first.logits, second.logits, atol=1e-5, rtol=1e-4)
    first.loss.backward()
    second.loss.backward()
    torch.testing.assert_close(torch.stack([layer.R.grad for layer in layers]), adapter.R.grad, atol=1e-6, rtol=1e-3)
    torch.testing.assert_close(
        theirs.rank_allocation_weights.grad, adapter.allocation.weights.grad, atol=1e-6, rtol=1e-3
    )
    assert adapter.allocation.weights.grad.abs().max() > 1e-5


def test_each_mask_is_drawn(tiny_bert, monkeypatch):
    drawn = []
    monkeypatch.setattr("matplotlib.pyplot.imshow", lambda matrix, **settings: drawn.append(matrix.shape))
    monkeypatch.setattr("matplotlib.pyplot.colorbar", lambda **settings: None)
    theirs, layers, _, _ = models(tiny_bert, monkeypatch)
    theirs(input_ids=torch.tensor([[2, 5, 3]]))
    assert drawn == [(4, 4)] * len(layers)
