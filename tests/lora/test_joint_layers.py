"""Query, key and value computed together against dense matrices in float64, and against the layers alone."""

import copy
import gc
import pickle
from weakref import ref

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from benchmarks.launches import StepCounter
from experiments.sharded_backbone import shard
from lora.injection import prepare_frozen_layers
from lora.joint_layers import join_layers
from lora.layers import LoRAXSLinear
from lora.lora_xs import AdaptiveLoRAXS, LoRAXS
from lora.products.stored_linear import StoredLinear
from tests.lora.attached import attached, filled, logits

IN, RANK = 12, 4
WIDTHS = {"query": 20, "key": 16, "value": 24}


@pytest.fixture(autouse=True)
def on_a_gpu(monkeypatch):
    """Weights are cast, as on a GPU, instead of packed."""
    monkeypatch.setattr("lora.products.frozen_products.can_pack", lambda dtype: False)


class _Attention(nn.Module):
    def __init__(self, adapted, bias):
        super().__init__()
        for name, outputs in WIDTHS.items():
            layer = nn.Linear(IN, outputs, bias=bias and name != "key").requires_grad_(False)
            if name in adapted:
                layer = LoRAXSLinear(layer, torch.randn(RANK, IN), torch.randn(outputs, RANK))
            setattr(self, name, layer)


def made(adapted=("query", "value"), bias=True, dtype=torch.bfloat16):
    """An attention's three layers, joined by an adapter whose cores are `R`."""
    torch.manual_seed(0)
    adapter, attention = LoRAXS(RANK), _Attention(adapted, bias)
    prepare_frozen_layers(attention)
    adapter.adapted_layers = [getattr(attention, name) for name in adapted]
    adapter.R = nn.Parameter(0.3 * torch.randn(len(adapted), RANK, RANK))
    adapter.scaling = 0.5
    adapter.join_layers(attention)
    refresh(adapter, dtype)
    return adapter, attention


def refresh(adapter, dtype=torch.bfloat16):
    with torch.autocast("cpu", dtype):
        adapter.refresh()


def outputs(attention, x, names=tuple(WIDTHS), dtype=torch.bfloat16):
    with torch.autocast("cpu", dtype):
        return {name: getattr(attention, name)(x) for name in names}


def dense(adapter, attention, x, R=None):
    """By the formula, in float64 of the 16-bit copies, whose rounding is the only one left out."""
    R = adapter.R if R is None else R
    cores = dict(zip(map(id, adapter.adapted_layers), adapter.scaling * R.double(), strict=True))
    results = {}
    for name in WIDTHS:
        layer = getattr(attention, name)
        weight = layer.weight.double()
        if id(layer) in cores:
            weight = weight + layer.B.double() @ cores[id(layer)] @ layer.A.double()
        results[name] = x.double() @ weight.T + (0 if layer.bias is None else layer.bias.double())
    return results


def loss(results):
    return sum((y.double() * y.double().sin()).sum() for y in results.values())


def assert_near(found, exact, share=0.03):
    torch.testing.assert_close(found.double(), exact.double(), rtol=0, atol=share * float(exact.abs().max()))


def assert_dense(adapter, attention, x, names=tuple(WIDTHS), R=None):
    """Layers called in this order give what the formula gives."""
    exact = dense(adapter, attention, x, R)
    for name, y in outputs(attention, x, names).items():
        assert_near(y, exact[name])


def launches(work):
    with StepCounter() as counter:
        counter.counting = True
        work()
    return counter.launched


@pytest.mark.parametrize("adapted", [("query", "value"), ("query", "key", "value"), ("value",)])
@pytest.mark.parametrize(("bias", "dtype"), [(True, torch.bfloat16), (False, torch.bfloat16), (True, torch.float16)])
@pytest.mark.parametrize("needs_gradient", [True, False])
def test_outputs_and_gradients_are_the_dense_ones(adapted, bias, dtype, needs_gradient):
    adapter, attention = made(adapted, bias, dtype)
    x = torch.randn(2, 3, IN, requires_grad=needs_gradient)
    results = outputs(attention, x, dtype=dtype)
    for name, exact in dense(adapter, attention, x).items():
        assert results[name].dtype == dtype and results[name].shape == exact.shape
        assert_near(results[name], exact)
    wanted = (adapter.R, x) if needs_gradient else (adapter.R,)
    ours = torch.autograd.grad(loss(results), wanted)
    # the loss's gradients are taken at the 16-bit outputs, so that only the products' own rounding differs
    ends = {name: y.detach().double().requires_grad_() for name, y in results.items()}
    towards = dict(zip(ends, torch.autograd.grad(loss(ends), [*ends.values()]), strict=True))
    exact = dense(adapter, attention, x)
    theirs = torch.autograd.grad(sum((exact[name] * towards[name]).sum() for name in exact), wanted)
    for mine, other in zip(ours, theirs, strict=True):
        assert_near(mine, other)


