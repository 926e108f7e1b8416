"""Runs that differ in nothing but their seed, and curves of such groups over learning rates."""

import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import pandas as pd

from experiments.report.cells import scale, spread
from experiments.report.optimum import find_optimum
from experiments.report.record import STATUSES, UNSOUND, Record
from experiments.results import Metric, RunResults

Item = TypeVar("Item")

BACKBONE = "model.backbone"
RANK = "model.adapter.rank"
RANK_AVERAGE = "model.adapter.rank_average"
RATE = "model.optimizer.learning_rate"
ALLOCATION_RATE = "model.optimizer.allocation_learning_rate"
HEAD_RATE = "model.optimizer.head_learning_rate"
RATES = (RATE, ALLOCATION_RATE, HEAD_RATE)
# What rounding to discrete ranks can make of one budget, relative.
SAME_BUDGET = 0.02
# What names a run, or says where it runs: no difference in what is studied.
NOT_STUDIED = ("seed_everything", "run_name", "runs_dir", "checkpoint_every_n_minutes", "data.seed")
_PLAIN_WORDS = {"allocation_learning_rate": "allocation rate", "learning_rate": "rate"}


class Measure(NamedTuple):
    """Figures are comparable where these are alike."""

    metric: str
    data: str
    validation_rows: int


@dataclass(frozen=True, eq=False)
class Group:
    """Records with the same settings, seeds aside."""

    records: tuple[Record, ...]
    label: str

    @property
    def first(self) -> Record:
        return self.records[0]

    @property
    def method(self) -> str:
        return self.first.method

    def setting(self, name: str) -> Any:
        """A setting of all records, by command-line name."""
        return self.first.config.get(name)

    @cached_property
    def results(self) -> list[RunResults]:
        """Those of the records that have some."""
        return [record.results for record in self.records if record.results]

    @property
    def metric(self) -> Metric | None:
        """The validation metric of the first record that has one."""
        return self.results[0].metric if self.results else None

    @property
    def factor(self) -> float:
        """What the metric's values are multiplied with for print."""
        return scale(self.metric.name) if self.metric else 1.0

    @property
    def sign(self) -> int:
        """1 where a higher metric is better, else −1."""
        return -1 if self.metric and not self.metric.higher_is_better else 1

    def values(self, figure: str) -> pd.Series:
        """best, last, test or loss by seed, of the records that have one."""
        return by_seed((record.seed, record.figure(figure)) for record in self.records)

    def sound_values(self, figure: str) -> list[float]:
        """The figures of the runs that neither collapsed nor diverged."""
        found = (record.figure(figure) for record in self.records if record.status not in UNSOUND)
        return [value for value in found if value is not None]

    @property
    def is_full(self) -> bool:
        """Whether the whole backbone is trained."""
        return bool(self.results) and self.results[0].adapter == "full fine-tuning"

    @property
    def has_allocation(self) -> bool:
        """Whether ranks share a budget: alpha and the allocation's rate concern no other runs."""
        return any(self.setting(name) is not None for name in (RANK_AVERAGE, "model.adapter.budget"))

    @cached_property
    def entries(self) -> float:
        """Mean number of trained values without the head: those in use at the best epoch where ranks are learned."""
        moments = [(results, (results.at_best_epoch or results).budget) for results in self.results]
        used = [budget.used if budget else results.trainable_parameters.adapter for results, budget in moments]
        return sum(used) / len(used) if used else float("nan")

    def spread(self, figure: str) -> str:
        """Median ± sample standard deviation of a figure over seeds, as text."""
        return spread(self.values(figure), self.metric.name if self.metric else "")

    @property
    def was_paused(self) -> bool:
        """Whether `sweep --stop_early` left it behind: some of its seeds aren't trained to their end."""
        return any(record.status == "paused" for record in self.records)

    @cached_property
    def statuses(self) -> dict[str, int]:
        """How many records ended how, in a fixed order."""
        counts = Counter(record.status for record in self.records)
        return {status: counts[status] for status in dict.fromkeys((*STATUSES, *counts)) if counts[status]}

    @cached_property
    def measure(self) -> Measure | None:
        """What figures are comparable by; None without results."""
        if not self.results:
            return None
        data = self.results[0].data
        return Measure(self.results[0].metric.name, data.name, data.validation_rows)

    @cached_property
    def score(self) -> float:
        """Median best validation figure, higher is better; −∞ without one."""
        values = self.values("best")
        return -float("inf") if values.empty else self.sign * float(values.median())


