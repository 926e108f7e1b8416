import pytest
import torch

from benchmarks.seed_loop import looped_mask, looped_ranks
from lora.rank_allocation import RankAllocation
from tests.reference import looped_mask as oracle

LAYERS, RANK_MIN, RANK_MAX, BUDGET = 6, 2, 9, 6 * 36.0


@pytest.mark.parametrize("alpha", [0.5, 1.0, 3.0])
def test_the_looped_masks_and_their_gradients_equal_ours(alpha):
    allocation = RankAllocation(torch.ones(LAYERS), 2, RANK_MIN, RANK_MAX, BUDGET, "softmax")
    allocation.alpha = alpha
    weights = allocation.weights.detach().clone().requires_grad_()
    core = torch.zeros(RANK_MAX, RANK_MAX)
    ranks = looped_ranks(weights, BUDGET, RANK_MIN)
    theirs = torch.stack([looped_mask(rank, alpha, RANK_MIN, RANK_MAX, core) for rank in ranks])
    ours = allocation.masks()
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-6)
    factors = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1))
    (ours * factors).sum().backward()
    (theirs * factors).sum().backward()
    torch.testing.assert_close(allocation.weights.grad, weights.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rank", [2.0, 5.3, 8.9])
def test_the_looped_mask_equals_the_plain_oracle(rank):
    found = looped_mask(torch.tensor(rank), 0.8, RANK_MIN, RANK_MAX, torch.zeros(RANK_MAX, RANK_MAX))
    expected = oracle.looped_mask(torch.tensor(rank), 0.8, RANK_MIN, RANK_MAX)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)