def test_three_layers_are_one_product_each_way():
    adapter, attention = made()
    x = torch.randn(5, IN).bfloat16().requires_grad_()
    results = outputs(attention, x)  # prepares the copies
    together = launches(lambda: outputs(attention, x))
    assert together == {"addmm": 1, "addmm_": 1}
    back = launches(lambda: torch.autograd.grad(list(results.values()), (x, adapter.R), [*results.values()]))
    assert back["mm"] == 2 and back["addmm_"] == back["cat"] == 1 and not back["add"]
    adapter.joints[0].folded = None
    assert launches(lambda: outputs(attention, x)).total() > 6


@pytest.mark.parametrize("order", [("value", "query", "key"), ("key", "value", "query")])
def test_any_layer_may_be_the_first(order):
    adapter, attention = made()
    x = torch.randn(5, IN)
    assert_dense(adapter, attention, x, order)
    refresh(adapter)
    assert adapter.joints


def test_a_tensor_that_is_changed_between_two_layers_is_computed_again():
    adapter, attention = made()
    x = torch.randn(5, IN)
    outputs(attention, x, ["query"])
    x.mul_(-2)
    assert_dense(adapter, attention, x, ["value"])


def test_a_part_of_another_step_or_of_a_pass_without_gradients_is_not_used():
    adapter, attention = made()
    x = torch.randn(5, IN)
    with torch.no_grad():
        assert not outputs(attention, x, ["query"])["query"].requires_grad
    assert outputs(attention, x, ["value"])["value"].requires_grad
    with torch.no_grad():
        adapter.R.mul_(-3)
    refresh(adapter)
    assert_dense(adapter, attention, x, ("query", "value"))


def test_a_changed_factor_is_used_from_then_on():
    adapter, attention = made()
    x = torch.randn(5, IN)
    outputs(attention, x)
    attention.value.keep_factors(torch.randn(RANK, IN), torch.randn(WIDTHS["value"], RANK))
    refresh(adapter)
    assert_dense(adapter, attention, x)


@pytest.mark.parametrize("why", ["idle", "merged", "inference", "float32"])
def test_layers_compute_alone_where_one_of_them_has_no_update_or_no_16_bits(why, monkeypatch):
    adapter, attention = made()
    monkeypatch.setattr("lora.joint_layers.JointLayers._compute", lambda *_: pytest.fail("computed together"))
    R = adapter.R
    if why == "idle":
        attention.query.idle, R = True, R * torch.tensor([0.0, 1.0])[:, None, None]
    if why in ("merged", "float32"):
        adapter.refresh()
    if why == "merged":
        adapter.merge()
    with torch.autocast("cpu", torch.bfloat16, enabled=why != "float32"), torch.inference_mode(why == "inference"):
        x = torch.randn(5, IN)
        exact = dense(adapter, attention, x, R)
        for name in WIDTHS:
            assert_near(getattr(attention, name)(x), exact[name])


def test_layers_that_are_called_with_different_tensors_are_right_and_then_given_up():
    adapter, attention = made()
    x, other = torch.randn(5, IN), torch.randn(3, IN)

    def check():
        assert_dense(adapter, attention, x, ["query"])
        assert_dense(adapter, attention, other, ["key", "value"])

    check()
    unused = ref(adapter.joints[0]._parts[0])  # of `other`, which the query never saw
    refresh(adapter)
    gc.collect()
    assert not adapter.joints and unused() is None
    check()


