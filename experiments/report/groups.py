"""Runs that differ in nothing but their seed, and curves of such groups over learning rates."""

import json
import statistics
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from experiments.report.optimum import Scores, find_optimum, mean_scores
from experiments.report.record import STATUSES, Record

BACKBONE = "model.backbone"
RANK = "model.adapter.rank"
RATE = "model.optimizer.learning_rate"
ALLOCATION_RATE = "model.optimizer.allocation_learning_rate"
HEAD_RATE = "model.optimizer.head_learning_rate"
# What names a run, or says where it runs: no difference in what is studied.
NOT_STUDIED = ("seed_everything", "run_name", "runs_dir", "checkpoint_every_n_minutes", "data.seed")
_PLAIN_WORDS = {"allocation_learning_rate": "allocation rate", "learning_rate": "rate"}


def by_seed(figures: Iterable[tuple[int, float | None]]) -> dict[int, float]:
    """Each seed's figure; the mean of its runs where it was run more than once, so that it counts once."""
    found: dict[int, list[float]] = {}
    for seed, figure in figures:
        if figure is not None:
            found.setdefault(seed, []).append(figure)
    return {seed: statistics.fmean(values) if len(values) > 1 else values[0] for seed, values in found.items()}


@dataclass(frozen=True)
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

    def values(self, figure: str) -> dict[int, float]:
        """best, last, test or loss by seed, of the records that have one."""
        return by_seed((record.seed, getattr(record, figure)) for record in self.records)

    @cached_property
    def statuses(self) -> dict[str, int]:
        """How many records ended how, in a fixed order."""
        counts = Counter(record.status for record in self.records)
        return {status: counts[status] for status in dict.fromkeys((*STATUSES, *counts)) if counts[status]}

    @cached_property
    def measure(self) -> tuple[str, str, int] | None:
        """Metric, data and number of validation rows: figures compare where these are alike. None without results."""
        results = next((record.results for record in self.records if record.results), None)
        if results is None:
            return None
        return results["metric"]["name"], results["data"]["name"], results["data"]["validation_rows"]

    @property
    def score(self) -> float:
        """Median best validation figure, higher is better; −∞ without one."""
        values = list(self.values("best").values())
        if not values:
            return -float("inf")
        metric = next(record.metric for record in self.records if record.metric)
        return statistics.median(values) * (1 if metric["higher_is_better"] else -1)


@dataclass(frozen=True)
class Curve:
    """Groups that differ only in the learning rate (and in what follows it)."""

    label: str
    groups: dict[float, Group]  # by rate, rising

    @property
    def is_full(self) -> bool:
        """Whether the whole backbone is trained."""
        results = next(
            (record.results for group in self.groups.values() for record in group.records if record.results), None
        )
        return results is not None and results["adapter"] == "full fine-tuning"

    @property
    def rank(self) -> float | None:
        """The adapter's rank, for the order of curves."""
        first = next(iter(self.groups.values()))
        for name in (RANK, "model.adapter.rank_average"):
            if isinstance(value := first.setting(name), int | float):
                return float(value)
        return None

    def scores(self, figure: str = "best") -> Scores:
        """Score by rate and seed, higher is better."""
        metrics = [record.metric for group in self.groups.values() for record in group.records if record.metric]
        sign = 1 if figure != "loss" and (not metrics or metrics[0]["higher_is_better"]) else -1
        found = {rate: {s: sign * v for s, v in group.values(figure).items()} for rate, group in self.groups.items()}
        return {rate: by_seed for rate, by_seed in found.items() if by_seed}

    @property
    def chosen(self) -> Group:
        """The group whose rate is best on the validation split: its test figures are the ones to report."""
        rate = find_optimum(*mean_scores(self.scores())).chosen
        return next(iter(self.groups.values())) if rate is None else self.groups[rate]


def make_groups(records: list[Record]) -> list[Group]:
    """Records by settings, each group with a label that tells it from the others."""
    by_settings: dict[str, list[Record]] = {}
    for record in records:
        by_settings.setdefault(_key(record, NOT_STUDIED), []).append(record)
    members = list(by_settings.values())
    labels = _labels([group[0] for group in members], NOT_STUDIED)
    return [Group(tuple(group), label) for group, label in zip(members, labels, strict=True)]


