"""What a report's runs show, in a few sentences from their numbers, and what they answer to a sweep's question.

A best median alone shows nothing.
"""

from collections.abc import Iterator
from pathlib import Path

from common.errors import InputError
from experiments.config_files import read_yaml
from experiments.report.cells import TOO_FEW, counted, ratio, span, spread, title
from experiments.report.content import Study
from experiments.report.figures_compared import SMALL_REGRET, common_figure, regrets
from experiments.report.groups import SAME_BUDGET, Group
from experiments.report.rate_tables import choose_rates
from experiments.report.record import Record
from experiments.report.statistics import (
    PairedDifference,
    deviation_limit,
    holm,
    paired_difference,
    pairs_for_power,
    pairs_to_decide,
    power,
)
from experiments.report.tables import Comparison, all_comparisons, comparisons, find_baseline
from experiments.sweep.question import REGISTERED, Question, fingerprint

_SURE = 0.05  # p-values below show a difference
_MOST_NAMES = 2
_SPLITS = {"test": "on the test split", "best": "on the validation split"}
_WANTED = 0.8  # the power that seeds are counted for


def answer(study: Study) -> list[str]:
    """The sentences; none as long as no run has finished."""
    groups = [group for group in study.on_one_axis if len(group.values("best"))]
    if not groups:
        return []
    if len(groups) == 1:
        return [_alone(groups[0])]
    baseline = study.baseline if study.baseline in groups else None
    compared = _first_two(groups) if baseline is None else _against_baseline(groups, baseline)
    return [*compared, *_rates(study), *_regret(study)]


def _alone(group: Group) -> str:
    """One run is called one run."""
    metric, results = group.metric, group.results[0]
    assert metric is not None
    values = {kind: group.values(kind) for kind in ("best", "test")}
    if len(values["best"]) > 1:
        told = f"{len(values['best'])} seeds of {group.label} on {results.data.name}: median {title(metric.name)}"
    else:
        told = f"One run of {group.label} on {results.data.name}: {title(metric.name)}"
    parts = [f"{spread(values[kind], metric.name)} {_SPLITS[kind]}" for kind in ("best", "test") if len(values[kind])]
    if len(values["best"]) == 1 and metric.best_epoch is not None:
        parts.append(f"best epoch {metric.best_epoch + 1}")
    what = "parameters" if group.is_full else "adapter parameters"
    return f"{told} {', '.join(parts)}. {group.entries:,.0f} {what} were trained."


def _against_baseline(groups: list[Group], baseline: Group) -> Iterator[str]:
    figure = common_figure(groups)
    everything = all_comparisons(groups, baseline)
    found = [one for one in everything if one.figure == figure]
    if not found:
        return
    p_values = holm(one.difference.p_value for one in everything)  # as in the table, whose p it must not contradict
    is_sure = {one for one, p in zip(everything, p_values, strict=True) if p < _SURE and one.difference.interval}
    shown = [one for one in found if one in is_sure]
    better = [one for one in shown if baseline.sign * one.difference.mean > 0]
    worse = [one for one in shown if baseline.sign * one.difference.mean < 0]
    used = [group.entries for group in (baseline, *(one.group for one in found))]
    budget = "at equal budget, " if max(used) <= (1 + SAME_BUDGET) * min(used) else ""
    if not shown:
        largest = max(found, key=lambda one: abs(one.difference.mean))
        told = f"{budget}no setting is shown to differ from {baseline.label} {_SPLITS[figure]}"
        yield _sentence(f"{told}: the largest difference is {_told(largest)}")
        return
    kinds = [f"shown to be {kind}: {_largest(ones)}" for kind, ones in (("better", better), ("worse", worse)) if ones]
    rest = len(found) - len(shown)
    told = f"{budget}against {baseline.label} {_SPLITS[figure]}, {'; '.join(kinds)}"
    yield _sentence(
        f"{told}; {rest} more not shown to differ (p corrected for {len(everything)} comparisons)" if rest else told
    )


def _first_two(groups: list[Group]) -> Iterator[str]:
    """Without a baseline, the setting with the best median against the next."""
    figure = common_figure(groups)
    first, second = sorted(groups, key=lambda group: -group.score)[:2]
    assert first.metric is not None
    name = f"{title(first.metric.name)}{'' if first.sign > 0 else ' (lower is better)'}"
    told = f"The best median {name} on the validation split is that of {first.label} ({first.spread('best')}), which"
    found = next((one for one in comparisons(first, second) if one.figure == figure), None)
    if found is None:
        yield f"{told} has no seed in common with the next, {second.label}, so that they can't be compared."
        return
    is_shown = "is" if found.difference.p_value < _SURE and found.difference.interval else "isn't"
    yield f"{told} {is_shown} shown to differ from the next, {second.label}, {_SPLITS[figure]}: {_told(found, False)}."


def _told(one: Comparison, named: bool = True) -> str:
    interval = span(one.difference.interval, one.group.factor)
    name = f"{one.group.label}, " if named else ""
    told = f"{one.group.factor * one.difference.mean:+.2f} {interval}".strip()
    return f"{told} ({name}{counted(one.difference.pairs, 'seed')}{'' if interval else f': {TOO_FEW}'})"


def _largest(found: list[Comparison]) -> str:
    ordered = sorted(found, key=lambda one: -abs(one.difference.mean))
    told = ", ".join(f"{one.group.label} {_told(one, named=False)}" for one in ordered[:_MOST_NAMES])
    return told if len(ordered) <= _MOST_NAMES else f"{told} and {len(ordered) - _MOST_NAMES} more"


def _rates(study: Study) -> Iterator[str]:
    """The best rates in full fine-tuning's, where both lie inside their grids."""
    ratios = {row.curve.label: row.ratio.value for row in choose_rates(study.swept) if row.ratio and row.ratio.value}
    low, high = min(ratios.values(), default=0.0), max(ratios.values(), default=0.0)
    if len(ratios) == 1:
        yield f"The best learning rate of {next(iter(ratios))} is {ratio(low)} times full fine-tuning's."
    elif ratios:
        yield f"Best learning rates are {ratio(low)} to {ratio(high)} times full fine-tuning's ({len(ratios)} curves)."


def _regret(study: Study) -> Iterator[str]:
    """The smallest adapter whose regret is small, or the one that comes nearest; for metrics told in points."""
    found = regrets(study.on_one_axis)
    if not found:
        return
    small = [one for one in found if one.difference.interval and one.difference.interval[1] <= SMALL_REGRET]
    one = min(small, key=lambda one: one.group.entries) if small else min(found, key=lambda one: one.difference.mean)
    interval = span(one.difference.interval) or f"({TOO_FEW})"
    size, regret = f"{one.group.entries:,.0f} adapter parameters", f"{one.difference.mean:+.2f} {interval}"
    told = f"{one.group.label} ({size}), regret {regret}"
    near = f"within {SMALL_REGRET:g} point of full fine-tuning"
    if small:
        yield f"The smallest adapter shown to be {near} is {told}."
    elif all(one.difference.interval and one.difference.interval[0] > SMALL_REGRET for one in found):
        yield f"No adapter here comes {near}; the nearest is {told}."
    else:
        yield f"No adapter is shown to be {near}; the nearest is {told}."


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


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
