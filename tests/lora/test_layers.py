import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from lora.layers import LoRAXSLinear, dense_weight

IN, OUT, RANK, TOKENS = 12, 10, 4, 7
KINDS = ["linear", "conv1d"]


def adapted(kind: str, dtype=torch.float64, seed: int = 0) -> LoRAXSLinear:
    """A frozen layer with random factors, in float64 unless told otherwise."""
    torch.manual_seed(seed)
    base = nn.Linear(IN, OUT) if kind == "linear" else Conv1D(OUT, IN)
    nn.init.normal_(base.bias)
    base.to(dtype).requires_grad_(False)
    return LoRAXSLinear(base, torch.randn(RANK, IN, dtype=dtype), torch.randn(OUT, RANK, dtype=dtype))


def dense(layer: LoRAXSLinear, kind: str, core: torch.Tensor) -> torch.Tensor:
    """The reference: one dense weight (out, in), W + B C A."""
    stored = layer.base.weight
    return (stored if kind == "linear" else stored.T) + layer.B @ core @ layer.A


def saved_shapes(compute) -> list[tuple[int, ...]]:
    """Shapes of everything autograd keeps while `compute` runs."""
    shapes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: shapes.append(tuple(t.shape)) or t, lambda t: t):
        compute()
    return shapes


@pytest.mark.parametrize("kind", KINDS)
def test_output_is_that_of_the_dense_weight(kind):
    layer = adapted(kind)
    scale, R, mask = 0.64, torch.randn(RANK, RANK).double(), torch.rand(RANK, RANK).double()
    layer.core = scale * R * mask
    x = torch.randn(3, TOKENS, IN, dtype=torch.float64)
    expected = x @ dense(layer, kind, scale * (R * mask)).T + layer.base.bias
    torch.testing.assert_close(layer(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_core_and_input_are_those_of_the_dense_weight(kind):
    layer = adapted(kind)
    core = torch.randn(RANK, RANK, dtype=torch.float64, requires_grad=True)
    x = torch.randn(TOKENS, IN, dtype=torch.float64, requires_grad=True)
    towards = torch.randn(TOKENS, OUT, dtype=torch.float64)
    layer.core = core
    ours = torch.autograd.grad((layer(x) * towards).sum(), (core, x))
    theirs = torch.autograd.grad(((x @ dense(layer, kind, core).T + layer.base.bias) * towards).sum(), (core, x))
    for our, their in zip(ours, theirs):
        torch.testing.assert_close(our, their, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_agree_with_finite_differences(kind):
    layer = adapted(kind)

    def output(core, x):
        layer.core = core
        return layer(x)

    core = torch.randn(RANK, RANK, dtype=torch.float64, requires_grad=True)
    x = torch.randn(2, IN, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(output, (core, x))


@pytest.mark.parametrize("kind", KINDS)
def test_a_fresh_layer_gives_what_its_base_gives(kind):
    layer = adapted(kind, torch.float32)
    x = torch.randn(TOKENS, IN)
    torch.testing.assert_close(layer(x), layer.base(x), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("input_needs_gradient", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])  # the ordinary and the packed product
def test_only_small_tensors_are_kept_for_the_backward_pass(kind, input_needs_gradient, dtype):
    layer = adapted(kind, dtype)
    layer.core = torch.randn(RANK, RANK, dtype=dtype, requires_grad=True)
    x = torch.randn(TOKENS, IN, dtype=dtype, requires_grad=input_needs_gradient)
    kept = saved_shapes(lambda: layer(x))
    activations = {shape for shape in kept if TOKENS in shape}
    assert activations == {(TOKENS, RANK)}  # x Aᵀ, for the gradient of the core; neither the input nor the output


def test_a_trained_base_would_keep_its_input():
    # shows that the test above sees what autograd keeps
    layer = adapted("linear")
    layer.base.weight.requires_grad_(True)
    layer.core = layer.core.double()
    assert (TOKENS, IN) in saved_shapes(lambda: layer(torch.randn(TOKENS, IN, dtype=torch.float64)))


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_core_gets_a_gradient(kind):
    layer = adapted(kind)
    layer.core = torch.randn(RANK, RANK, dtype=torch.float64, requires_grad=True)
    layer(torch.randn(TOKENS, IN, dtype=torch.float64)).sum().backward()
    assert layer.core.grad is not None
    assert all(parameter.grad is None for parameter in layer.parameters())
    assert not any(buffer.requires_grad for buffer in layer.buffers())


def test_factors_stay_out_of_the_state():
    assert set(adapted("linear").state_dict()) == {"base.weight", "base.bias"}


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_autocast_computes_in_bfloat16_and_keeps_the_core_in_float32(kind):
    layer = adapted(kind, torch.float32)
    layer.core = torch.randn(RANK, RANK, requires_grad=True)
    x = torch.randn(TOKENS, IN)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    y.float().sum().backward()
    assert y.dtype == torch.bfloat16
    assert layer.core.dtype == layer.core.grad.dtype == torch.float32
    exact = x @ dense(layer, kind, layer.core.detach()).T + layer.base.bias
    torch.testing.assert_close(y.float(), exact, rtol=0.03, atol=0.03 * float(exact.abs().max()))


def test_dense_weight_is_out_by_in_for_both_kinds():
    linear, conv = adapted("linear").base, adapted("conv1d").base
    assert dense_weight(linear).shape == dense_weight(conv).shape == (OUT, IN)
    assert torch.equal(dense_weight(conv), conv.weight.T)


def test_weight_and_bias_of_the_base_can_be_read_through_the_layer():
    layer = adapted("linear")
    assert layer.weight is layer.base.weight
    assert layer.bias is layer.base.bias


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_merged_layer_uses_the_dense_weight_and_leaves_the_frozen_one(kind, dtype):
    layer = adapted(kind, dtype)
    layer.core = torch.randn(RANK, RANK, dtype=dtype)
    frozen = layer.base.weight.clone()
    x = torch.randn(2, TOKENS, IN, dtype=dtype)
    with torch.no_grad():
        apart = layer(x)
        layer.merge()
        expected = x @ dense(layer, kind, layer.core).T + layer.base.bias
        torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)
        layer.core = torch.zeros_like(layer.core)  # not looked at while merged
        torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)
        layer.unmerge()
        assert not torch.allclose(layer(x), apart)
    assert torch.equal(layer.base.weight, frozen)
