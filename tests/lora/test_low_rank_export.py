"""Updates cut to their ranks: as plain LoRA factors, in the weights, and back from blocks."""

import copy
import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from common.errors import InputError
from lora import AdaptiveLoRAXS, LoRAXS
from lora.export import cut_factors, merge, plain_weights, unwrap
from lora.factors import factorise
from lora.layers import dense_weight
from lora.rank_allocation import RankAllocation
from tests.architectures import classifier

ARCHITECTURES = ("bert", "gpt2", "llama")  # Linear; Conv1D; Linear without biases
LAYERS = {"bert": 8, "gpt2": 6, "llama": 8}
TOKENS = {"input_ids": torch.tensor([[2, 5, 7, 9, 11], [3, 8, 6, 30, 12]])}


def adapted(model_type: str, ranks: list[int], rank_max: int = 8):
    """A plain model and the same one with an adapter at these discrete ranks."""
    plain, head = classifier(model_type)
    model = copy.deepcopy(plain)
    adapter = AdaptiveLoRAXS(rank_min=1, rank_max=rank_max, rank_average=2, initial_std=0.5)
    adapter.attach(model, model_type, head)
    wanted = torch.tensor(ranks)
    adapter.rank_allocation.budget = float((wanted**2).sum())
    adapter.rank_allocation.start_from(wanted)
    adapter.rank_allocation.discretise()
    adapter.refresh()
    return plain, model, adapter


def dense_copy(plain, adapter, ranks: list[int]):
    """The plain model with s · B[:, :k] R[:k, :k] A[:k] added to each weight, entry by entry of the formula."""
    layers = [plain.get_submodule(name) for name in adapter.layer_names]
    factors = factorise([dense_weight(layer) for layer in layers], adapter.rank, "svd")
    with torch.no_grad():
        for layer, R, k, (A, B) in zip(layers, adapter.R, ranks, factors, strict=True):
            dense_weight(layer).add_(adapter.scaling * B[:, :k] @ R[:k, :k] @ A[:k])  # a view where it is transposed
    return plain


def logits(model):
    with torch.no_grad():
        return model(**TOKENS).logits


