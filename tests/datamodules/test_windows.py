import pytest
import torch

from datamodules.batching import MicroBatch, TrainingBatchSampler
from datamodules.loaders import Padding
from datamodules.tokenization import TokenizedSplit
from datamodules.windows import IGNORED, collate_windows, cut_windows


def texts(*lengths: int) -> TokenizedSplit:
    """Texts of these lengths; the tokens of all are numbered through from 100."""
    return TokenizedSplit(
        torch.arange(100, 100 + sum(lengths), dtype=torch.int32), offsets=torch.tensor([0, *lengths]).cumsum(0)
    )


def sliding(length: int, size: int, stride: int) -> list[tuple[int, int, int]]:
    """(start, end, scored) of each window: the loop of the transformers documentation on perplexity."""
    found, previous = [], 0
    for start in range(0, length, stride):
        end = min(start + size, length)
        scored = end - previous - (start == 0)  # the shift: a window's first token has no prediction
        if scored > 0:
            found.append((start, end, scored))
        previous = end
        if end == length:
            break
    return found


@pytest.mark.parametrize("length", [1, 2, 7, 8, 9, 15, 16, 17, 40])
@pytest.mark.parametrize(("size", "stride"), [(8, 1), (8, 3), (8, 4), (8, 7), (2, 1)])
def test_overlapping_windows_are_those_of_the_sliding_loop(length, size, stride):
    windows = cut_windows(texts(length), size, stride)
    rows = zip(windows.offsets.tolist(), windows.ends.tolist(), windows.scored.tolist())
    assert list(rows) == sliding(length, size, stride)
    assert int(windows.scored.sum()) == length - 1  # every token but the first, once


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ((10,), [(0, 4, 3), (4, 8, 3), (8, 10, 1)]),
        ((9,), [(0, 4, 3), (4, 8, 3)]),  # the ninth token alone would score nothing
        ((4, 1, 6), [(0, 4, 3), (5, 9, 3), (9, 11, 1)]),
    ],
)
def test_windows_end_to_end_score_all_but_their_first_token(lengths, expected):
    windows = cut_windows(texts(*lengths), 4)
    assert list(zip(windows.offsets.tolist(), windows.ends.tolist(), windows.scored.tolist())) == expected


def test_windows_know_their_text():
    assert cut_windows(texts(4, 1, 6), 4).text.tolist() == [0, 2, 2]
    assert cut_windows(texts(3, 6), 4, stride=2).text.tolist() == [0, 1, 1]


@pytest.mark.parametrize("stride", [None, 3])
def test_labels_are_the_scored_tokens_and_nothing_else(stride):
    split = cut_windows(texts(11, 5), 8, stride)
    indices = list(range(len(split)))
    batch = collate_windows(split, MicroBatch(indices, [1.0] * len(indices), 1.0), Padding(token_id=100))
    labels, input_ids = batch["labels"], batch["inputs"]["input_ids"]
    assert bool(((labels == IGNORED) | (labels == input_ids)).all())
    assert (labels != IGNORED).sum(1).tolist() == split.scored.tolist() == batch["scored"].tolist()
    # token 100 is the first of all, so it is never scored; as padding it isn't either
    assert 100 not in labels
    found = labels[labels != IGNORED].tolist()
    assert len(found) == len(set(found))
    if stride:
        assert sorted(found) == [*range(101, 111), *range(112, 116)]


@pytest.mark.parametrize(("processes", "accumulate"), [(1, 1), (2, 1), (1, 3), (2, 3)])
def test_the_shares_of_a_global_batch_add_up_to_the_mean_over_its_tokens(processes, accumulate):
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(2, 20, (27,), generator=generator)
    sums = torch.rand(27, generator=generator) * lengths  # summed loss of each row
    samplers = [
        TrainingBatchSampler(lengths, 6, processes=processes, rank=rank, accumulate=accumulate, row_counts=lengths - 1)
        for rank in range(processes)
    ]
    whole = TrainingBatchSampler(lengths, 6, row_counts=lengths - 1)
    for step in range(5):
        rows = torch.tensor(whole.micro_batch(0, step).indices)
        expected = sums[rows].sum() / (lengths[rows] - 1).sum()
        losses = []
        for part in range(accumulate):
            for sampler in samplers:
                indices, weights, denominator = sampler.micro_batch(0, step * accumulate + part)
                losses.append((sums[indices] * torch.tensor(weights)).sum() / denominator)
        # DDP averages over processes, Lightning over accumulation steps
        assert torch.isclose(torch.stack(losses).mean(), expected, rtol=1e-5)
