"""Plain LoRA with ranks that allocate themselves, against a loop over layers and sizes with dense matrices."""

import math

import pytest
import torch

from common.errors import InputError
from lora import AdaptiveLoRA, LoRA
from tests.lora.test_lora import attached, filled, logits

RANK_MAX = 6
SIDES = 2 * (4 * (8 + 8) + 2 * (8 + 12)) + (8 + 8)  # two blocks: attention, feed-forward; and the pooler


def adaptive(**settings):
    return AdaptiveLoRA(
        **{
            "rank_min": 1,
            "rank_max": RANK_MAX,
            "rank_average": 3,
            "lora_alpha": 4.0,
            "allocation": "softmax",
            **settings,
        }
    )


def looped_update(A, B, scale: float, rank: float, alpha: float):
    """The mean of s · B[:, :k] A[:k] over sizes k, one at a time."""
    sizes = range(1, RANK_MAX + 1)
    logits = torch.tensor([-alpha * math.log(1 + (rank - size) ** 2) for size in sizes])
    probabilities = torch.softmax(logits, dim=0)
    return sum(p * scale * B[:, :size] @ A[:size] for p, size in zip(probabilities, sizes, strict=True))


def dense_model_logits(adapter, updates):
    dense = attached(LoRA(1, 1.0))[0]
    with torch.no_grad():
        for name, update in zip(adapter.layer_names, updates, strict=True):
            dense.get_submodule(name).base.weight += update
    return logits(dense)


@pytest.mark.parametrize("allocation", ["softmax", "bounded"])
def test_logits_are_those_of_a_loop_over_layers_and_sizes(allocation):
    model, adapter = attached(adaptive(allocation=allocation))
    adapter.rank_allocation.alpha = 0.7
    filled(adapter)
    ranks = adapter.rank_allocation.ranks().tolist()
    pairs = zip(adapter.A.values(), adapter.B.values(), ranks, strict=True)
    updates = [looped_update(A, B, 4.0 / RANK_MAX, rank, 0.7) for A, B, rank in pairs]
    torch.testing.assert_close(logits(model), dense_model_logits(adapter, updates), rtol=1e-4, atol=1e-5)
    for (A, B), update in zip(adapter.update_factors(), updates, strict=True):
        torch.testing.assert_close(B @ A, update, rtol=1e-4, atol=1e-5)


def test_with_discrete_ranks_the_update_is_the_leading_part():
    model, adapter = attached(adaptive())
    filled(adapter)
    adapter.rank_allocation.discretise()
    adapter.refresh()
    ranks = adapter.discrete_ranks()
    assert len(set(ranks.values())) > 1
    factors = adapter.low_rank_factors()
    assert {name: len(A) for name, (A, _) in factors.items()} == ranks
    updates = []
    for (name, k), A, B in zip(ranks.items(), adapter.A.values(), adapter.B.values(), strict=True):
        updates.append(4.0 / RANK_MAX * B[:, :k] @ A[:k])
        torch.testing.assert_close(factors[name][1] @ factors[name][0], updates[-1])
    torch.testing.assert_close(logits(model), dense_model_logits(adapter, updates), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("given", [{"rank_average": 3}, {"rank_average": None, "budget": 3 * SIDES}])
@pytest.mark.parametrize("allocation", ["softmax", "bounded"])
def test_the_budget_counts_entries_of_a_and_b(given, allocation):
    _, adapter = attached(adaptive(allocation=allocation, **given))
    sides = [sum(layer.base.weight.shape) for layer in adapter.adapted_layers]
    assert sum(sides) == SIDES
    assert adapter.rank_allocation.budget == 3 * sum(sides)
    used = sum(rank * side for rank, side in zip(adapter.discrete_ranks().values(), sides, strict=True))
    cut = sum(A.numel() + B.numel() for A, B in adapter.low_rank_factors().values())
    assert used == cut <= 3 * sum(sides)
    if allocation == "bounded":  # loses nothing but less than one step of a layer
        assert used > 3 * sum(sides) - 2 * max(sides)


def test_budgets_out_of_range_are_refused_in_parameters():
    with pytest.raises(InputError, match=r"a budget of 10 has no solution for 13 layers with ranks 1 to 6; allowed"):
        attached(adaptive(rank_average=None, budget=10))
    with pytest.raises(InputError, match=r"rank_average is None and budget is None; allowed: exactly one"):
        adaptive(rank_average=None)


def test_while_b_is_zero_the_allocation_has_no_gradient_and_then_it_has():
    model, adapter = attached(adaptive(allocation="bounded"))
    logits(model)[:, 0].sum().backward()
    assert not adapter.rank_allocation.weights.grad.any()
    adapter.zero_grad()
    filled(adapter)
    logits(model)[:, 0].sum().backward()
    reached = adapter.rank_allocation.weights.grad != 0
    assert bool(reached.all())


def test_gradient_of_an_allocation_weight_agrees_with_finite_differences():
    model, adapter = attached(adaptive(allocation="bounded"))
    filled(adapter)
    weights = adapter.rank_allocation.weights
    logits(model)[0, 0].backward()
    at, step, values = int(weights.grad.abs().argmax()), 1e-2, []
    for side in (step, -step):
        with torch.no_grad():
            weights[at] += side
            adapter.refresh()
            values.append(float(logits(model)[0, 0]))
            weights[at] -= side
    assert math.isclose(float(weights.grad[at]), (values[0] - values[1]) / (2 * step), rel_tol=0.05)


def test_masks_stay_float32_under_autocast():
    model, adapter = attached(adaptive())
    with torch.autocast("cpu", torch.bfloat16):
        adapter.refresh()
        assert all(A.dtype == torch.float32 for A, _ in adapter.update_factors())
        logits(model).float().sum().backward()
    assert adapter.rank_allocation.weights.grad.dtype == torch.float32
    assert all(B.grad.dtype == torch.float32 for B in adapter.B.values())


def test_a_wrapped_head_shares_the_budget():
    _, adapter = attached(adaptive(wrap_head=True), "distilbert")
    assert {"pre_classifier", "classifier"} <= set(adapter.discrete_ranks())
    assert len(adapter.rank_allocation.weights) == len(adapter.layer_names)


def test_looking_at_updates_draws_no_random_numbers():
    _, adapter = attached(adaptive(tau=0.5))
    before = torch.get_rng_state()
    adapter.update_factors()
    assert torch.equal(torch.get_rng_state(), before)
    adapter.refresh()
    assert not torch.equal(torch.get_rng_state(), before)