@pytest.mark.parametrize("model_type", ARCHITECTURES)
@settings(max_examples=8, deadline=None)
@given(data=st.data())
@example(data=1)
@example(data=8)
def test_the_run_its_cut_factors_and_the_merged_model_say_the_same(model_type, data):
    layers = LAYERS[model_type]
    drawn = data if isinstance(data, int) else data.draw(st.lists(st.integers(1, 8), min_size=layers, max_size=layers))
    ranks = [drawn] * layers if isinstance(drawn, int) else drawn
    plain, model, adapter = adapted(model_type, ranks)
    assert list(adapter.discrete_ranks().values()) == ranks
    run = logits(model)
    factors = adapter.low_rank_factors()
    assert [(A.shape[0], B.shape[1]) for A, B in factors.values()] == [(k, k) for k in ranks]
    untouched = logits(plain)
    unwrap(model, factors)
    assert torch.equal(logits(model), untouched)
    merge(model, factors)
    assert (run - untouched).abs().max() > 1e-3  # there is something to export
    expected = logits(dense_copy(plain, adapter, ranks))
    torch.testing.assert_close(run, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(logits(model), expected, rtol=1e-4, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_blocks_come_back_into_an_adapter_of_the_same_or_a_larger_size(data):
    ranks = data.draw(st.lists(st.integers(1, 5), min_size=8, max_size=8))
    _, _, adapter = adapted("bert", ranks, rank_max=5)
    blocks = adapter.blocks()
    other = LoRAXS(rank=data.draw(st.integers(max(ranks), 8)))
    model, head = classifier("bert")
    other.attach(model, "bert", head)
    other.load_blocks(blocks)
    for index, (k, block) in enumerate(zip(ranks, blocks.values(), strict=True)):
        assert torch.equal(other.R[index, :k, :k], adapter.R[index, :k, :k])
        assert torch.equal(block, adapter.R[index, :k, :k])
        assert other.R[index].count_nonzero() <= k * k


def test_blocks_of_other_layers_or_a_larger_rank_are_refused():
    _, _, adapter = adapted("bert", [4] * 8)
    blocks = adapter.blocks()
    model, head = classifier("bert")
    small = LoRAXS(rank=3)
    small.attach(model, "bert", head)
    with pytest.raises(InputError, match="rank 4 in a layer, but R has size 3"):
        small.load_blocks(blocks)
    with pytest.raises(InputError, match="differ in 1 adapted layers"):
        adapter.load_blocks(dict(list(blocks.items())[1:]))


@pytest.mark.parametrize("rule", ["softmax", "bounded"])
@pytest.mark.parametrize("exponent", [1, 2])  # plain LoRA, where a rank costs in + out; LoRA-XS
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_an_allocation_starts_from_ranks(rule, exponent, data):
    layers, rank_min = data.draw(st.integers(2, 96)), data.draw(st.integers(1, 5))
    costs = st.sampled_from([24, 48, 4096]) if exponent == 1 else st.just(1)
    sides = torch.tensor(data.draw(st.lists(costs, min_size=layers, max_size=layers)))
    ranks = torch.tensor(data.draw(st.lists(st.integers(rank_min, 25), min_size=layers, max_size=layers)))
    used, most = float((sides * ranks**exponent).sum()), float((sides * 25**exponent).sum())
    allocation = RankAllocation(sides, exponent, rank_min, 25, used, rule)
    allocation.start_from(ranks)
    torch.testing.assert_close(allocation.ranks().detach(), ranks.float(), rtol=1e-4, atol=1e-3)
    assert allocation.discrete_ranks().tolist() == ranks.tolist()
    allocation.budget = used + (most - used) / 2  # a larger budget leaves no rank smaller
    assert (allocation.discrete_ranks() >= ranks).all()


def test_a_budget_too_small_for_the_blocks_is_refused_and_one_that_fits_keeps_the_update():
    _, _, adapter = adapted("bert", [1, 2, 3, 4, 5, 6, 7, 8])
    expected = {name: B @ A for name, (A, B) in adapter.low_rank_factors().items()}
    used = 1 + 4 + 9 + 16 + 25 + 36 + 49 + 64

    def started(rank_min: int, budget: float) -> AdaptiveLoRAXS:
        model, head = classifier("bert")
        other = AdaptiveLoRAXS(rank_min=rank_min, rank_max=8, budget=budget)
        other.attach(model, "bert", head)
        other.load_blocks(adapter.blocks())
        return other

    for rank_min, needed in ((1, used), (3, used + 9 + 9 - 1 - 4)):  # a larger rank_min takes from the others
        with pytest.raises(InputError, match=f"need a budget of {needed}, this run has {needed - 1}; allowed"):
            started(rank_min, needed - 1)
        average = math.ceil((needed / 8) ** 0.5 * 1000) / 1000  # what the message recommends is enough
        with pytest.raises(InputError, match=f"rank_average to {average} "):
            started(rank_min, needed - 1)
        started(rank_min, 8 * average**2)
        for budget in (needed, needed + 50):
            factors = started(rank_min, budget).low_rank_factors()
            for name, (A, B) in factors.items():
                torch.testing.assert_close(B @ A, expected[name], rtol=1e-5, atol=1e-6)


def test_wrapped_parameters_keep_their_plain_names():
    plain, model, adapter = adapted("gpt2", [2] * 6)
    wrapped = plain_weights(model, adapter.layer_names)
    assert {name: id(value) for name, value in wrapped.items()}.keys() == dict(plain.named_parameters()).keys()
    assert all(torch.equal(wrapped[name], value) for name, value in plain.named_parameters())


def test_an_adapter_that_holds_no_plain_factors_says_what_does():
    with pytest.raises(InputError, match=r"LoRAXS, which can't start from plain LoRA factors; allowed: lora\.LoRA"):
        LoRAXS().load_low_rank_factors({})


@pytest.mark.parametrize("exponent", [1, 2])
def test_a_cut_keeps_the_largest_singular_values_of_the_dense_updates(exponent):
    generator = torch.Generator().manual_seed(5)
    shapes = {"a": (9, 12), "b": (12, 7), "c": (8, 8)}
    factors = {
        name: (torch.randn(4, inputs, generator=generator), torch.randn(outputs, 4, generator=generator))
        for name, (outputs, inputs) in shapes.items()
    }
    cut = cut_factors(factors, torch.ones(3), exponent, 6)
    updates = {name: B @ A for name, (A, B) in factors.items()}
    ranks = {name: len(A) for name, (A, _) in cut.items()}
    assert sum(rank**exponent for rank in ranks.values()) <= 6
    if exponent == 1:
        values = torch.cat([torch.linalg.svdvals(update)[:4] for update in updates.values()])
        sixth = values.sort(descending=True).values[5] * (1 - 1e-5)
        assert ranks == {name: int((torch.linalg.svdvals(u) >= sixth).sum()) for name, u in updates.items()}
    for name, (A, B) in cut.items():  # Eckart and Young: nothing of this rank is nearer
        missed = torch.linalg.svdvals(updates[name])[ranks[name] :].square().sum().sqrt()
        torch.testing.assert_close((updates[name] - B @ A).norm(), missed, rtol=1e-4, atol=1e-4)
