import random
from dataclasses import replace
from functools import partial

import pytest
import torch

from common.errors import InputError
from datamodules.batching import MicroBatch, TrainingBatchSampler
from datamodules.loaders import Padding, ResumableDataLoader, collate
from datamodules.sources import Examples
from datamodules.tokenization import TokenizedSplit, tokenize_cached


def make_split(rows: int = 37, types: bool = True) -> TokenizedSplit:
    draw = random.Random(0)
    lengths = torch.tensor([draw.randint(1, 12) for _ in range(rows)])
    tokens = int(lengths.sum())
    return TokenizedSplit(
        input_ids=torch.arange(100, 100 + tokens, dtype=torch.int32),
        offsets=torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)]),
        token_type_ids=(torch.arange(tokens) % 2).to(torch.uint8) if types else None,
        labels=torch.arange(rows) % 3,
        tags=torch.arange(rows) % 5,
    )


def make_loader(rows: int = 37, batch_size: int = 8, **settings) -> ResumableDataLoader:
    split = make_split(rows)
    sampler = TrainingBatchSampler(split.lengths, batch_size, **settings)
    return ResumableDataLoader(split, sampler, partial(collate, padding=Padding(0)))


def row_lists(batches) -> list[list[int]]:
    return [batch["row"].tolist() for batch in batches]


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_equals_padding_written_in_plain_python(side):
    split = make_split()
    rows = [5, 0, 36, 7]
    batch = collate(split, MicroBatch(rows, [1.0] * 4, 2.0), Padding(9, side, token_type_id=7))

    spans = [range(int(split.offsets[row]), int(split.offsets[row + 1])) for row in rows]
    longest = max(len(span) for span in spans)

    def padded(flat, fill):
        lists = []
        for span in spans:
            values, filling = [int(flat[at]) for at in span], [fill] * (longest - len(span))
            lists.append(filling + values if side == "left" else values + filling)
        return lists

    assert batch["inputs"]["input_ids"].tolist() == padded(split.input_ids, 9)
    assert batch["inputs"]["token_type_ids"].tolist() == padded(split.token_type_ids, 7)
    assert batch["inputs"]["attention_mask"].tolist() == padded(torch.ones(len(split.input_ids)), 0)
    assert all(tensor.dtype == torch.long for tensor in batch["inputs"].values())
    assert batch["labels"].tolist() == [2, 0, 0, 1]
    assert batch["tag"].tolist() == [0, 0, 1, 2]
    assert batch["row"].tolist() == rows
    assert batch["loss_denominator"] == 2.0
    real = sum(len(span) for span in spans)
    assert (batch["real_rows"], batch["real_tokens"], batch["padded_tokens"]) == (4, real, 4 * longest)


def test_padding_equals_the_tokenizers_own(tokenizer):
    texts = ["w1 w2 w3", "w4", "w5 w6 w7 w8 w9 w10", "w11 w12"]
    split = tokenize_cached(Examples(texts), tokenizer, max_length=6)
    batch = collate(split, MicroBatch([0, 1, 2, 3], [1.0] * 4, 4.0), Padding.of(tokenizer))
    expected = tokenizer(texts, padding=True, truncation=True, max_length=6, return_tensors="pt")
    assert set(batch["inputs"]) == set(expected)
    for name, tensor in expected.items():
        assert torch.equal(batch["inputs"][name], tensor), name
    assert "labels" not in batch
    assert "tag" not in batch


def test_a_filler_row_is_padded_but_not_counted():
    split = make_split(types=False)
    batch = collate(split, MicroBatch([3], [0.0], 0.5), Padding(0))
    assert batch["inputs"]["input_ids"].shape == (1, int(split.lengths[3]))
    assert "token_type_ids" not in batch["inputs"]
    assert (batch["real_rows"], batch["real_tokens"], batch["padded_tokens"]) == (0, 0, 0)
    assert batch["weights"].tolist() == [0.0]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_resuming_anywhere_continues_with_the_very_next_batch(accumulate):
    uninterrupted = {}
    loader = make_loader(accumulate=accumulate)
    for epoch in range(2):
        loader.batch_sampler.set_epoch(epoch)
        uninterrupted[epoch] = row_lists(loader)
    length = 5 * accumulate
    assert len(loader) == len(uninterrupted[0]) == len(uninterrupted[1]) == length
    assert uninterrupted[0] != uninterrupted[1]

    for epoch in range(2):
        for stop in range(length + 1):
            first = make_loader(accumulate=accumulate)
            first.batch_sampler.set_epoch(epoch)
            iterator = iter(first)
            before = row_lists(next(iterator) for _ in range(stop))
            state = first.state_dict()
            assert (state["epoch"], state["next_batch"]) == (epoch, stop)

            second = make_loader(accumulate=accumulate)
            second.load_state_dict(state)
            assert second.state_dict() == state
            # Lightning's order: iter, then the epoch, then next.
            iterator = iter(second)
            second.batch_sampler.set_epoch(epoch)
            assert before + row_lists(iterator) == uninterrupted[epoch]
            second.batch_sampler.set_epoch(epoch + 1)
            assert second.state_dict()["next_batch"] == 0
            assert len(row_lists(second)) == length


def test_resuming_collates_only_what_is_left_and_leaves_random_state_alone():
    collated = []

    def counting(split, micro_batch):
        collated.append(micro_batch)
        return collate(split, micro_batch, Padding(0))

    loader = make_loader()
    loader.collate = counting
    loader.load_state_dict(loader.state_dict() | {"next_batch": 3})
    torch.manual_seed(0)
    state = torch.get_rng_state()
    assert len(list(loader)) == len(collated) == 2
    assert torch.equal(torch.get_rng_state(), state)


def test_resuming_with_other_data_is_refused():
    state = make_loader().state_dict()
    with pytest.raises(InputError, match="train rows = 37, this run has 36"):
        make_loader(rows=36).load_state_dict(state)
    with pytest.raises(InputError, match=r"--data\.batch_size = 8, this run has 4"):
        make_loader(batch_size=4).load_state_dict(state)
    other = make_loader()
    other.split = replace(other.split, input_ids=other.split.input_ids.flip(0))
    with pytest.raises(InputError, match="as many rows as this run reads, but on other ones"):
        other.load_state_dict(state)


def test_accumulation_may_change_between_epochs_only():
    loader = make_loader()
    next(iter(loader))
    with pytest.raises(InputError, match="accumulate_grad_batches = 1, this run has 2"):
        make_loader(accumulate=2).load_state_dict(loader.state_dict())
    finished = make_loader()
    list(finished)
    other = make_loader(accumulate=2)
    other.load_state_dict(finished.state_dict())
    assert list(other) == []
    other.load_state_dict(make_loader().state_dict())  # before the first batch
    assert len(list(other)) == len(other)