def by_seed(figures: Iterable[tuple[int, float | None]]) -> pd.Series:
    """Each seed's figure; the mean of its runs where it was run more than once, so that it counts once."""
    seeds, values = zip(*figures, strict=True)
    return pd.Series(values, index=seeds, dtype=float).dropna().groupby(level=0).mean()


@dataclass(frozen=True, eq=False)
class Curve:
    """Groups that differ only in the learning rate (and in what follows it)."""

    label: str
    groups: dict[float, Group]  # by rate, rising

    @property
    def is_full(self) -> bool:
        """Whether the whole backbone is trained."""
        return any(group.is_full for group in self.groups.values())

    @property
    def rank(self) -> float:
        """The adapter's rank, for the order of curves; 0 without one."""
        ranks = [next(iter(self.groups.values())).setting(name) for name in (RANK, RANK_AVERAGE)]
        return next((float(rank) for rank in ranks if isinstance(rank, int | float)), 0.0)

    def scores(self, figure: str = "best") -> pd.DataFrame:
        """Score by seed (rows) and rate (columns), higher is better; rates without one are left out."""
        sign = -1 if figure == "loss" else min(group.sign for group in self.groups.values())
        found = pd.DataFrame({rate: group.values(figure) for rate, group in self.groups.items()})
        return sign * found.dropna(axis="columns", how="all")

    @cached_property
    def chosen(self) -> Group:
        """The group whose rate is best on the validation split: its test figures are the ones to report."""
        means = self.scores().mean()
        # of a setting that was left behind, the first seed alone may be known
        whole = means[[not self.groups[rate].was_paused for rate in means.index]]
        means = means if whole.dropna().empty else whole
        rate = find_optimum(means.index, means).chosen
        return next(iter(self.groups.values())) if rate is None else self.groups[rate]


def make_groups(records: list[Record]) -> list[Group]:
    """Records by settings, each group with a label that tells it from the others."""
    return [Group(tuple(found), label) for label, found in _together(records, records, NOT_STUDIED)]


def swept_rate(records: list[Record]) -> str:
    """The learning rate that varies: of the allocation if it alone does, else of the adapter."""
    varied = {name: len({record.config.get(name) for record in records}) > 1 for name in (RATE, ALLOCATION_RATE)}
    return ALLOCATION_RATE if varied[ALLOCATION_RATE] and not varied[RATE] else RATE


def make_curves(groups: list[Group], rate: str) -> list[Curve]:
    """Groups as curves over the rate, full fine-tuning last, smaller ranks first."""
    records = [record for group in groups for record in group.records]
    # A rate of 0 rests: it has no place on a logarithmic axis.
    with_rate = [group for group in groups if isinstance(value := group.setting(rate), int | float) and value > 0]
    if rate == ALLOCATION_RATE:  # every config has one, also where nothing is allocated
        with_rate = [group for group in with_rate if group.has_allocation]
    curves = [
        Curve(
            label,
            {float(group.setting(rate)): group for group in sorted(found, key=lambda one: float(one.setting(rate)))},
        )
        for label, found in alike(with_rate, (rate, *_followers(records, rate)))
    ]
    return sorted(curves, key=lambda curve: (curve.is_full, curve.rank))


def alike(groups: list[Group], left_out: tuple[str, ...]) -> list[tuple[str, list[Group]]]:
    """Groups that differ in nothing but the settings left out, with a label that tells them from the others."""
    return _together(groups, [group.first for group in groups], (*NOT_STUDIED, *left_out))