def test_a_block_that_is_computed_again_gives_the_same_gradients():
    adapter, attention = made()
    x = torch.randn(5, IN, requires_grad=True)

    def block(x):
        q, k, v = outputs(attention, x * 1).values()
        return (q[:, :16] * k).sum(-1, keepdim=True).tanh() * v

    found = []
    for run in (block, lambda x: checkpoint(block, x, use_reentrant=False)):
        refresh(adapter)
        found.append(torch.autograd.grad(run(x).float().sum(), (adapter.R, x)))
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(*found, strict=True))
    refresh(adapter)
    assert adapter.joints


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda both: pickle.loads(pickle.dumps(both))])
def test_a_copy_has_joint_layers_of_its_own(copied):
    adapter, attention = made()
    x = torch.randn(5, IN)
    before = outputs(attention, x)
    adapter.adapted_layers[0].core = adapter.adapted_layers[1].core = torch.zeros(RANK, RANK)  # no leaves
    twin, its_attention = copied((adapter, attention))
    with torch.no_grad():
        its_attention.query.base.weight.zero_(), its_attention.query.base.bias.zero_(), twin.R.zero_()
    refresh(twin), refresh(adapter)
    assert twin.joints[0].layers[0] is its_attention.query
    assert torch.equal(outputs(its_attention, x)["query"], torch.zeros(5, WIDTHS["query"]))
    assert torch.equal(outputs(attention, x)["query"], before["query"])


def test_only_frozen_layers_of_one_width_that_hold_their_weights_are_joined():
    attention = _Attention(("query", "value"), bias=True)
    assert not join_layers(attention)  # its key isn't prepared
    prepare_frozen_layers(attention)
    assert len(join_layers(attention)) == 1
    attention.value = LoRAXSLinear(nn.Linear(8, 16), torch.randn(RANK, 8), torch.randn(16, RANK))
    assert not join_layers(attention)
    attention = _Attention(("query", "value"), bias=True)
    prepare_frozen_layers(attention)
    attention.query.base = StoredLinear(attention.query.base, "bfloat16")
    assert not join_layers(attention)
    attention = _Attention((), bias=True)
    prepare_frozen_layers(attention)
    assert not join_layers(attention)


def test_layers_that_are_sharded_are_given_up_and_whole_ones_not_held(monkeypatch):
    """On a GPU a layer that stayed behind would be on another device than those that are sharded."""
    adapter, attention = made()
    whole = ref(attention.key)
    monkeypatch.setattr("experiments.sharded_backbone.init_device_mesh", lambda *_: None)
    monkeypatch.setattr("experiments.sharded_backbone.fully_shard", lambda *_, **__: None)
    monkeypatch.setattr("experiments.sharded_backbone.distributed.get_world_size", lambda: 2)
    shard(attention, "cpu")
    adapter.join_layers(attention)
    refresh(adapter)
    gc.collect()
    assert not adapter.joints and whole() is None
    assert all(layer.joint is layer.folded is None for layer in adapter.adapted_layers)
    assert_dense(adapter, attention, torch.randn(5, IN))


@pytest.mark.parametrize("kind", ["bert", "albert", "distilbert", "deberta-v2", "gpt2", "llama"])
@pytest.mark.parametrize("make", [lambda: LoRAXS(3), lambda: AdaptiveLoRAXS(1, 4, rank_average=2)])
def test_a_model_gives_the_same_with_and_without(kind, make):
    """With dropout, whose random numbers are the same; ALBERT's layer is called twice, the last two join nothing."""
    model, adapter = attached(make(), kind)
    prepare_frozen_layers(model)
    filled(adapter)
    adapter.join_layers(model)
    joints = adapter.joints
    expected = {"bert": 2, "albert": 1, "distilbert": 2, "deberta-v2": 0, "gpt2": 0, "llama": 0}[kind]

    def run(joints):
        torch.manual_seed(0)
        adapter.joints = joints
        with torch.autocast("cpu", torch.bfloat16):
            adapter.refresh()
            answers = logits(model.train())
        return answers, torch.autograd.grad(answers.float().square().sum(), adapter.R)[0]

    assert len(joints) == expected
    together, alone = run(joints), run([])
    assert len(adapter.joints) == 0 and all(not joint._parts for joint in joints)
    for mine, theirs in zip(together, alone, strict=True):
        assert_near(mine, theirs, 0.05)
