"""What a sweep is to answer, asked beforehand: `question: {compare: [A, B], figure: test, at_least: 1.0}`."""

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from common.code_version import code_version
from common.errors import InputError, check_one_of, shown
from experiments.config_files import group_of

FIGURES = ("best", "last", "test")
# Parts of a sweep file that say what its trials are for.
QUESTION, REGISTERED, SEARCHED = "question", "registered", "searched"


@dataclass(frozen=True)
class Question:
    """Whether one method is better than another."""

    compare: tuple[str, str]  # the method that may be better, and the one it is compared with
    figure: str  # best, last or test
    at_least: float  # the smallest difference that matters, as reports print it: points of an accuracy, say

    @classmethod
    def of(cls, definition: Mapping[str, object]) -> Self | None:
        """The question of a sweep file, which must have this form; None where it asks none."""
        content = definition.get(QUESTION)
        if content is None:
            return None
        if not isinstance(content, dict) or set(content) != {"compare", "figure", "at_least"}:
            raise InputError(
                f"question is {content!r}; allowed: {{compare: [A, B], figure: test, at_least: 1.0}}, where A and B "
                "are methods of the sweep."
            )
        compare, figure, at_least = content["compare"], content["figure"], content["at_least"]
        if not isinstance(compare, list) or len(compare) != 2 or compare[0] == compare[1]:
            raise InputError(
                f"question.compare is {compare!r}; allowed: two methods, the one that may be better first."
            )
        known = list(group_of(definition, "methods")) or ["none: the sweep has no methods"]
        for method in compare:
            check_one_of("a method of question.compare", method, known)
        check_one_of("question.figure", figure, FIGURES)
        is_number = isinstance(at_least, int | float) and not isinstance(at_least, bool)
        if not is_number or not 0 < at_least <= sys.float_info.max:
            raise InputError(
                f"question.at_least is {shown(at_least)}; allowed: the smallest difference that matters, above 0, such "
                "as 1.0 (points of an accuracy or correlation)."
            )
        return cls((compare[0], compare[1]), figure, float(at_least))

    def __str__(self) -> str:
        return f"{self.compare[0]} better than {self.compare[1]} by {self.at_least:g} ({self.figure})"


def registration(definition: dict[str, object]) -> dict[str, object]:
    """What sweep.yaml keeps of a question that is asked now: the commit, and a hash of question, grid and commit."""
    return {"commit": code_version(), "sha256": fingerprint(definition, code_version())}


def fingerprint(definition: dict[str, object], commit: str | None) -> str:
    """SHA-256 of a definition, its own registration aside, together with the code's commit."""
    asked = {name: value for name, value in definition.items() if name != REGISTERED}
    return hashlib.sha256(json.dumps([asked, commit], sort_keys=True, default=str).encode()).hexdigest()
