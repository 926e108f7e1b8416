"""Options as they were typed, made ready for the parser: what it would misread, drop or take for something else."""

import json
from typing import NamedTuple

import yaml

from common.errors import InputError, shown
from experiments.config_files import GivenTwiceError, completed, load_yaml, short_name

_OPTIONS = ("--trainer.logger", "--trainer.callbacks", "--trainer.callbacks+")
_CLASSES = ("config", "data", "model", "model.adapter")


class _Option(NamedTuple):
    name: str  # without dashes and `init_args`; empty for a word that follows no option
    text: str | None
    words: list[str]


def _typed(options: list[str]) -> list[_Option]:
    found: list[_Option] = []
    words = iter(enumerate(options, start=1))
    for after, word in words:
        flag, equals, text = word.partition("=")
        name = short_name(flag.removeprefix("--")) if flag.startswith("--") else ""
        if equals or not name or after == len(options) or options[after].startswith("--"):
            found.append(_Option(name, text if equals else None, [word]))
        else:
            found.append(_Option(name, options[after], [word, next(words)[1]]))
    return found


def completed_options(options: list[str]) -> list[str]:
    """Typed options: see `completed`; those that choose a class come first, as the others are its arguments."""
    typed = sorted(_typed(options), key=_place)
    done: list[str] = []
    for word in (word for option in typed for word in option.words):
        flag, _, value = word.partition("=")
        if flag in _OPTIONS and value:
            word = f"{flag}={_completed_text(value)}"
        elif done and done[-1] in _OPTIONS:
            word = _completed_text(word)
        done.append(word)
    return done


def _place(option: _Option) -> int:
    name = option.name.removesuffix(".class_path")
    return _CLASSES.index(name) if name in _CLASSES else len(_CLASSES)


def texts_apart(options: list[str]) -> tuple[dict[str, str], list[str]]:
    """Typed options that YAML reads as a list or as settings, such as a folder called `a: b`, by name; and the others.

    The parser keeps no text of these, so that it can't tell where text is meant.
    """
    texts = {name: text for name, text in _last(options).items() if isinstance(_read(text), dict | list)}
    return texts, _without(options, texts)


def values_apart(options: list[str]) -> tuple[dict[str, object], list[str]]:
    """Typed arguments of a class within a class that Python writes in other words than YAML, by name; and the others.

    The parser hands such an argument on as Python writes it: null as None, which it then takes for text. `InputError`:
    settings or a list with one name twice.
    """
    read = {name: _read(text) for name, text in _last(options).items()}
    values = {
        name: value
        for name, value in read.items()
        if name.startswith("model.") and name.count(".") > 1 and _read(str(value)) != value
    }
    return values, _without(options, values)


def _last(options: list[str]) -> dict[str, str]:
    """The last text that was typed for each setting."""
    return {one.name: one.text for one in _typed(options) if one.text is not None and one.name != "config"}


def _without(options: list[str], names: dict[str, str] | dict[str, object]) -> list[str]:
    return [word for one in _typed(options) if one.name not in names for word in one.words]


def _read(text: str) -> object:
    """What YAML makes of a text; what would be a comment stays text, as do blanks."""
    try:
        value = load_yaml(text)
    except GivenTwiceError as error:
        if text.lstrip()[:1] in ("{", "["):
            raise InputError(f"in {shown(text)}, {error}. Leave one of them out.") from error
        return text
    except yaml.YAMLError:
        return text
    return text if value is None and text.strip().lower() not in ("~", "null") else value


def _completed_text(text: str) -> str:
    try:
        asked = json.loads(text)
    except ValueError:
        asked = text
    made = completed(asked)
    return text if made == asked else json.dumps(made)
