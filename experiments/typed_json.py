"""Dataclasses that are written to JSON and read back with every part checked against its type."""

from collections.abc import Iterator
from dataclasses import MISSING, dataclass, field, fields
from types import UnionType
from typing import Any, ClassVar, Self, Union, get_args, get_origin, get_type_hints

from common.errors import shown


class WrongPartError(ValueError):
    """A part is missing or of the wrong kind; the text goes on from "it"."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of a JSON file: each field is a key, in the order of the fields.

    Fields that are None are written as null, unless `LEFT_OUT` names them.

    Attributes:
        other: keys without a field, which are kept and written last.
    """

    LEFT_OUT: ClassVar[tuple[str, ...]] = ()

    other: dict[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def from_plain(cls, content: Any, name: str = "") -> Self:
        """Builds the part from plain values.

        Args:
            content: values by key.
            name: where the part stands, with dots: for messages.

        Raises:
            WrongPartError: names the first field that is missing or of the wrong kind.
        """
        content = content if isinstance(content, dict) else {}
        values: dict[str, Any] = {}
        parts = _parts(cls)
        for key, (hint, required) in parts.items():
            full_name = f"{name}.{key}" if name else key
            if key in content:
                values[key] = _checked(hint, content[key], full_name)
            elif required:
                raise WrongPartError(f"has no {full_name}")
        return cls(**values, other={key: value for key, value in content.items() if key not in parts})

    def as_plain(self) -> dict[str, Any]:
        """As plain values."""
        return {**dict(self._plain_items()), **self.other}

    def _plain_items(self) -> Iterator[tuple[str, Any]]:
        for key in _parts(type(self)):
            value = getattr(self, key)
            if value is not None or key not in self.LEFT_OUT:
                yield key, value.as_plain() if isinstance(value, Part) else value


def _parts(kind: type[Part]) -> dict[str, tuple[Any, bool]]:
    """The type of each field, and whether it has no default."""
    if kind not in _KNOWN:
        hints = get_type_hints(kind)
        _KNOWN[kind] = {
            one.name: (hints[one.name], one.default is MISSING and one.default_factory is MISSING)
            for one in fields(kind)
            if one.name != "other"
        }
    return _KNOWN[kind]


_KNOWN: dict[type, dict[str, tuple[Any, bool]]] = {}  # working types out anew would cost more than reading a file


def _checked(hint: Any, value: Any, name: str) -> Any:
    """The value as its type says; lists and dictionaries item by item."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return _one_of(inner, value, name)
    if isinstance(hint, type) and issubclass(hint, Part):
        return hint.from_plain(value, name)
    if origin is list and isinstance(value, list):
        return [_checked(inner[0], item, name) for item in value]
    if origin is dict and isinstance(value, dict):
        return {key: _checked(inner[1], item, f"{name}.{key}") for key, item in value.items()}
    if origin is None and _is_plain(hint, value):
        return value
    raise WrongPartError(f"says {name} is {shown(value)}")


def _one_of(hints: tuple[Any, ...], value: Any, name: str) -> Any:
    if value is None and type(None) in hints:
        return None
    kinds = [hint for hint in hints if hint is not type(None)]
    for hint in kinds[:-1]:
        try:
            return _checked(hint, value, name)
        except WrongPartError:
            continue
    return _checked(kinds[-1], value, name)


def _is_plain(hint: type, value: Any) -> bool:
    if hint is Any:
        return True
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, int | float) if hint is float else isinstance(value, hint)