def swept_rate(records: list[Record]) -> str:
    """The learning rate that varies: of the allocation if it alone does, else of the adapter."""
    varied = {name: len({record.config.get(name) for record in records}) > 1 for name in (RATE, ALLOCATION_RATE)}
    return ALLOCATION_RATE if varied[ALLOCATION_RATE] and not varied[RATE] else RATE


def make_curves(groups: list[Group], rate: str) -> list[Curve]:
    """Groups as curves over the rate, full fine-tuning last, smaller ranks first."""
    records = [record for group in groups for record in group.records]
    left_out = (*NOT_STUDIED, rate, *_followers(records, rate))
    # A rate of 0 rests: it has no place on a logarithmic axis.
    with_rate = [group for group in groups if isinstance(value := group.setting(rate), int | float) and value > 0]
    curves = [
        Curve(
            label, {float(group.setting(rate)): group for group in sorted(found, key=lambda g: float(g.setting(rate)))}
        )
        for label, found in alike(with_rate, left_out)
    ]
    return sorted(curves, key=lambda curve: (curve.is_full, curve.rank or 0.0))


def alike(groups: list[Group], left_out: tuple[str, ...]) -> list[tuple[str, list[Group]]]:
    """Groups that differ in nothing but the settings left out, with a label that tells them from the others."""
    by_settings: dict[str, list[Group]] = {}
    for group in groups:
        by_settings.setdefault(_key(group.first, left_out), []).append(group)
    members = list(by_settings.values())
    return list(zip(_labels([found[0].first for found in members], left_out), members, strict=True))


def _followers(records: list[Record], rate: str) -> list[str]:
    """Other rates that are a function of the swept one, such as a head's rate derived from it."""
    followers = []
    for name in (RATE, ALLOCATION_RATE, HEAD_RATE):
        by_rate: dict[Any, set[Any]] = {}
        for record in records:
            by_rate.setdefault(record.config.get(rate), set()).add(record.config.get(name))
        values = {value for found in by_rate.values() for value in found}
        if name != rate and len(values) > 1 and all(len(found) == 1 for found in by_rate.values()):
            followers.append(name)
    return followers


def _key(record: Record, left_out: tuple[str, ...]) -> str:
    settings = {name: value for name, value in record.config.items() if name not in left_out}
    return json.dumps([record.method, settings], sort_keys=True, default=str)


def _labels(records: list[Record], left_out: tuple[str, ...]) -> list[str]:
    """The method's name, or the adapter's, with the settings that vary among records of that name."""
    names = [_method_name(record) for record in records]
    varied = {
        name: _varied([r for r, theirs in zip(records, names) if theirs == name], left_out) for name in set(names)
    }
    words = {name: _words(keys) for name, keys in varied.items()}

    def label(record: Record, name: str, value: Callable[[Any], str]) -> str:
        keys = (key for key in varied[name] if key in record.config)
        return " ".join([name, *(f"{words[name][key]} {value(record.config[key])}" for key in keys)])

    labels = [label(record, name, _short) for record, name in zip(records, names, strict=True)]
    counts = Counter(labels)  # values that differ only where they were cut short are told in full
    return [
        short if counts[short] == 1 else label(record, name, repr)
        for short, record, name in zip(labels, records, names, strict=True)
    ]


def _varied(records: list[Record], left_out: tuple[str, ...]) -> list[str]:
    """Settings that differ among the records."""
    keys = dict.fromkeys(key for record in records for key in record.config if key not in left_out)
    return [key for key in keys if len({repr(record.config.get(key)) for record in records}) > 1]


def _method_name(record: Record) -> str:
    if record.method:
        return record.method
    if record.results:
        return str(record.results["adapter"])
    return str(record.config.get("model.adapter.class_path", "run")).rpartition(".")[2]


def _words(keys: list[str]) -> dict[str, str]:
    """Settings by the last part of their names; two that share it keep the part before."""
    lasts = Counter(key.rpartition(".")[2] for key in keys)
    words = {}
    for key in keys:
        last = key.rpartition(".")[2]
        told = _PLAIN_WORDS.get(last, last) if lasts[last] == 1 else " ".join(key.split(".")[-2:])
        words[key] = told.replace("_", " ")
    return words


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    text = str(value)
    return text if len(text) <= 40 else f"…{text[-38:]}"
