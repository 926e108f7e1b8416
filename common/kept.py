"""What was made last, kept for the next one who would make the same."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

Value = TypeVar("Value")


class LastMade(Generic[Value]):
    """Remembers one value under its key while it is asked to: what neighbours share; more would cost memory."""

    def __init__(self) -> None:
        self._keeping = False
        self._kept: tuple[Any, Value] | None = None

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """Within it values are remembered; after it nothing is."""
        self._keeping = True
        try:
            yield
        finally:
            self._keeping, self._kept = False, None

    def get(self, key: Any) -> Value | None:
        """The value that was put last, if it was put under this key."""
        return self._kept[1] if self._kept is not None and self._kept[0] == key else None

    def put(self, key: Any, value: Value) -> None:
        """Remembers a value instead of the last one, if values are remembered at this moment."""
        if self._keeping:
            self._kept = key, value

    @property
    def is_keeping(self) -> bool:
        """Whether values are remembered at this moment."""
        return self._keeping
