import copy

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from lora import layers, packed_linear
from lora.injection import pack_frozen_layers
from lora.layers import LoRAXSLinear
from lora.packed_linear import FrozenLinear, PackedPair

pytestmark = pytest.mark.skipif(not packed_linear.can_pack(), reason="this build of PyTorch has no packed products")


@pytest.fixture
def packed_pairs(monkeypatch):
    """Counts how often weights are packed."""
    made = []
    pack = packed_linear._pack
    monkeypatch.setattr(packed_linear, "_pack", lambda weight: made.append(weight.shape) or pack(weight))
    return made


def frozen(inputs=12, outputs=20, bias=True):
    layer = nn.Linear(inputs, outputs, bias=bias)
    return layer.requires_grad_(False)


def gradients(layer, x, *parameters):
    """Output, and gradients of a nonlinear function of it."""
    y = layer(x)
    return y.detach(), *torch.autograd.grad((y * y.sin()).sum(), (x, *parameters))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(5, 12), (2, 3, 12), (1, 12)])
def test_a_frozen_layer_gives_what_linear_gives(bias, shape, packed_pairs):
    base = frozen(bias=bias)
    x = torch.randn(shape, requires_grad=True)
    for ours, theirs in zip(gradients(FrozenLinear(base), x), gradients(base, x), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    assert len(packed_pairs) == 2


@pytest.mark.parametrize("base", [frozen(), frozen(bias=False), Conv1D(20, 12).requires_grad_(False)])
@pytest.mark.parametrize("inputs_need_gradients", [True, False])
def test_a_lora_xs_layer_gives_the_dense_sum(base, inputs_need_gradients, packed_pairs):
    A, B = 0.3 * torch.randn(4, 12), 0.3 * torch.randn(20, 4)
    layer = LoRAXSLinear(base, A, B)
    core = torch.randn(4, 4, requires_grad=True)
    layer.core = core
    x = torch.randn(3, 5, 12, requires_grad=inputs_need_gradients)

    def dense(x):
        return base(x) + x @ (B @ core @ A).T

    wanted = (core, x) if inputs_need_gradients else (core,)
    for forward in (layer, dense):
        y = forward(x)
        results = (y, *torch.autograd.grad((y * y.sin()).sum(), wanted))
        if forward is layer:
            ours = results
    for mine, theirs in zip(ours, results, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)
    assert sorted(packed_pairs) == sorted([(24, 12), (16, 20)])


def test_changed_weights_are_packed_again(packed_pairs):
    base = frozen()
    layer, x = FrozenLinear(base), torch.randn(4, 12)
    layer(x), layer(x)
    assert len(packed_pairs) == 2
    with torch.no_grad():
        base.weight.mul_(3)
    torch.testing.assert_close(layer(x), base(x), atol=1e-5, rtol=1e-5)
    layer.weight = nn.Parameter(torch.randn(20, 12), requires_grad=False)
    torch.testing.assert_close(layer(x), x @ layer.weight.T + base.bias, atol=1e-5, rtol=1e-5)
    assert len(packed_pairs) == 6


def test_a_copy_packs_its_own_weight(packed_pairs):
    layer, x = FrozenLinear(frozen()), torch.randn(4, 12)
    layer(x)
    twin = copy.deepcopy(layer)
    with torch.no_grad():
        twin.weight.zero_()
    assert torch.equal(twin(x), twin.bias.expand(4, -1))
    assert torch.equal(layer(x), layer(x)) and not torch.equal(layer(x), twin(x))


@pytest.mark.parametrize("why", ["trained", "double", "autocast", "empty", "large"])
def test_what_cannot_be_packed_takes_the_ordinary_product(why, packed_pairs, monkeypatch):
    layer, x = FrozenLinear(frozen()), torch.randn(4, 12)
    if why == "trained":
        layer.requires_grad_(True)
    if why == "double":
        layer, x = layer.double(), x.double()
    if why == "empty":
        x = x[:0]
    if why == "large":
        monkeypatch.setattr(packed_linear, "LARGEST_WEIGHT", 100)
    with torch.autocast("cpu", torch.bfloat16, enabled=why == "autocast"):
        y = layer(x)
        assert torch.equal(y, nn.functional.linear(x, layer.weight, layer.bias))
    assert not packed_pairs


def test_a_core_trains_the_same_packed_and_unpacked(monkeypatch):
    def train():
        torch.manual_seed(0)
        layer = LoRAXSLinear(frozen(), torch.randn(4, 12), torch.randn(20, 4))
        core = nn.Parameter(torch.zeros(4, 4))
        optimizer = torch.optim.SGD([core], 1e-2)
        for _ in range(20):
            layer.core = core
            layer(torch.randn(8, 12)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        return core.detach()

    packed = train()
    monkeypatch.setattr(layers, "is_packable", lambda x, weight: False)
    torch.testing.assert_close(packed, train(), atol=1e-6, rtol=1e-5)
    assert packed.abs().max() > 1e-2


def test_only_frozen_linear_layers_of_a_model_are_replaced():
    model = nn.Sequential(frozen(), nn.Linear(20, 20), nn.LayerNorm(20), frozen(20, 20))
    model[3].bias.requires_grad_(True)
    names = list(model.state_dict())
    pack_frozen_layers(model)
    assert [type(layer) for layer in model] == [FrozenLinear, nn.Linear, nn.LayerNorm, nn.Linear]
    assert list(model.state_dict()) == names
    assert isinstance(model[0].pair, PackedPair)
