"""LoRA's layer against the dense weight W + s · B A."""

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from lora.layers import LoRALinear

IN, OUT, RANK, TOKENS = 12, 10, 4, 7
KINDS = ["linear", "conv1d"]


def adapted(kind: str, dtype=torch.float64, dropout: float = 0.0) -> tuple[LoRALinear, torch.Tensor, torch.Tensor]:
    """A layer over a random frozen one, and the random A and B it was given, with scale 0.7."""
    torch.manual_seed(0)
    base = nn.Linear(IN, OUT) if kind == "linear" else Conv1D(OUT, IN)
    nn.init.normal_(base.bias)
    layer = LoRALinear(base.to(dtype).requires_grad_(False), dropout)
    A, B = (
        torch.randn(RANK, IN, dtype=dtype, requires_grad=True),
        torch.randn(OUT, RANK, dtype=dtype, requires_grad=True),
    )
    layer.hand_over(A, B, 0.7)
    return layer, A, B


def dense_output(layer: LoRALinear, kind: str, x, A, B):
    stored = layer.base.weight
    return x @ ((stored if kind == "linear" else stored.T) + 0.7 * B @ A).T + layer.base.bias


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(IN,), (TOKENS, IN), (2, TOKENS, IN), (2, 3, TOKENS, IN)])
def test_output_and_gradients_are_those_of_the_dense_weight(kind, shape):
    layer, A, B = adapted(kind)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    ours, theirs = layer(x), dense_output(layer, kind, x, A, B)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    towards = torch.randn(theirs.shape, dtype=torch.float64)
    for our, their in zip(
        torch.autograd.grad(ours, (A, B, x), towards), torch.autograd.grad(theirs, (A, B, x), towards), strict=True
    ):
        torch.testing.assert_close(our, their, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_an_input_that_is_not_contiguous_is_read_right(kind):
    layer, A, B = adapted(kind)
    x = torch.randn(IN, TOKENS, 2, dtype=torch.float64).permute(2, 1, 0)
    torch.testing.assert_close(layer(x), dense_output(layer, kind, x, A, B), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_leaves_its_input_and_base_alone_and_registers_nothing(kind):
    layer, _, _ = adapted(kind)
    x = torch.randn(TOKENS, IN, dtype=torch.float64)
    before, weight = x.clone(), layer.base.weight.clone()
    layer(x).sum().backward()
    assert torch.equal(x, before)
    assert torch.equal(layer.base.weight, weight)
    assert set(layer.state_dict()) == {"base.weight", "base.bias"}
    assert all(parameter.grad is None for parameter in layer.parameters())


def test_dropout_acts_on_the_updates_input_alone_and_only_in_training():
    layer, A, B = adapted("linear", dropout=0.5)
    x = torch.ones(4000, IN, dtype=torch.float64)
    exact = dense_output(layer, "linear", x[:1], A, B)
    layer.eval()
    torch.testing.assert_close(layer(x)[:1], exact)
    layer.train()
    trained = layer(x)
    updates = trained - layer.base(x)
    assert len(updates.unique(dim=0)) > 1000
    torch.testing.assert_close(trained.mean(0, keepdim=True), exact, rtol=0, atol=0.3)  # unbiased


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_autocast_computes_in_bfloat16_and_keeps_the_factors_in_float32(kind):
    layer, A, B = adapted(kind, torch.float32)
    x = torch.randn(TOKENS, IN)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    y.float().sum().backward()
    assert y.dtype == torch.bfloat16
    assert A.grad.dtype == B.grad.dtype == torch.float32
    exact = dense_output(layer, kind, x, A, B)
    torch.testing.assert_close(y.float(), exact, rtol=0.03, atol=0.03 * float(exact.abs().max()))
