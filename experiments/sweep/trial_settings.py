"""Trials' settings, parsed once for each distinct value instead of for each trial."""

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

from jsonargparse import Namespace

from common.errors import InputError
from experiments.sweep.grid import Trial


class Parsed(NamedTuple):
    """A trial's settings, in two forms.

    Attributes:
        settings: as the parser of `fit` gives them; classes can be made of them.
        plain: as config.yaml will hold them.
    """

    settings: Namespace
    plain: dict[str, Any]


class TrialSettings:
    """Puts a trial's settings together from those of the trials before it.

    Trials that differ in numbers alone have the same classes with the same options, and each number lands in its own
    place, so a trial is the first one of its kind with the places changed that its numbers change there, one by one.
    Where that doesn't hold, or a number is refused, the trial is parsed for itself.

    Args:
        parse: parses one trial; raises `InputError`.
    """

    def __init__(self, parse: Callable[[Trial], Parsed]) -> None:
        self._parse = parse
        self._firsts: dict[str, tuple[Trial, Parsed]] = {}
        self._changes: dict[tuple[str, str], dict[str, Any] | None] = {}

    def of(self, trial: Trial) -> Parsed:
        """The trial's settings.

        Raises:
            InputError: an unknown setting or a wrong type.
        """
        kind = _text([trial.configs, trial.settings, _without_numbers(trial.overrides)])
        if kind not in self._firsts:
            self._firsts[kind] = trial, self._parse(trial)
            return self._firsts[kind][1]
        first, parsed = self._firsts[kind]
        changed: dict[str, Any] = {"run_name": trial.name}
        for name, value in trial.overrides.items():
            if _text(value) == _text(first.overrides[name]):
                continue
            change = self._change(kind, name, value)
            if change is None or change.keys() & changed.keys():
                return self._parse(trial)
            changed |= change
        return _with(parsed, changed)

    def _change(self, kind: str, name: str, value: Any) -> dict[str, Any] | None:
        """What this number alone changes in the first trial of its kind; None: more than numbers in their places."""
        key = kind, _text([name, value])
        if key not in self._changes:
            first, parsed = self._firsts[kind]
            try:
                other = self._parse(replace(first, overrides={**first.overrides, name: value}))
            except InputError:  # the trial itself is to say so
                self._changes[key] = None
            else:
                self._changes[key] = _difference(parsed, other)
        return self._changes[key]


def _text(value: Any) -> str:
    return json.dumps(value, default=str)


def _without_numbers(overrides: dict[str, Any]) -> list[tuple[str, Any]]:
    """The overrides in their order, with every number (true and false, too) replaced by the same sign."""
    return [(name, "number" if isinstance(value, int | float) else [value]) for name, value in overrides.items()]


def _difference(first: Parsed, other: Parsed) -> dict[str, Any] | None:
    before, after = vars(first.settings.as_flat()), vars(other.settings.as_flat())
    if list(before) != list(after):
        return None
    changed = {name: value for name, value in after.items() if _text(value) != _text(before[name])}
    simple = all(isinstance(value, int | float | None) for value in changed.values())
    # what the plain form tells must be the same, or putting it together would lose something
    return changed if simple and _with(first, changed).plain == other.plain else None


def _with(parsed: Parsed, changed: dict[str, Any]) -> Parsed:
    settings, plain = parsed.settings.clone(), copy.deepcopy(parsed.plain)
    for name, value in changed.items():
        settings[name] = value
        *path, place = name.split(".")
        part: Any = plain
        for step in path:
            part = part.get(step) if isinstance(part, dict) else None
        if isinstance(part, dict) and place in part:  # what is linked to another setting is not in the plain form
            part[place] = value
    return Parsed(settings, plain)
