"""Whether PyTorch still has what lora/products/torch_internals.py uses beyond its public interface."""

import pytest
import torch

from lora.products.torch_internals import can_pack, content_key, largest_values, multiply, pack


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this build of PyTorch has no oneDNN")
def test_torch_has_packed_products():
    assert can_pack(torch.float32), (
        f"PyTorch {torch.__version__} no longer has torch.ops.mkldnn._reorder_linear_weight and _linear_pointwise as "
        "they were, so training on the CPU falls back to ordinary products and is slower. Find the operations that "
        "torch.compile uses instead, and name them in lora/products/torch_internals.py."
    )
    weight, x, bias = torch.randn(20, 12), torch.randn(7, 12), torch.randn(20)
    torch.testing.assert_close(multiply(x, pack(weight), bias), x @ weight.T + bias)


def test_without_packed_products_ordinary_ones_are_used(monkeypatch):
    def gone(weight):
        raise AttributeError("no such operation")

    monkeypatch.setattr("lora.products.torch_internals.pack", gone)
    assert not can_pack.__wrapped__(torch.float32)


def test_torch_counts_the_changes_of_a_tensor():
    tensor = torch.randn(3)
    before = content_key(tensor)
    assert content_key(tensor) == before, (
        f"PyTorch {torch.__version__} no longer has Tensor._version, so frozen weights are prepared anew at each pass, "
        "which is slow. Find another way to notice a change in place, for content_key in "
        "lora/products/torch_internals.py."
    )
    tensor.mul_(2)
    assert content_key(tensor) != before and content_key(tensor.clone()) != content_key(tensor)


def test_without_a_count_of_changes_nothing_prepared_is_taken_for_current():
    class Uncounted:
        data_ptr = torch.zeros(1).data_ptr

    assert content_key(Uncounted()) != content_key(Uncounted())


def test_torch_has_the_norms_of_many_tensors_at_once():
    assert hasattr(torch, "_foreach_norm"), (
        f"PyTorch {torch.__version__} no longer has torch._foreach_norm, by which callbacks/divergence.py looks at all "
        "gradients at once. Find another way, for largest_values in lora/products/torch_internals.py."
    )
    found = largest_values([torch.tensor([[1.0, -3.0]]), torch.tensor([2.0, float("nan")])])
    assert float(found[0]) == 3 and bool(found[1].isnan())
