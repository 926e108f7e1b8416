import math

import pytest
import torch

from common.errors import InputError
from lora import AdaptiveLoRAXS, LoRAXS
from lora.factors import svd_factors
from lora.scaling import scaling_factor
from tests.architectures import classifier

RANK = 4
TOKENS = torch.arange(2, 14).view(2, 6)


def attached(adapter, model_type: str = "bert"):
    model, head = classifier(model_type)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    adapter.attach(model, model_type, head)
    adapter.refresh()
    return model, adapter


def adaptive(**settings):
    return AdaptiveLoRAXS(**{"rank_min": 1, "rank_max": RANK, "rank_average": 2.5, **settings})


def filled(adapter):
    """R at a size that shows in the logits."""
    with torch.no_grad():
        adapter.R.copy_(torch.randn(adapter.R.shape, generator=torch.Generator().manual_seed(3)))
    adapter.refresh()
    return adapter


def logits(model):
    return model(input_ids=TOKENS).logits


@pytest.mark.parametrize("model_type", ["bert", "gpt2"])
@pytest.mark.parametrize("make", [lambda: LoRAXS(RANK, initial_std=0), lambda: adaptive(initial_std=0)])
def test_a_core_of_zeros_leaves_the_logits_as_they_were(make, model_type):
    base, _ = classifier(model_type)
    model, _ = attached(make(), model_type)
    torch.testing.assert_close(logits(model), logits(base), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("model_type", ["bert", "gpt2"])
def test_logits_are_those_of_a_model_with_dense_updates(model_type):
    model, adapter = attached(LoRAXS(RANK, lora_alpha=2.0, scaling="constant"), model_type)
    filled(adapter)
    dense, _ = classifier(model_type)
    with torch.no_grad():
        for name, R in zip(adapter.layer_names, adapter.R):
            layer = dense.get_submodule(name)
            stored_transposed = model_type == "gpt2"
            weight = layer.weight.T if stored_transposed else layer.weight
            A, B = svd_factors(weight, RANK)
            update = 2.0 * B @ R @ A
            layer.weight += update.T if stored_transposed else update
    torch.testing.assert_close(logits(model), logits(dense), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(logits(model), logits(classifier(model_type)[0]), atol=1e-3)


def test_initial_entries_have_the_asked_standard_deviation():
    torch.manual_seed(0)
    _, adapter = attached(LoRAXS(8, initial_std=1e-5))
    assert 0.9e-5 < float(adapter.R.std()) < 1.1e-5
    assert abs(float(adapter.R.mean())) < 2e-6


@pytest.mark.parametrize(
    ("rule", "expected"),
    [("alpha_over_rank", 16 / 25), ("alpha_over_sqrt_rank", 16 / 5), ("constant", 16.0)],
)
def test_scaling_rules(rule, expected):
    assert math.isclose(scaling_factor(rule, 16.0, 25), expected)
    assert math.isclose(LoRAXS(25, 16.0, rule).scaling, expected)
    assert math.isclose(AdaptiveLoRAXS(5, 25, 20, scaling=rule).scaling, expected)  # of rank_max


@pytest.mark.parametrize("make", [lambda: LoRAXS(RANK), lambda: adaptive()])
def test_adapter_has_rank_squared_parameters_per_layer(make):
    model, adapter = attached(make())
    counts = {name: parameter.numel() for name, parameter in adapter.named_parameters()}
    assert counts.pop("R") == 8 * RANK**2  # 2 blocks, 4 layers each
    assert counts == ({"rank_allocation.weights": 8} if isinstance(adapter, AdaptiveLoRAXS) else {})
    assert len(adapter.layer_names) == 8
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_layers_are_known_by_full_path_in_the_models_order():
    model, adapter = attached(LoRAXS(RANK, targets=["output.dense", "query"]))
    assert adapter.layer_names == tuple(
        f"bert.encoder.layer.{layer}.{name}"
        for layer in range(2)
        for name in ("attention.self.query", "attention.output.dense", "output.dense")
    )
    for name, core in zip(adapter.layer_names, adapter.R):
        torch.testing.assert_close(model.get_submodule(name).core, adapter.scaling * core)


def test_fixed_ranks_are_the_same_everywhere():
    _, adapter = attached(LoRAXS(3))
    assert adapter.discrete_ranks() == dict.fromkeys(adapter.layer_names, 3)
    assert adapter.rank_allocation is None


def test_the_budget_may_be_given_as_an_average_or_as_itself():
    for adapter in (adaptive(), adaptive(rank_average=None, budget=8 * 2.5**2)):
        _, adapter = attached(adapter)
        assert adapter.rank_allocation.budget == 8 * 2.5**2
        used = sum(rank**2 for rank in adapter.discrete_ranks().values())
        assert 8 * 2.5**2 - 2 * RANK < used <= 8 * 2.5**2


@pytest.mark.parametrize("both", [{"rank_average": 2.0, "budget": 30.0}, {"rank_average": None, "budget": None}])
def test_average_and_budget_together_or_neither_are_refused(both):
    with pytest.raises(InputError, match=r"rank_average is .* and budget is .*; allowed: exactly one"):
        adaptive(**both)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"rank": 0}, "rank is 0"), ({"initial_std": -1.0}, "initial_std is -1"), ({"scaling": "x"}, "scaling is 'x'")],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        LoRAXS(**settings)


