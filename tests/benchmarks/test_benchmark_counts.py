import pytest
import torch

from benchmarks import counts
from benchmarks.looped_mask import looped_masks, looped_ranks
from lora.rank_allocation import RankAllocation
from tests.reference.looped_mask import looped_mask

LAYERS, RANK_MIN, RANK_MAX, BUDGET = 6, 2, 9, 6 * 36.0


@pytest.mark.parametrize("alpha", [0.5, 1.0, 3.0])
def test_the_looped_masks_and_their_gradients_equal_ours(alpha):
    allocation = RankAllocation(torch.ones(LAYERS), 2, RANK_MIN, RANK_MAX, BUDGET, "softmax")
    allocation.alpha = alpha
    weights = allocation.weights.detach().clone().requires_grad_()
    cores = [torch.zeros(RANK_MAX, RANK_MAX)] * LAYERS
    theirs = torch.stack(looped_masks(looped_ranks(weights, BUDGET, RANK_MIN), alpha, RANK_MIN, RANK_MAX, list(cores)))
    ours = allocation.masks()
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-6)
    factors = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1))
    (ours * factors).sum().backward()
    (theirs * factors).sum().backward()
    torch.testing.assert_close(allocation.weights.grad, weights.grad, rtol=1e-4, atol=1e-5)


def test_the_looped_masks_equal_the_plain_oracle():
    ranks = torch.tensor([2.0, 5.3, 8.9])
    found = looped_masks(ranks, 0.8, RANK_MIN, RANK_MAX, [torch.zeros(RANK_MAX, RANK_MAX)] * 3)
    for rank, mask in zip(ranks, found, strict=True):
        torch.testing.assert_close(mask, looped_mask(rank, 0.8, RANK_MIN, RANK_MAX), rtol=0, atol=2e-6)


def test_operations_are_counted_forward_and_backward():
    variable = torch.ones(3, requires_grad=True)
    assert counts.count_operations(lambda: variable * 2) == 1
    assert counts.count_operations(lambda: (variable * 2).sum().backward()) > 3


def test_our_masks_take_few_operations_and_the_loop_hundreds_a_layer():
    assert counts.our_mask_operations() <= 100
    assert counts.looped_mask_operations() > 200 * counts.LAYERS
