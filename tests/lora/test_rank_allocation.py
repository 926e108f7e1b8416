import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import InputError
from lora.area_rules import initial_weights
from lora.rank_allocation import RankAllocation


def allocation(layers=8, rank_min=2, rank_max=12, average=6.0, **settings):
    return RankAllocation(torch.ones(layers), 2, rank_min, rank_max, layers * average**2, **settings)


def test_softmax_is_the_studys_formula():
    torch.manual_seed(3)
    ours = RankAllocation(torch.ones(96), 2, 5, 25, 96 * 20**2, "softmax")
    w = ours.weights.detach().double()
    theirs = torch.sqrt(5**2 + (96 * 20**2 - 96 * 5**2) * torch.exp(w) / torch.exp(w).sum())
    torch.testing.assert_close(ours.ranks().double(), theirs, rtol=1e-6, atol=0)


def test_softmax_loses_the_budget_that_the_study_lost():
    # algorithm: 17 % of layers above rank_max and 22.7 % of the budget unusable, for N(0, 1) weights
    torch.manual_seed(0)
    ranks = [RankAllocation(torch.ones(96), 2, 5, 25, 96 * 400.0, "softmax").ranks().detach() for _ in range(200)]
    above = torch.stack([(rank > 25).float().mean() for rank in ranks]).mean()
    lost = torch.stack([1 - rank.clamp(max=25).square().sum() / (96 * 400) for rank in ranks]).mean()
    assert abs(float(above) - 0.17) < 0.02
    assert abs(float(lost) - 0.227) < 0.02


def test_bounded_gives_every_weight_a_gradient_even_far_apart():
    areas = allocation(rule="bounded")
    with torch.no_grad():
        areas.weights.copy_(torch.linspace(-4, 4, 8))
    areas.ranks()[0].backward()
    assert bool((areas.weights.grad != 0).all())
    for scale in (1e3, 1e5):  # blown up, they keep the budget
        with torch.no_grad():
            areas.weights.copy_(scale * torch.linspace(-1, 1, 8))
        assert math.isclose(float(areas.area(areas.ranks()).sum()), areas.budget, rel_tol=1e-5)


@pytest.mark.parametrize("rank", [2, 12])
@pytest.mark.parametrize("rule", ["softmax", "bounded"])
def test_a_budget_at_its_limit_gives_every_layer_that_rank(rule, rank):
    areas = allocation(average=float(rank), rule=rule, start="uniform")
    assert areas.discrete_ranks().tolist() == [rank] * 8


@pytest.mark.parametrize("average", [1.9, 12.1])
def test_a_budget_without_solution_is_refused_with_the_allowed_range(average):
    with pytest.raises(InputError, match="allowed: 32 to 1,152"):
        allocation(average=average)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.floats(-4, 4), min_size=2, max_size=40), st.floats(0.02, 0.98), st.sampled_from(["softmax", "bounded"])
)
def test_budgeted_rounding_stays_within_the_budget_and_leaves_no_room(weights, share, rule):
    budget = len(weights) * (4 + share * (144 - 4))
    areas = RankAllocation(torch.ones(len(weights)), 2, 2, 12, budget, rule)
    with torch.no_grad():
        areas.weights.copy_(torch.tensor(weights))
    ranks, continuous = areas.discrete_ranks(), areas.ranks().detach().clamp(2, 12)
    left = budget - float((ranks**2).sum())
    assert left >= -1e-6
    assert bool(((ranks - continuous).abs() < 1 + 1e-4).all())
    # whoever was rounded down would not have fitted
    down = [int(rank) for rank, s in zip(ranks, continuous, strict=True) if s - rank > 1e-3]
    assert all(2 * rank + 1 > left for rank in down)


def test_plain_rounding_rounds_each_rank_alone():
    areas = allocation(rounding="plain")
    expected = areas.ranks().detach().clamp(2, 12).round().long()
    assert areas.discrete_ranks().tolist() == expected.tolist()


def test_initial_weights_follow_their_formulas():
    layers = 12
    centre, sigma = layers // 2, layers / (2 * math.sqrt(10))
    bump = [math.exp(-((x - centre) ** 2) / (2 * sigma**2)) for x in range(layers)]
    torch.testing.assert_close(initial_weights("quadratic", layers), torch.tensor(bump))
    centre, left, right = 3 * layers // 4, 3 * layers / (4 * math.sqrt(10)), layers / (4 * math.sqrt(10))
    skewed = [math.exp(-((x - centre) ** 2) / (2 * (left if x < centre else right) ** 2)) for x in range(layers)]
    torch.testing.assert_close(initial_weights("left_skewed", layers), torch.tensor(skewed))
    assert initial_weights("uniform", layers).abs().sum() == 0
    assert 0.8 < float(initial_weights("random", 5000).std()) < 1.2
    with pytest.raises(InputError, match=r"initial_weights is 'quadratik'.*Did you mean 'quadratic'"):
        initial_weights("quadratik", layers)


def test_discrete_masks_give_the_weights_a_zero_gradient_and_no_other():
    areas = allocation()
    areas.discretise()
    assert areas.is_discrete
    areas.tails().sum().backward()
    assert areas.weights.grad.abs().sum() == 0
    areas.weights.grad = None
    areas.soften()
    areas.tails()[:, 5].sum().backward()
    assert areas.weights.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("exponent", "expected"), [(2, math.sqrt((4 + 36 + 100) / 3)), (1, (2 * 1 + 6 * 2 + 10 * 3) / 6)]
)
def test_the_rank_of_an_area_uses_as_much_in_every_layer(exponent, expected):
    coefficients = torch.ones(3) if exponent == 2 else torch.tensor([1.0, 2.0, 3.0])
    made = RankAllocation(coefficients, exponent, 1, 12, 50.0)
    used = float(made.area(torch.tensor([2, 6, 10])).sum())
    assert made.rank_of_area(used) == pytest.approx(expected)