def test_a_rank_above_a_layers_smaller_side_is_refused():
    with pytest.raises(InputError, match="rank is 9, but the weight has shape"):
        attached(LoRAXS(9))


def poke(adapter, layer: int, row: int, column: int):
    with torch.no_grad():
        adapter.R[layer, row, column] += 1.0
    adapter.refresh()


@pytest.mark.parametrize("layer", [0, 3, 7])
def test_with_discrete_ranks_only_the_leading_block_of_r_counts(layer):
    model, adapter = attached(adaptive())
    filled(adapter)
    adapter.rank_allocation.discretise()
    adapter.refresh()
    rank = list(adapter.discrete_ranks().values())[layer]
    before = logits(model)
    for row, column in ((0, 0), (rank - 1, 0), (0, rank - 1), (rank - 1, rank - 1)):
        poke(adapter, layer, row, column)
        assert not torch.allclose(logits(model), before, rtol=0, atol=1e-7)
        before = logits(model)
    outside = [(row, column) for row in range(RANK) for column in range(RANK) if max(row, column) >= rank]
    for row, column in outside:
        poke(adapter, layer, row, column)
    assert torch.equal(logits(model), before)


def test_the_layers_of_that_test_have_entries_outside():
    _, adapter = attached(adaptive())
    assert all(list(adapter.discrete_ranks().values())[layer] < RANK for layer in (0, 3, 7))


def test_soft_masks_let_the_gradient_reach_every_allocation_weight_and_core():
    model, adapter = attached(adaptive(allocation="bounded"))
    filled(adapter)
    logits(model)[:, 0].sum().backward()
    assert bool((adapter.rank_allocation.weights.grad != 0).all())
    assert bool((adapter.R.grad.flatten(1) != 0).all(dim=1).all())


def test_gradient_of_an_allocation_weight_agrees_with_finite_differences():
    model, adapter = attached(adaptive(allocation="bounded", scaling="constant"))
    filled(adapter)
    weights = adapter.rank_allocation.weights
    logits(model)[0, 0].backward()
    at, step = int(weights.grad.abs().argmax()), 1e-2
    values = []
    for side in (step, -step):
        with torch.no_grad():
            weights[at] += side
            adapter.refresh()
            values.append(float(logits(model)[0, 0]))
            weights[at] -= side
    assert math.isclose(float(weights.grad[at]), (values[0] - values[1]) / (2 * step), rel_tol=0.05)


def test_random_factors_differ_from_the_singular_ones_and_have_their_own_fingerprint():
    model, adapter = attached(LoRAXS(RANK, factors="random"))
    name = adapter.layer_names[0]
    A, _ = svd_factors(classifier("bert")[0].get_submodule(name).weight, RANK)
    layer = model.get_submodule(name)
    torch.testing.assert_close(layer.A.norm(dim=1), A.norm(dim=1))
    assert not torch.allclose(layer.A, A)
    assert not torch.allclose(adapter.fingerprint, attached(LoRAXS(RANK))[1].fingerprint, atol=0.05)


def test_cores_stay_float32_under_autocast():
    model, adapter = attached(adaptive())
    with torch.autocast("cpu", torch.bfloat16):
        adapter.refresh()
        model(input_ids=TOKENS).logits.float().sum().backward()
    assert model.get_submodule(adapter.layer_names[0]).core.dtype == torch.float32
    assert adapter.R.grad.dtype == adapter.rank_allocation.weights.grad.dtype == torch.float32
