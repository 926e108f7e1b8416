"""A sweep's question: how many seeds it needs, and what its trials answer."""

from pathlib import Path

from common.errors import InputError
from experiments.config_files import read_yaml
from experiments.report.cells import span
from experiments.report.groups import Group
from experiments.report.record import Record
from experiments.report.statistics import (
    PairedDifference,
    deviation_limit,
    paired_difference,
    pairs_for_power,
    pairs_to_decide,
    power,
)
from experiments.report.tables import find_baseline
from experiments.sweep.question import REGISTERED, Question, fingerprint

_WANTED = 0.8  # the power that seeds are counted for


def improvement(question: Question, groups: list[Group], compared: list[Group]) -> PairedDifference | None:
    """By how much the first method is better, as reports print it, seed by seed; each at its chosen rate.

    `InputError`: one of the methods isn't among the runs.
    """
    ours, other = (find_baseline(groups, compared, method) for method in question.compare)
    if ours is None or other is None:
        return None
    factor = ours.factor * ours.sign
    return paired_difference(factor * ours.values(question.figure), factor * other.values(question.figure))


def seeds_needed(question: Question, pilot: PairedDifference | None, planned: int) -> str:
    """What a dry run says: the seeds for 80 % power, by a pilot's standard deviation and by its upper limit."""
    if pilot is None or pilot.pairs < 2:
        return (
            f"Question: {question}. How many seeds that takes can't be told without two seeds of both methods: run "
            "them, or give a pilot's folder or file of trials: --pilot PATH."
        )
    deviation = float(pilot.by_seed.std())
    limit = deviation_limit(deviation, pilot.pairs)
    needed, safe = (pairs_for_power(value, question.at_least) for value in (deviation, limit))
    chance = f"{power(deviation, question.at_least, planned):.0%}" if planned > 1 else "no"
    return (
        f"Question: {question}. Paired differences of the pilot's {pilot.pairs} seeds have standard deviation "
        f"{deviation:.2f} (80 % limit {limit:.2f}), so {_WANTED:.0%} power takes {needed} seeds (by the limit {safe}). "
        f"The sweep has {planned}: {chance} power."
    )


def verdict(question: Question, found: PairedDifference | None) -> str:
    """Shown, ruled out, or undecided and how many seeds are missing, in a sentence.

    Shown: Student's 95 % interval lies above zero. Ruled out: it lies below `at_least`, and isn't above zero. Undecided
    otherwise; the seeds missing are those that would make it narrower than `at_least`.
    """
    if found is None or found.student is None:
        return f"{question}: undecided, {0 if found is None else found.pairs} seeds in common; at least two are needed."
    low, high = found.student
    told = f"{found.mean:+.2f} {span(found.student)}, {found.pairs} seeds"
    if low > 0:
        less = f", though by less than {question.at_least:g}" if high < question.at_least else ""
        return f"{question}: shown to be better{less} ({told})."
    if high < question.at_least:
        return f"{question}: ruled out ({told})."
    needed = pairs_to_decide(float(found.by_seed.std()), question.at_least)
    missing = f"{needed - found.pairs} seeds are missing: {needed} would decide at this spread"
    return f"{question}: undecided ({told}); {missing}."


def answers(sources: list[Path], records: list[Record], groups: list[Group], compared: list[Group]) -> list[str]:
    """A sentence for each sweep among the sources that asks a question: what kind of answer, and the answer.

    `InputError`: a sweep.yaml isn't whole, or its methods aren't among the runs.
    """
    told = []
    for source in sources:
        path = source / "sweep.yaml"
        definition = read_yaml(path) if path.exists() else {}
        if (question := Question.of(definition)) is None:
            continue
        ours = [record for record in records if record.folder.parent.resolve() == source.resolve()]
        reasons = _exploratory(definition, ours)
        kind = "Exploratory (" + "; ".join(reasons) + ")" if reasons else "Confirmatory (asked beforehand, unchanged)"
        try:
            found = improvement(question, groups, compared)
        except InputError:  # none of its trials has begun
            found = None
        told.append(f"{kind}: {verdict(question, found)}")
    return told


def _exploratory(definition: dict[str, object], records: list[Record]) -> list[str]:
    """Why the answer isn't that to a question asked beforehand; nothing where it is."""
    registered = definition.get(REGISTERED)
    if not isinstance(registered, dict):
        return ["the question wasn't registered before the first trial"]
    reasons, commit = [], registered.get("commit")
    if registered.get("sha256") != fingerprint(definition, commit):
        reasons.append("question or grid were changed after trials had begun")
    codes = {str(record.results.versions.get("rankwise")) for record in records if record.results}
    if commit is None or str(commit).endswith("-dirty"):
        reasons.append("the code that was registered is no commit")
    elif codes - {commit}:
        reasons.append(f"trials ran with other code than {commit}: {', '.join(sorted(codes - {commit}))}")
    if waiting := sum(record.results is None and record.status != "paused" for record in records):
        reasons.append(f"{waiting} trials are still to come")
    return reasons
