import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from common.errors import InputError
from lora.rank_allocation import RankAllocation
from lora.rank_mask import hard_tails, soft_hard_gap, soft_masks, soft_tails, square_masks
from tests.reference.looped_mask import looped_mask


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(1, 40), min_size=1, max_size=6), st.floats(0.01, 10), st.integers(1, 6), st.integers(1, 30))
def test_masks_of_all_layers_equal_the_looped_ones(ranks, alpha, rank_min, above):
    rank_max = rank_min + above
    ours = soft_masks(torch.tensor(ranks), alpha, rank_min, rank_max)
    nested = square_masks(soft_tails(torch.tensor(ranks), alpha, rank_min, rank_max))
    torch.testing.assert_close(ours, nested, rtol=0, atol=2e-6)
    theirs = torch.stack([looped_mask(torch.tensor(rank), alpha, rank_min, rank_max) for rank in ranks])
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-6)


def test_gradients_reach_the_ranks_as_in_the_looped_mask():
    ranks = torch.tensor([5.3, 9.0, 17.6, 24.9])
    weights = torch.randn(4, 25, 25, generator=torch.Generator().manual_seed(1))
    ours = ranks.clone().requires_grad_()
    (soft_masks(ours, 0.8, 5, 25) * weights).sum().backward()
    theirs = ranks.clone().requires_grad_()
    masks = torch.stack([looped_mask(rank, 0.8, 5, 25) for rank in theirs])
    (masks * weights).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-4)


def test_a_growing_alpha_ends_in_the_hard_mask():
    ranks = torch.tensor([5.0, 12.0, 25.0])
    hard = hard_tails(ranks.long(), 25)
    gaps = [float(soft_hard_gap(soft_masks(ranks, alpha, 5, 25), square_masks(hard))) for alpha in (0.5, 3, 10, 100)]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] < 1e-6


def test_gumbel_noise_changes_the_mask_and_keeps_it_nested():
    torch.manual_seed(0)
    noisy = soft_tails(torch.tensor([10.0]), 1.0, 5, 25, tau=1.0)
    assert not torch.allclose(noisy, soft_tails(torch.tensor([10.0]), 1.0, 5, 25))
    assert bool((noisy.diff(dim=1) <= 1e-6).all())


def test_alpha_must_be_above_zero():
    with pytest.raises(InputError, match="alpha is 0"):
        soft_tails(torch.tensor([5.0]), 0, 2, 8)


class Counter(TorchDispatchMode):
    operations = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.operations += 1
        return function(*args, **(kwargs or {}))


def count_operations(step):
    step()
    with Counter() as counter:
        step()
    return counter.operations


@pytest.mark.parametrize("rule", ["softmax", "bounded"])
def test_a_step_needs_at_most_100_operations_whatever_the_number_of_layers(rule):
    def step(layers):
        allocation = RankAllocation(torch.ones(layers), 2, 5, 25, layers * 400.0, rule)
        core = torch.zeros(layers, 25, 25, requires_grad=True)
        return lambda: (core * allocation.masks()).sum().backward()

    few, many = count_operations(step(4)), count_operations(step(96))
    assert 10 < few == many
    assert many <= 100
