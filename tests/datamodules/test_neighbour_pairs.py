import pytest
import torch

from common.errors import InputError
from datamodules import QuickstartDataModule
from datamodules.batching import TrainingBatchSampler, global_batches
from datamodules.sources import Examples
from datamodules.subsets import random_subset


def test_each_pair_is_in_one_batch_and_each_row_once():
    lengths = torch.randint(3, 20, (1000,), generator=torch.Generator().manual_seed(0))
    batches = global_batches(lengths, 32, seed=1, epoch=0, batching="neighbour_pairs")
    assert sorted(row for batch in batches for row in batch.tolist()) == list(range(1000))
    assert all(sorted({row ^ 1 for row in batch.tolist()}) == sorted(batch.tolist()) for batch in batches)
    assert [len(batch) for batch in batches] == [32] * 31 + [8]


@pytest.mark.parametrize("alike", [True, False])
def test_pairs_are_still_grouped_by_the_length_of_their_longer_row(alike):
    longer = torch.arange(1600) * 7 % 40 + 5
    lengths = torch.stack([longer if alike else torch.full_like(longer, 4), longer], dim=1).flatten()
    first, second = (global_batches(lengths, 32, 1, epoch, "neighbour_pairs") for epoch in (0, 1))
    assert sum(int(lengths[batch].max()) * 16 for batch in first) / int(longer.sum()) < 1.10
    assert [batch.tolist() for batch in first] != [batch.tolist() for batch in second]  # epochs differ


@pytest.mark.parametrize(("rows", "batch_size"), [(9, 4), (8, 3)])
def test_odd_numbers_are_refused(rows, batch_size):
    with pytest.raises(InputError, match="neighbour_pairs"):
        global_batches(torch.full((rows,), 5), batch_size, 1, 0, "neighbour_pairs")
    with pytest.raises(InputError, match="neighbour_pairs"):  # before training, and before --overwrite deletes a run
        TrainingBatchSampler(torch.full((rows,), 5), batch_size, batching="neighbour_pairs")


def test_a_subset_of_the_rows_is_one_of_pairs():
    examples = Examples([f"{row // 2}{'ab'[row % 2]}" for row in range(40)], labels=[row % 2 for row in range(40)])
    drawn = random_subset(examples, 10, seed=3, pairs=True)
    assert [text[:-1] for text in drawn.texts[::2]] == [text[:-1] for text in drawn.texts[1::2]]
    assert drawn.labels == [0, 1] * 5 and len(set(drawn.texts)) == 10
    assert random_subset(examples, None, 3, True) is random_subset(examples, 40, 3, True) is examples
    with pytest.raises(InputError, match="train_rows is 9"):
        random_subset(examples, 9, 3, True)


def test_train_rows_keep_the_pairs_of_the_quickstart(tiny_bert):
    data = QuickstartDataModule(backbone=tiny_bert, batching="neighbour_pairs", train_rows=20)
    train = data.read_splits()["train"]
    assert len(train) == 20 and all(sum(train.labels[row : row + 2]) == 1 for row in range(0, 20, 2))
