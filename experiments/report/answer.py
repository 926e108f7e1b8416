"""What a report's runs show, in one or two sentences from their numbers; a best median alone shows nothing."""

from collections.abc import Iterator

from experiments.report.cells import TOO_FEW, counted, ratio, span, spread, title
from experiments.report.content import Study
from experiments.report.figures_compared import SMALL_REGRET, common_figure, regrets
from experiments.report.groups import SAME_BUDGET, Group
from experiments.report.rate_tables import choose_rates
from experiments.report.statistics import holm
from experiments.report.tables import Comparison, all_comparisons, comparisons

_SURE = 0.05  # p-values below show a difference
_MOST_NAMES = 2
_SPLITS = {"test": "on the test split", "best": "on the validation split"}


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
    """The largest differences first."""
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
