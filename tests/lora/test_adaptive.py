"""Adapters whose ranks allocate themselves, against a loop over layers and sizes with dense matrices."""

import math

import pytest
import torch

from common.errors import InputError
from lora import AdaptiveLoRA, AdaptiveLoRAXS
from tests.lora.attached import attached, dense_logits, filled, logits

RANK_MAX = 6
SCALE = 4.0 / RANK_MAX
KINDS = [AdaptiveLoRA, AdaptiveLoRAXS]
either_kind = pytest.mark.parametrize("kind", KINDS)
either_rule = pytest.mark.parametrize("allocation", ["softmax", "bounded"])


def adaptive(kind, **settings):
    common = {"rank_min": 1, "rank_max": RANK_MAX, "rank_average": 3, "lora_alpha": 4.0, "allocation": "softmax"}
    return kind(**{**common, **settings})


def updates(model, adapter, size_of_layer):
    """ΔW (out, in) of each layer by full path: the mean over sizes k, one at a time, of the update cut to size k."""
    made = {}
    for place, (name, probabilities) in enumerate(zip(adapter.layer_names, size_of_layer, strict=True)):
        layer = model.get_submodule(name)
        if isinstance(adapter, AdaptiveLoRAXS):
            cut = [SCALE * layer.B[:, :k] @ adapter.R[place, :k, :k] @ layer.A[:k] for k in probabilities]
        else:
            key = name.replace(".", "/")
            cut = [SCALE * adapter.B[key][:, :k] @ adapter.A[key][:k] for k in probabilities]
        made[name] = sum(p * update for p, update in zip(probabilities.values(), cut, strict=True))
    return made


def size_probabilities(rank: float, alpha: float) -> dict[int, float]:
    powers = {size: (1 + (rank - size) ** 2) ** -alpha for size in range(1, RANK_MAX + 1)}
    return {size: power / sum(powers.values()) for size, power in powers.items()}


@either_rule
@either_kind
def test_logits_are_those_of_a_loop_over_layers_and_sizes(kind, allocation):
    model, adapter = attached(adaptive(kind, allocation=allocation))
    adapter.rank_allocation.alpha = 0.7
    filled(adapter)
    sizes = [size_probabilities(rank, 0.7) for rank in adapter.rank_allocation.ranks().tolist()]
    expected = updates(model, adapter, sizes)
    torch.testing.assert_close(logits(model), dense_logits("bert", expected), rtol=1e-4, atol=1e-5)
    for (A, B), update in zip(adapter.update_factors(), expected.values(), strict=True):
        torch.testing.assert_close(B @ A, update, rtol=1e-4, atol=1e-5)


@either_kind
def test_with_discrete_ranks_the_update_is_the_leading_part_and_nothing_else_counts(kind):
    model, adapter = attached(adaptive(kind))
    filled(adapter)
    adapter.rank_allocation.discretise()
    adapter.refresh()
    ranks = adapter.discrete_ranks()
    assert len(set(ranks.values())) > 1 and min(ranks.values()) < RANK_MAX
    expected = updates(model, adapter, [{rank: 1.0} for rank in ranks.values()])
    factors = adapter.low_rank_factors()
    assert {name: len(A) for name, (A, _) in factors.items()} == ranks
    for name, (A, B) in factors.items():
        torch.testing.assert_close(B @ A, expected[name], rtol=1e-4, atol=1e-5)
    before = logits(model)
    torch.testing.assert_close(before, dense_logits("bert", expected), rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        if kind is AdaptiveLoRAXS:
            for R, rank in zip(adapter.R, ranks.values(), strict=True):
                R[rank:], R[:, rank:] = 7.0, 7.0
        else:
            for A, B, rank in zip(adapter.A.values(), adapter.B.values(), ranks.values(), strict=True):
                A[rank:], B[:, rank:] = 7.0, 7.0
    adapter.refresh()
    assert torch.equal(logits(model), before)


@either_rule
@either_kind
def test_the_budget_may_be_given_as_an_average_or_as_itself(kind, allocation):
    areas = {}
    for average in (3, None):
        _, adapter = attached(adaptive(kind, allocation=allocation, rank_average=average, budget=areas.get("budget")))
        if kind is AdaptiveLoRA:  # entries of A and B
            costs = [sum(layer.base.weight.shape) for layer in adapter.adapted_layers]
            assert sum(costs) == 2 * (4 * (8 + 8) + 2 * (8 + 12)) + (8 + 8)  # two blocks, and the pooler
            area, cut = lambda rank: rank, sum(A.numel() + B.numel() for A, B in adapter.low_rank_factors().values())
        else:  # entries of R
            costs = [1] * 8
            area, cut = lambda rank: rank**2, sum(block.numel() for block in adapter.blocks().values())
        areas["budget"] = sum(costs) * area(3)
        assert adapter.rank_allocation.budget == areas["budget"]
        ranks = adapter.discrete_ranks().values()
        used = sum(cost * area(rank) for cost, rank in zip(costs, ranks, strict=True))
        assert used == cut <= areas["budget"]
        if allocation == "bounded":  # loses nothing but less than one step of a layer
            assert used > areas["budget"] - 2 * max(costs) * RANK_MAX


@either_kind
def test_budgets_out_of_range_and_a_budget_twice_or_never_are_refused(kind):
    with pytest.raises(InputError, match=r"a budget of 5 has no solution for \d+ layers with ranks 1 to 6; allowed"):
        attached(adaptive(kind, rank_average=None, budget=5))
    for both in ({"rank_average": 2.0, "budget": 30.0}, {"rank_average": None, "budget": None}):
        with pytest.raises(InputError, match=r"rank_average is .* and budget is .*; allowed: exactly one"):
            adaptive(kind, **both)


@either_kind
def test_the_gradient_reaches_every_allocation_weight_and_agrees_with_finite_differences(kind):
    model, adapter = attached(adaptive(kind, allocation="bounded"))
    filled(adapter)
    weights = adapter.rank_allocation.weights
    logits(model)[0, 0].backward()
    assert bool((weights.grad != 0).all())
    trained = adapter.R.grad if kind is AdaptiveLoRAXS else [B.grad for B in adapter.B.values()]
    assert all(bool(gradient.any()) for gradient in trained)
    at, step, values = int(weights.grad.abs().argmax()), 1e-2, []
    for side in (step, -step):
        with torch.no_grad():
            weights[at] += side
            adapter.refresh()
            values.append(float(logits(model)[0, 0]))
            weights[at] -= side
    assert math.isclose(float(weights.grad[at]), (values[0] - values[1]) / (2 * step), rel_tol=0.05)


@either_kind
def test_masks_and_gradients_stay_float32_under_autocast(kind):
    model, adapter = attached(adaptive(kind))
    with torch.autocast("cpu", torch.bfloat16):
        adapter.refresh()
        logits(model).float().sum().backward()
    assert all(A.dtype == torch.float32 for A, _ in adapter.update_factors())
    assert all(parameter.grad.dtype == torch.float32 for parameter in adapter.parameters())
    if kind is AdaptiveLoRAXS:  # cast once they are whole
        exact = (adapter.scaling * adapter.R * adapter.allocation.masks())[0]
        assert torch.equal(model.get_submodule(adapter.layer_names[0]).core, exact.bfloat16())


@either_kind
def test_looking_at_updates_draws_no_random_numbers(kind):
    _, adapter = attached(adaptive(kind, tau=0.5))
    before = torch.get_rng_state()
    adapter.update_factors()
    assert torch.equal(torch.get_rng_state(), before)
    adapter.refresh()
    assert not torch.equal(torch.get_rng_state(), before)
