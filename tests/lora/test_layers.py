"""Adapted layers against one dense weight: W + B C A for LoRA-XS, W + s · B A for LoRA."""

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from lora.layers import LoRALinear, LoRAXSLinear, dense_weight

IN, OUT, RANK, TOKENS = 12, 10, 4, 7
every_base = pytest.mark.parametrize("base", ["linear", "conv1d"])
every_kind = pytest.mark.parametrize("kind", ["lora_xs", "lora"])


def made(kind: str, base: str, dtype=torch.float64, dropout: float = 0.0):
    """A layer over a random frozen one, what is trained of it, and a function that gives its dense weight (out, in)."""
    torch.manual_seed(0)
    frozen = nn.Linear(IN, OUT) if base == "linear" else Conv1D(OUT, IN)
    nn.init.normal_(frozen.bias)
    frozen.to(dtype).requires_grad_(False)
    stored = frozen.weight if base == "linear" else frozen.weight.T
    A, B = torch.randn(RANK, IN, dtype=dtype), torch.randn(OUT, RANK, dtype=dtype)
    if kind == "lora":
        layer, trained = LoRALinear(frozen, dropout), (A.requires_grad_(), B.requires_grad_())
        layer.hand_over(A, B, 0.7)
        return layer, trained, lambda: stored + 0.7 * B @ A
    layer = LoRAXSLinear(frozen, A, B)
    layer.core = torch.randn(RANK, RANK, dtype=dtype, requires_grad=True)
    return layer, (layer.core,), lambda core=layer.core: stored + B @ core @ A


@every_base
@every_kind
@pytest.mark.parametrize("shape", [(IN,), (TOKENS, IN), (2, 3, TOKENS, IN)])
def test_output_and_gradients_are_those_of_the_dense_weight(kind, base, shape):
    layer, trained, dense = made(kind, base)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    ours, theirs = layer(x), x @ dense().T + layer.base.bias
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    towards = torch.randn(theirs.shape, dtype=torch.float64)
    gradients = [torch.autograd.grad(y, (*trained, x), towards) for y in (ours, theirs)]
    for our, their in zip(*gradients, strict=True):
        torch.testing.assert_close(our, their, rtol=1e-12, atol=1e-12)


@every_base
def test_lora_reads_an_input_that_is_not_contiguous_right_and_leaves_it_alone(base):
    layer, _, dense = made("lora", base)
    x = torch.randn(IN, TOKENS, 2, dtype=torch.float64).permute(2, 1, 0)
    before, weight = x.clone(), layer.base.weight.clone()
    layer(x).sum().backward()
    torch.testing.assert_close(layer(x), before @ dense().T + layer.base.bias, rtol=1e-12, atol=1e-12)
    assert torch.equal(x, before) and torch.equal(layer.base.weight, weight)


@every_base
@every_kind
def test_a_layer_registers_its_base_alone_which_gets_no_gradient(kind, base):
    layer, trained, _ = made(kind, base)
    layer(torch.randn(TOKENS, IN, dtype=torch.float64)).sum().backward()
    assert set(layer.state_dict()) == {"base.weight", "base.bias"}
    assert all(parameter.grad is None for parameter in layer.parameters())
    assert all(tensor.grad is not None for tensor in trained)
    assert (layer.weight, layer.bias) == (layer.base.weight, layer.base.bias)
    assert dense_weight(layer.base).shape == (OUT, IN)


def kept_shapes(layer, x) -> set[tuple[int, ...]]:
    """Shapes of the activations that autograd keeps."""
    shapes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: shapes.append(tuple(t.shape)) or t, lambda t: t):
        layer(x)
    return {shape for shape in shapes if TOKENS in shape}


@every_base
@pytest.mark.parametrize("input_needs_gradient", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])  # the ordinary and the packed product
def test_lora_xs_keeps_only_small_tensors_for_the_backward_pass(base, input_needs_gradient, dtype):
    layer, _, _ = made("lora_xs", base, dtype)
    x = torch.randn(TOKENS, IN, dtype=dtype, requires_grad=input_needs_gradient)
    assert kept_shapes(layer, x) == {(TOKENS, RANK)}  # x Aᵀ, for the core's gradient; neither input nor output
    if dtype == torch.float64:  # shows that autograd would keep more if it had to
        layer.base.weight.requires_grad_(True)
        assert (TOKENS, IN) in kept_shapes(layer, x)


def test_dropout_acts_on_the_updates_input_alone_and_only_in_training():
    layer, _, dense = made("lora", "linear", dropout=0.5)
    x = torch.ones(4000, IN, dtype=torch.float64)
    exact = x[:1] @ dense().T + layer.base.bias
    layer.eval()
    torch.testing.assert_close(layer(x)[:1], exact)
    layer.train()
    trained = layer(x)
    assert len((trained - layer.base(x)).unique(dim=0)) > 1000
    torch.testing.assert_close(trained.mean(0, keepdim=True), exact, rtol=0, atol=0.3)  # unbiased


@every_base
@every_kind
def test_bfloat16_autocast_computes_in_bfloat16_and_keeps_what_is_trained_in_float32(kind, base):
    layer, trained, dense = made(kind, base, torch.float32)
    x = torch.randn(TOKENS, IN)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    y.float().sum().backward()
    assert y.dtype == torch.bfloat16
    assert all(tensor.dtype == tensor.grad.dtype == torch.float32 for tensor in trained)
    exact = x @ dense().T + layer.base.bias
    torch.testing.assert_close(y.float(), exact, rtol=0.03, atol=0.03 * float(exact.abs().max()))


@every_base
@every_kind
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_merged_layer_uses_the_dense_weight_and_leaves_the_frozen_one(kind, base, dtype):
    layer, trained, dense = made(kind, base, dtype)
    frozen, x = layer.base.weight.clone(), torch.randn(2, TOKENS, IN, dtype=dtype)
    with torch.no_grad():
        apart, expected = layer(x), x @ dense().T + layer.base.bias
        layer.merge()
        torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)
        trained[0].zero_()  # not looked at while merged
        torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)
        layer.unmerge()
        assert not torch.allclose(layer(x), apart)
    assert torch.equal(layer.base.weight, frozen)