def _together(items: list[Item], records: list[Record], left_out: tuple[str, ...]) -> list[tuple[str, list[Item]]]:
    """Items whose records have the same method, metric and settings, but for those left out, and each lot's label."""
    keys = [_key(record, left_out) for record in records]
    metrics: dict[str, str] = {}  # the first by settings, for records without results
    for key, record in zip(keys, records, strict=True):
        if record.results:
            metrics.setdefault(key, record.results.metric.name)
    found: dict[tuple[str, str], list[Item]] = {}
    first: dict[tuple[str, str], Record] = {}
    for item, key, record in zip(items, keys, records, strict=True):
        lot = (key, record.results.metric.name if record.results else metrics.get(key, ""))
        found.setdefault(lot, []).append(item)
        first.setdefault(lot, record)
    return list(zip(_labels(list(first.values()), left_out), found.values(), strict=True))


def _key(record: Record, left_out: tuple[str, ...]) -> str:
    settings = {name: value for name, value in record.config.items() if name not in left_out}
    return json.dumps([record.method, settings], sort_keys=True, default=str)


def _followers(records: list[Record], rate: str) -> list[str]:
    """Other rates that are a function of the swept one, such as a head's rate derived from it."""
    rates = pd.DataFrame([{name: repr(record.config.get(name)) for name in RATES} for record in records])
    values_at_one_rate = rates.groupby(rate).nunique().reindex(columns=RATES).max()
    return [name for name in RATES if name != rate and rates[name].nunique() > 1 and values_at_one_rate[name] == 1]


def _labels(records: list[Record], left_out: tuple[str, ...]) -> list[str]:
    """The method's name, or the adapter's, with the settings that vary among records of that name."""
    names = pd.Series([_method_name(record) for record in records])
    settings = pd.DataFrame([{key: repr(value) for key, value in record.config.items()} for record in records])
    settings = settings.drop(columns=[key for key in left_out if key in settings]).fillna("None")  # unset is null
    values = {name: own.to_numpy() for name, own in settings.groupby(names)}  # pandas would compare column by column
    varied = {name: settings.columns[(own != own[0]).any(axis=0)] for name, own in values.items()}
    words = {name: setting_words(list(keys)) for name, keys in varied.items()}

    def label(record: Record, name: str, value: Callable[[object], str]) -> str:
        keys = (key for key in varied[name] if key in record.config)
        return " ".join([name, *(f"{words[name][key]} {value(record.config[key])}" for key in keys)])

    labels = [label(record, name, short) for record, name in zip(records, names, strict=True)]
    counts = Counter(labels)  # values that differ only where they were cut short are told in full
    labels = [
        one if counts[one] == 1 else label(record, name, repr)
        for one, record, name in zip(labels, records, names, strict=True)
    ]
    counts = Counter(labels)  # those that differ in nothing but the metric
    return [
        one if counts[one] == 1 or record.results is None else f"{one} ({record.results.metric.name})"
        for one, record in zip(labels, records, strict=True)
    ]


def _method_name(record: Record) -> str:
    named = record.method or (record.results.adapter if record.results else "")
    return named or str(record.config.get("model.adapter.class_path", "run")).rpartition(".")[2]


def setting_words(keys: list[str]) -> dict[str, str]:
    """Settings by the last part of their names; two that share it keep the part before."""
    lasts = {key: key.rpartition(".")[2] for key in keys}
    counts = Counter(lasts.values())
    words = {
        key: _PLAIN_WORDS.get(last, last) if counts[last] == 1 else " ".join(key.split(".")[-2:])
        for key, last in lasts.items()
    }
    return {key: told.replace("_", " ") for key, told in words.items()}


def short(value: object) -> str:
    """A setting's value, cut where it is long."""
    if isinstance(value, float):
        return f"{value:g}"
    text = str(value)
    return text if len(text) <= 40 else f"…{text[-38:]}"
