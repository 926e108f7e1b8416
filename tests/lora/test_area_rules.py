import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lora.area_rules import bounded_areas, softmax_areas

finite = st.floats(-30, 30, allow_nan=False)


@settings(max_examples=300, deadline=None)
@given(st.lists(finite, min_size=1, max_size=30), st.floats(0, 1), st.integers(1, 8), st.integers(1, 40))
def test_areas_meet_the_budget_and_their_bounds(drawn, share, rank_min, above):
    weights = torch.tensor(drawn, dtype=torch.float64)
    low = torch.full_like(weights, rank_min**2)
    high = torch.full_like(weights, (rank_min + above) ** 2)
    room = float((high - low).sum())
    bounded = bounded_areas(weights, share, low, high - low, room)
    for areas in (bounded, softmax_areas(weights, share * room, low)):
        assert math.isclose(float(areas.sum()), float(low.sum() + share * room), rel_tol=1e-9)
        assert bool((areas >= low - 1e-9).all())
    assert bool((bounded <= high + 1e-9).all())


@pytest.mark.parametrize("exponent", [1, 2])
@pytest.mark.parametrize("rule", ["softmax", "bounded"])
def test_gradients_agree_with_finite_differences(rule, exponent):
    torch.manual_seed(0)
    coefficients = torch.rand(5, dtype=torch.float64) + 0.5
    low, high = coefficients * 2**exponent, coefficients * 9**exponent
    weights = torch.randn(5, dtype=torch.float64, requires_grad=True)

    def ranks(w):
        areas = (
            softmax_areas(w, float((high - low).sum() / 2), low)
            if rule == "softmax"
            else bounded_areas(w, 0.5, low, high - low, float((high - low).sum()))
        )
        return (areas / coefficients) ** (1 / exponent)

    assert torch.autograd.gradcheck(ranks, (weights,))
