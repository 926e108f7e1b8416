"""At rank k a nested adapter is the fixed-rank adapter cut to rank k."""

import pytest
import torch

from common.errors import InputError
from lora import LoRA, LoRAXS, NestedLoRA, NestedLoRAXS
from tests.lora.attached import attached, filled, logits

RANK_MAX = 5
ALPHAS = [{"lora_alpha": 4.0}, {"alpha_per_rank": 2.0}, {"lora_alpha": 2.0, "scaling": "constant"}]


@pytest.mark.parametrize("settings", ALPHAS)
@pytest.mark.parametrize("rank", [1, 3, RANK_MAX])
def test_lora_at_rank_k_is_a_run_cut_to_rank_k(settings, rank):
    model, nested = attached(NestedLoRA(1, RANK_MAX, **settings))
    filled(nested)
    nested.use_rank(rank)
    nested.refresh()
    cut_model, cut = attached(LoRA(rank, **settings))
    with torch.no_grad():
        for key in cut.A:
            cut.A[key].copy_(nested.A[key][:rank])
            cut.B[key].copy_(nested.B[key][:, :rank])
    cut.refresh()
    torch.testing.assert_close(logits(model), logits(cut_model), rtol=0, atol=1e-6)
    nested.use_rank(rank % RANK_MAX + 1)
    nested.refresh()
    assert not torch.allclose(logits(model), logits(cut_model), atol=1e-4)
    nested.use_rank(rank)
    assert nested.discrete_ranks() == cut.discrete_ranks()
    for ours, theirs in zip(nested.low_rank_factors().values(), cut.low_rank_factors().values(), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("scaling", ["alpha_over_rank", "constant"])
@pytest.mark.parametrize("rank", [1, 3, RANK_MAX])
def test_lora_xs_at_rank_k_is_a_run_cut_to_rank_k(scaling, rank):
    model, nested = attached(NestedLoRAXS(1, RANK_MAX, lora_alpha=3.0, scaling=scaling, initial_std=0.5))
    nested.use_rank(rank)
    nested.refresh()
    cut_model, cut = attached(LoRAXS(rank, lora_alpha=3.0, scaling=scaling))
    with torch.no_grad():
        cut.R.copy_(nested.R[:, :rank, :rank])
    cut.refresh()
    torch.testing.assert_close(logits(model), logits(cut_model), rtol=1e-4, atol=1e-4)  # two truncated SVDs
    assert not torch.allclose(logits(model), logits(attached(LoRAXS(rank, initial_std=0))[0]), atol=1e-2)


@pytest.mark.parametrize("make", [lambda: NestedLoRA(1, RANK_MAX, lora_alpha=4.0), lambda: NestedLoRAXS(1, RANK_MAX)])
def test_only_the_leading_directions_have_a_gradient(make):
    model, nested = attached(make())
    if isinstance(nested, NestedLoRA):
        filled(nested)
    nested.use_rank(2)
    nested.refresh()
    logits(model)[:, 0].sum().backward()
    if isinstance(nested, NestedLoRA):
        gradients = [torch.cat([nested.A[key].grad, nested.B[key].grad.T], dim=1) for key in nested.A]
    else:
        gradients = [matrix.abs() + matrix.T.abs() for matrix in nested.R.grad]
    for gradient in gradients:
        assert bool(gradient[:2].any())
        assert not gradient[2:].any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank_min": 0}, "rank_min is 0 and rank_max is 5; allowed"),
        ({"rank_min": 5}, "rank_min is 5 and rank_max is 5; allowed"),
        ({"evaluated_ranks": []}, r"evaluated_ranks is \[\]; allowed"),
        ({"evaluated_ranks": [1, 6]}, r"evaluated_ranks is \[1, 6\]; allowed: .* \(1\) to rank_max \(5\)"),
    ],
)
def test_ranks_out_of_range_are_refused(settings, message):
    for make in (lambda **given: NestedLoRA(lora_alpha=4.0, **given), NestedLoRAXS):
        with pytest.raises(InputError, match=message):
            make(**{"rank_min": 1, "rank_max": RANK_MAX, **settings})
