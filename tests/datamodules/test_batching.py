from itertools import chain

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import InputError
from datamodules.batching import EvaluationBatchSampler, TrainingBatchSampler, global_batches

LENGTHS = st.lists(st.integers(1, 30), min_size=1, max_size=70).map(torch.tensor)
MODES = st.sampled_from(["length_grouped", "random"])


def cola_like_lengths(rows: int = 8551) -> torch.Tensor:
    """Right-skewed, mostly 6 to 20 tokens, a few above 40: the shape of CoLA."""
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(rows, generator=generator) * 0.42 + 2.3).exp().round().clamp(3, 60).long()


def padded_over_real(batches, lengths) -> float:
    padded = sum(len(batch) * max(int(lengths[row]) for row in batch) for batch in batches)
    return padded / int(lengths.sum())


@given(LENGTHS, st.integers(1, 20), st.integers(0, 5), MODES)
def test_every_row_is_in_exactly_one_batch(lengths, batch_size, epoch, mode):
    batches = global_batches(lengths, batch_size, seed=1, epoch=epoch, batching=mode)
    assert sorted(chain.from_iterable(batch.tolist() for batch in batches)) == list(range(len(lengths)))
    whole, rest = divmod(len(lengths), batch_size)
    assert [len(batch) for batch in batches] == [batch_size] * whole + [rest] * (rest > 0)


@pytest.mark.parametrize("mode", ["length_grouped", "random"])
def test_the_order_depends_on_seed_and_epoch_and_on_nothing_else(mode):
    def order(seed, epoch):
        return [batch.tolist() for batch in global_batches(cola_like_lengths(500), 8, seed, epoch, mode)]

    torch.manual_seed(1)
    first = order(seed=1, epoch=0)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert order(seed=1, epoch=0) == first
    assert torch.equal(torch.get_rng_state(), state)
    # (1, 0) and (0, 1) too: seed + epoch would make them equal.
    orders = [order(seed, epoch) for seed in range(3) for epoch in range(3)]
    assert all(orders[i] != orders[j] for i in range(9) for j in range(i))


def test_length_grouping_leaves_little_padding():
    lengths = cola_like_lengths()
    ratios = {
        mode: padded_over_real(global_batches(lengths, 32, seed=0, epoch=0, batching=mode), lengths)
        for mode in ("length_grouped", "random")
    }
    assert ratios["length_grouped"] <= 1.10
    assert ratios["random"] > 1.5
    longest = [int(lengths[batch].max()) for batch in global_batches(lengths, 32, seed=0, epoch=0)]
    assert longest != sorted(longest)  # the batches themselves are in no order of length
    with pytest.raises(InputError, match="batching is 'lenght_grouped'; allowed: length_grouped, random"):
        global_batches(lengths, 32, 0, 0, "lenght_grouped")


def test_left_over_rows_are_drawn_at_random():
    # 5 of 37 rows are left over in each epoch; over 300 epochs each row is expected 40 times.
    lengths = torch.arange(1, 38)
    times = torch.zeros(37)
    for epoch in range(300):
        times[global_batches(lengths, 32, seed=0, epoch=epoch)[-1]] += 1
    assert times.sum() == 300 * 5
    assert times.min() > 15
    assert times.max() < 75


@settings(deadline=None)
@given(
    lengths=LENGTHS,
    processes=st.sampled_from([1, 2, 4]),
    accumulate=st.sampled_from([1, 2]),
    multiple=st.integers(1, 3),
    epoch=st.integers(0, 2),
    mode=MODES,
)
def test_shares_of_all_processes_make_up_each_global_batch(lengths, processes, accumulate, multiple, epoch, mode):
    batch_size = 8 * multiple
    samplers = [
        TrainingBatchSampler(lengths, batch_size, 7, mode, processes, rank, accumulate) for rank in range(processes)
    ]
    for sampler in samplers:
        sampler.sampler.set_epoch(epoch)
    streams = [list(sampler) for sampler in samplers]
    expected = global_batches(lengths, batch_size, 7, epoch, mode)
    assert {len(stream) for stream in streams} == {len(expected) * accumulate}
    assert {len(sampler) for sampler in samplers} == {len(expected) * accumulate}

    row_losses = torch.linspace(0.5, 3.0, len(lengths), dtype=torch.float64)
    for number, batch in enumerate(expected):
        steps = range(number * accumulate, (number + 1) * accumulate)
        parts = [stream[step] for step in steps for stream in streams]
        rows = [row for part in parts for row, weight in zip(*part[:2], strict=True) if weight == 1.0]
        # In this order, too: share = accumulation step x processes + rank.
        assert rows == batch.tolist()
        # Evenly, and at least one row for everybody.
        real = [sum(part.weights) for part in parts]
        assert max(real) - min(real) <= 1
        assert all(part.indices for part in parts)
        loss = 0.0
        for part in parts:
            weighted = row_losses[part.indices] * torch.tensor(part.weights)
            loss += float(weighted.sum()) / part.loss_denominator / processes / accumulate
        assert loss == pytest.approx(float(row_losses[batch].mean()), rel=1e-12)


def test_fewer_rows_than_shares_gives_one_filler_that_counts_nothing():
    parts = [TrainingBatchSampler(torch.ones(2), 4, processes=4, rank=rank).micro_batch(0, 0) for rank in range(4)]
    assert sorted(sum(part.weights) for part in parts) == [0, 0, 1, 1]
    assert all(len(part.indices) == 1 and part.loss_denominator == 0.5 for part in parts)


@pytest.mark.parametrize(
    ("batch_size", "processes", "accumulate", "advice"), [(32, 3, 1, "30 or 33"), (2, 2, 2, "batch_size 4")]
)
def test_a_batch_that_cannot_be_split_evenly_is_refused(batch_size, processes, accumulate, advice):
    with pytest.raises(InputError, match=f"batch_size is {batch_size}") as caught:
        TrainingBatchSampler(torch.ones(99), batch_size, processes=processes, accumulate=accumulate)
    assert f"{processes} x {accumulate} = {processes * accumulate}" in str(caught.value)
    assert advice in str(caught.value)


def test_same_order_repeats_the_first_epoch():
    sampler = TrainingBatchSampler(cola_like_lengths(100), 8, same_order=True)
    first = list(sampler)
    sampler.set_epoch(3)
    assert list(sampler) == first
    other = TrainingBatchSampler(cola_like_lengths(100), 8)
    other.set_epoch(3)
    assert list(other) != first


@given(LENGTHS, st.integers(1, 20), st.integers(1, 5), st.booleans())
def test_evaluation_batches_hold_every_row_once(lengths, batch_size, processes, sort):
    alone = list(EvaluationBatchSampler(lengths, batch_size, sort=sort))
    together = [EvaluationBatchSampler(lengths, batch_size, processes, rank, sort) for rank in range(processes)]
    for rank, sampler in enumerate(together):
        counted = [batch for batch in sampler if batch.weights != [0.0]]
        assert counted == alone[rank::processes]
        # every process joins in as often as the first
        assert len(list(sampler)) == len(sampler) == len(together[0]) == len(alone[::processes])
    order = [row for batch in alone for row in batch.indices]
    assert sorted(order) == list(range(len(lengths)))
    assert order == sorted(order, key=lambda row: int(lengths[row]) if sort else row)
    assert all(batch.weights == [1.0] * len(batch.indices) for batch in alone)
    assert all(batch.loss_denominator == len(batch.indices) <= batch_size for batch in alone)
