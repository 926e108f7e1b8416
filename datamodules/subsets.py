"""Which rows of the training split are used for what: fixed random subsets, held-out rows, repeats of the test."""

import torch

from common.errors import InputError
from datamodules.sources import Examples


def random_subset(examples: Examples, rows: int | None, seed: int, pairs: bool = False) -> Examples:
    """At most `rows` random rows, in their old order; the same ones for the same seed. None takes all.

    With `pairs`, rows 2i and 2i + 1 stay together, so that an odd number of them is an `InputError`.
    """
    if rows is None or rows >= len(examples):
        return examples
    if not pairs:
        return examples.select(_drawn(len(examples), rows, seed))
    if rows % 2:
        raise InputError(f"train_rows is {rows} with batching 'neighbour_pairs'; allowed: an even number.")
    first = _drawn(len(examples) // 2, rows // 2, seed)
    return examples.select([row for pair in first for row in (2 * pair, 2 * pair + 1)])


def hold_out(
    train: Examples, rows: int | None, seed: int, setting: str = "validation_rows"
) -> tuple[Examples, Examples]:
    """The training rows that stay, and `rows` random others for validation; each in their old order.

    `InputError`: nothing would be left to train on; `setting` is what `rows` comes from.
    """
    if rows is None or not 1 <= rows < len(train):
        raise InputError(
            f"{rows} validation rows can't be drawn from {len(train)} training rows; allowed: 1 to {len(train) - 1}. "
            f"Set --data.{setting}."
        )
    held = _drawn(len(train), rows, seed)
    rest = sorted(set(range(len(train))) - set(held))
    return train.select(rest), train.select(held)


def validated_on_training_rows(examples: dict[str, Examples], rows: int, seed: int) -> dict[str, Examples]:
    """The splits with `rows` held-out training rows as validation, and the published validation split as test.

    A test split without labels, as GLUE publishes it, makes room for it. `InputError`: there is a test split with
    labels; or nothing would be left to train on.
    """
    if any(split.startswith("test") and found.labels is not None for split, found in examples.items()):
        raise InputError(
            f"held_out_rows is {rows}, and the data has a test split with labels already. Set --data.held_out_rows "
            "null, or for CoLA's official release --data.cola_validation combined."
        )
    published = {split.replace("validation", "test"): examples[split] for split in examples if "validation" in split}
    train, validation = hold_out(examples["train"], rows, seed, "held_out_rows")
    return {"train": train, "validation": validation, **published}


def _drawn(total: int, rows: int, seed: int) -> list[int]:
    chosen = torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:rows]
    return chosen.sort().values.tolist()


def without_repeats(train: Examples, test: Examples) -> tuple[Examples, int]:
    """`train` without the rows that repeat a row of `test`, and how many were left out.

    Letters and digits are compared: case, punctuation and blanks, which copies of a text often differ in, are not.
    """
    seen = set(map(_letters, test.texts))
    kept = [row for row, text in enumerate(train.texts) if _letters(text) not in seen]
    return train.select(kept), len(train) - len(kept)


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text.casefold()))
