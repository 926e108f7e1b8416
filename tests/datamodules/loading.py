"""What several tests of data modules ask of a loader."""

from itertools import chain


def rows_of(loader) -> list[int]:
    return list(chain.from_iterable(batch["row"].tolist() for batch in loader))
