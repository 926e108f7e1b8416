"""Norms of updates from Gram matrices, against norms of the dense products."""

import pytest
import torch

from lora import AdaptiveLoRA, AdaptiveLoRAXS, LoRA, LoRAXS, NestedLoRA
from lora.update_norm import product_norms, update_norms, weight_norms
from tests.architectures import classifier
from tests.lora.attached import attached, dense_logits, filled, logits


def test_a_product_of_zero_has_the_norm_zero():
    assert product_norms([(torch.randn(3, 8), torch.zeros(5, 3))]).tolist() == [0.0]


@pytest.mark.parametrize(
    "make",
    [
        lambda: LoRA(4, 16.0),
        lambda: LoRA(4, 16.0, targets="attention", wrap_head=True),
        lambda: AdaptiveLoRA(1, 4, 2.5, lora_alpha=16.0),
        lambda: NestedLoRA(1, 4, lora_alpha=16.0),
        lambda: LoRAXS(4, initial_std=0.3),
        lambda: AdaptiveLoRAXS(1, 4, 2.5, initial_std=0.3),
    ],
    ids=["lora", "wrapped", "adaptive", "nested", "xs", "adaptive_xs"],
)
@pytest.mark.parametrize("model_type", ["bert", "gpt2"])
def test_norms_of_an_adapter_are_those_of_its_dense_updates(make, model_type):
    model, adapter = attached(make(), model_type)
    if isinstance(adapter, LoRA):
        filled(adapter)
    factors = zip(adapter.layer_names, adapter.update_factors(), strict=True)
    updates = {name: B @ A for name, (A, B) in factors}
    torch.testing.assert_close(logits(model), dense_logits(model_type, updates), rtol=1e-4, atol=1e-5)
    dense = [torch.linalg.matrix_norm(update).item() for update in updates.values()]
    frozen = classifier(model_type)[0]
    weights = [torch.linalg.matrix_norm(frozen.get_submodule(name).weight).item() for name in adapter.layer_names]
    norms = update_norms(adapter, weight_norms(adapter))
    assert list(norms.layers) == list(norms.relative_layers) == list(adapter.layer_names)
    assert list(norms.layers.values()) == pytest.approx(dense, rel=1e-4)
    ratios = [update / weight for update, weight in zip(dense, weights, strict=True)]
    assert list(norms.relative_layers.values()) == pytest.approx(ratios, rel=1e-4)
    total, whole = (sum(value**2 for value in values) ** 0.5 for values in (dense, weights))
    assert norms.total == pytest.approx(total, rel=1e-4)
    assert norms.relative == pytest.approx(total / whole, rel=1e-4)


def test_no_matrix_of_the_weights_size_is_made():
    from torch.utils._python_dispatch import TorchDispatchMode

    made = set()

    class Shapes(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            made.update(tuple(tensor.shape[-2:]) for tensor in [result] if isinstance(tensor, torch.Tensor))
            return result

    pairs = [(torch.randn(3, 50), torch.randn(40, 3)) for _ in range(4)]
    with Shapes():
        product_norms(pairs)
    assert (3, 3) in made
    assert (40, 50) not in made
