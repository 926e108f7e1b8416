"""Layers with prepared products against the ordinary ones, and when they are prepared."""

import copy

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from benchmarks.launches import StepCounter
from lora import layers
from lora.injection import prepare_frozen_layers
from lora.layers import LoRALinear, LoRAXSLinear
from lora.products import frozen_products
from lora.products.frozen_linear import FrozenLinear
from lora.products.frozen_products import KeptProducts
from lora.products.torch_internals import can_pack

pytestmark = pytest.mark.skipif(not can_pack(torch.float32), reason="this build of PyTorch has no packed products")


@pytest.fixture
def packed(monkeypatch):
    """Notes which weights are packed."""
    made = []
    pack = frozen_products.pack
    monkeypatch.setattr(frozen_products, "pack", lambda weight: made.append(weight.shape) or pack(weight))
    return made


def frozen(inputs=12, outputs=20, bias=True):
    return nn.Linear(inputs, outputs, bias=bias).requires_grad_(False)


def made_layers():
    """Each kind of layer with a frozen product, and its trained tensors."""
    torch.manual_seed(0)
    xs = LoRAXSLinear(frozen(), 0.3 * torch.randn(4, 12), 0.3 * torch.randn(20, 4))
    xs.core = torch.randn(4, 4, requires_grad=True)
    lora = LoRALinear(FrozenLinear(frozen()))
    factors = torch.randn(4, 12, requires_grad=True), torch.randn(20, 4, requires_grad=True)
    lora.hand_over(*factors, 0.3)
    return {"frozen": (FrozenLinear(frozen()), ()), "lora_xs": (xs, (xs.core,)), "lora": (lora, factors)}


def results(layer, wanted, x):
    """Output, and gradients of a nonlinear function of it."""
    y = layer(x)
    return y.detach(), *torch.autograd.grad((y.float() * y.float().sin()).sum(), wanted)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(5, 12), (2, 3, 12), (1, 12)])
