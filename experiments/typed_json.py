"""Dataclasses that are written to JSON and read back with every part checked against its type."""

from contextlib import suppress
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, ClassVar, Self, Union, get_args, get_origin, get_type_hints

from common.errors import InputError, shown
from common.files import load_json, no_access


class WrongPartError(ValueError):
    """A part is missing or of the wrong kind; the text goes on from "it"."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of a JSON file: each field is a key, in the order of the fields.

    Fields that are None are written as null, unless `LEFT_OUT` names them.
    """

    LEFT_OUT: ClassVar[tuple[str, ...]] = ()
    ADVICE: ClassVar[str] = "Delete this file."  # what to do about a file that isn't whole

    # keys without a field, which are kept and written last
    other: dict[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls, path: Path) -> Self:
        """The content of a file; `InputError` if it can't be read, isn't whole, or lacks a part."""
        return cls.from_dict(read_json(path), str(path))

    @classmethod
    def from_dict(cls, content: object, where: str) -> Self:
        """The same from plain values, maybe of another version; `where` names their file in messages."""
        try:
            return cls.from_plain(content)
        except WrongPartError as error:
            raise InputError(f"{where} isn't what this version writes: it {error}. {cls.ADVICE}") from error

    @classmethod
    def from_plain(cls, content: object, name: str = "") -> Self:
        """As `from_dict`, for a part below `name`; `WrongPartError` names the first field that is missing or wrong."""
        content = content if isinstance(content, dict) else {}
        above, hints = f"{name}." if name else "", _hints(cls)  # type: ignore[arg-type]
        for one in fields(cls):
            if one.name not in content and one.default is MISSING and one.default_factory is MISSING:
                raise WrongPartError(f"has no {above}{one.name}")
        values = {key: _checked(hint, content[key], above + key) for key, hint in hints.items() if key in content}
        return cls(**values, other={key: value for key, value in content.items() if key not in hints})

    def as_plain(self) -> dict[str, Any]:
        """As plain values, in the order of the file."""
        values = {key: getattr(self, key) for key in _hints(type(self))}  # type: ignore[arg-type]
        kept = {key: value for key, value in values.items() if value is not None or key not in self.LEFT_OUT}
        return {**{key: _plain(value) for key, value in kept.items()}, **self.other}


@cache
def _hints(kind: type[Part]) -> dict[str, Any]:
    """The type of each field; working types out anew would cost more than reading a file."""
    hints = get_type_hints(kind)
    return {one.name: hints[one.name] for one in fields(kind) if one.name != "other"}


def _plain(value: object) -> object:
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return value.as_plain() if isinstance(value, Part) else value


def _checked(hint: Any, value: object, name: str) -> object:
    """The value as its type says; lists and dictionaries item by item."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        *others, last = [kind for kind in inner if (kind is type(None)) == (value is None)] or inner
        for kind in others:
            with suppress(WrongPartError):
                return _checked(kind, value, name)
        return _checked(last, value, name)
    if origin is None and isinstance(hint, type) and issubclass(hint, Part):
        return hint.from_plain(value, name)
    if origin is list and isinstance(value, list):
        return [_checked(inner[0], item, name) for item in value]
    if origin is dict and isinstance(value, dict):
        return {key: _checked(inner[1], item, f"{name}.{key}") for key, item in value.items()}
    if hint is Any or (origin is None and _is_a(value, hint)):
        return value
    raise WrongPartError(f"says {name} is {shown(value)}")


def _is_a(value: object, kind: type) -> bool:
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, int | float) if kind is float else isinstance(value, kind)


def read_json(path: Path) -> dict[str, Any]:
    """The content of one of a run's or a sweep's JSON files; `InputError` says whether it can be made again."""
    try:
        content = load_json(path)
    except (OSError, ValueError) as error:
        raise no_access(path, error) or InputError(
            f"{path} can't be read ({error}): it was cut short or changed by hand. Put back a copy, or delete the "
            "file: running the sweep again, or fit with --ckpt_path last, writes it anew if last.ckpt is still there."
        ) from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no results but a {type(content).__name__}. Delete this file and run again.")
    return content