def test_a_frozen_layer_gives_what_linear_gives(bias, shape, packed):
    base = frozen(bias=bias)
    x = torch.randn(shape, requires_grad=True)
    for ours, theirs in zip(results(FrozenLinear(base), (x,), x), results(base, (x,), x), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    assert len(packed) == 2


@pytest.mark.parametrize("base", [frozen(), frozen(bias=False), Conv1D(20, 12).requires_grad_(False)])
@pytest.mark.parametrize("inputs_need_gradients", [True, False])
def test_a_lora_xs_layer_gives_the_dense_sum(base, inputs_need_gradients, packed):
    A, B = 0.3 * torch.randn(4, 12), 0.3 * torch.randn(20, 4)
    layer, core = LoRAXSLinear(base, A, B), torch.randn(4, 4, requires_grad=True)
    layer.core = core
    x = torch.randn(3, 5, 12, requires_grad=inputs_need_gradients)
    wanted = (core, x) if inputs_need_gradients else (core,)
    dense = results(lambda x: base(x) + x @ (B @ core @ A).T, wanted, x)
    for ours, theirs in zip(results(layer, wanted, x), dense, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    assert sorted(packed) == sorted([(24, 12), (16, 20)])


def test_changed_weights_are_packed_again_and_a_copy_packs_its_own(packed):
    base = frozen()
    layer, x = FrozenLinear(base), torch.randn(4, 12)
    layer(x), layer(x)
    assert len(packed) == 2
    with torch.no_grad():
        base.weight.mul_(3)
    torch.testing.assert_close(layer(x), base(x), atol=1e-5, rtol=1e-5)
    layer.weight = nn.Parameter(torch.randn(20, 12), requires_grad=False)
    torch.testing.assert_close(layer(x), x @ layer.weight.T + base.bias, atol=1e-5, rtol=1e-5)
    assert len(packed) == 6
    before, twin = layer(x), copy.deepcopy(layer)
    with torch.no_grad():
        twin.weight.zero_()
    assert torch.equal(twin(x), twin.bias.expand(4, -1)) and torch.equal(layer(x), before)


@pytest.mark.parametrize("why", ["trained", "double", "empty", "large"])
def test_what_cannot_be_packed_takes_the_ordinary_product(why, packed, monkeypatch):
    layer, x = FrozenLinear(frozen()), torch.randn(4, 12)
    if why == "trained":
        layer.requires_grad_(True)
    if why == "double":
        layer, x = layer.double(), x.double()
    if why == "empty":
        x = x[:0]
    if why == "large":
        monkeypatch.setattr(frozen_products, "LARGEST_PACKED_WEIGHT", 100)
    assert torch.equal(layer(x), nn.functional.linear(x, layer.weight, layer.bias))
    assert not packed


@pytest.mark.parametrize("copies", ["packed", "cast"])  # the second as on a GPU
@pytest.mark.parametrize("name", ["frozen", "lora_xs", "lora"])
@pytest.mark.parametrize("input_type", [torch.float32, torch.bfloat16])
def test_autocast_gives_what_autocast_gives_without_copies(name, copies, input_type, monkeypatch):
    if copies == "cast":
        monkeypatch.setattr(frozen_products, "can_pack", lambda dtype: False)
    layer, trained = made_layers()[name]
    x = torch.randn(2, 3, 12).to(input_type).requires_grad_()

    def run():
        with torch.autocast("cpu", torch.bfloat16):
            y = layer(x)
        assert y.dtype == torch.bfloat16
        return y.detach(), *torch.autograd.grad((y.float() * y.float().sin()).sum(), (x, *trained))

    ours = run()
    monkeypatch.setattr(layers, "product_type", lambda x, weight: None)
    monkeypatch.setattr("lora.products.frozen_linear.product_type", lambda x, weight: None)
    for mine, theirs in zip(ours, run(), strict=True):
        assert mine.dtype == theirs.dtype
        torch.testing.assert_close(mine, theirs, rtol=0.05, atol=0.05 * float(theirs.abs().max()))


@pytest.mark.parametrize("name", ["frozen", "lora_xs", "lora"])
def test_frozen_weights_are_cast_once_under_autocast_also_for_training_after_an_evaluation(name, monkeypatch):
    """Autocast itself casts a frozen weight at every pass: it keeps casts of trained weights only."""
    prepared = []
    kinds = {kind: getattr(frozen_products, kind).__init__ for kind in ("CastProducts", "PackedProducts")}
    for kind, made in kinds.items():
        count = lambda self, dtype, *frozen, made=made: prepared.append(dtype) or made(self, dtype, *frozen)  # noqa: E731
        monkeypatch.setattr(getattr(frozen_products, kind), "__init__", count)
    layer, trained = made_layers()[name]
    x = torch.randn(5, 12)
    for _ in range(3):
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):  # the first pass is a validation's
            layer(x)
        with torch.autocast("cpu", torch.bfloat16):
            y = layer(x.clone().requires_grad_())
        y.float().square().sum().backward()
    assert prepared == [torch.bfloat16]
    assert all(tensor.grad.abs().max() > 0 for tensor in trained)


def test_tensors_that_are_cast_together_and_their_gradients_are_those_of_casts_apart():
    tensors = [torch.randn(4, 12, requires_grad=True), torch.randn(12, 4).T.requires_grad_(), torch.randn(3).exp()]
    made = frozen_products.cast_together(tensors, torch.bfloat16)
    for copy_, tensor in zip(made, tensors, strict=True):
        assert torch.equal(copy_, tensor.bfloat16())
    wanted = tensors[:2]
    ours = torch.autograd.grad(sum((copy_.float() ** 3).sum() for copy_ in made), wanted)
    theirs = torch.autograd.grad(sum((tensor.bfloat16().float() ** 3).sum() for tensor in tensors), wanted)
    assert all(torch.equal(mine, other) for mine, other in zip(ours, theirs, strict=True))


def test_layers_that_read_one_tensor_share_its_cast_until_it_changes(monkeypatch):
    monkeypatch.setattr(frozen_products, "can_pack", lambda dtype: False)
    query, key = FrozenLinear(frozen()), FrozenLinear(frozen())
    leaf = torch.randn(5, 12, requires_grad=True)
    x = leaf * 1

    def casts():
        with StepCounter() as counter, torch.autocast("cpu", torch.bfloat16):
            counter.counting = True
            sums = query(x).float(), key(x).float()
        return sums, counter.launched["_to_copy"] - 2

    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):  # prepares them
        query(x), key(x)
    (q, k), count = casts()
    assert count == 1  # and not the one that was made without gradients
    exact = (query.weight + key.weight).bfloat16().double().sum(dim=0).expand(5, -1)
    (gradient,) = torch.autograd.grad(q.sum() + k.sum(), leaf)
    torch.testing.assert_close(gradient.double(), exact, rtol=0.03, atol=0.03)
    with torch.no_grad():
        x.mul_(2)
    (doubled, _), count = casts()
    assert count == 1
    torch.testing.assert_close(doubled - query.bias, 2 * (q - query.bias), rtol=0.03, atol=0.03)


def test_only_frozen_linear_layers_of_a_model_are_replaced():
    model = nn.Sequential(frozen(), nn.Linear(20, 20), nn.LayerNorm(20), frozen(20, 20))
    model[3].bias.requires_grad_(True)
    names = list(model.state_dict())
    prepare_frozen_layers(model)
    assert [type(layer) for layer in model] == [FrozenLinear, nn.Linear, nn.LayerNorm, nn.Linear]
    assert list(model.state_dict()) == names
    assert isinstance(model[0].products, KeptProducts)
