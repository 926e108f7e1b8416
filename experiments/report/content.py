"""Everything a report says, gathered once for the page, the Markdown file and the pictures."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from experiments.metrics import scale
from experiments.report.difference_table import difference_table
from experiments.report.drawing import as_svg, write_png
from experiments.report.figures_differences import difference_figure, differences_left_out
from experiments.report.figures_ranks import allocating, rank_figures
from experiments.report.figures_rates import rate_curves, training_curves, training_left_out
from experiments.report.groups import Curve, Group, make_curves, make_groups, swept_rate
from experiments.report.provenance import mixtures, provenance
from experiments.report.rank_curves import rank_curve_figure, rank_curve_table
from experiments.report.rate_tables import loss_table, rate_table
from experiments.report.record import Record
from experiments.report.tables import (
    Row,
    find_baseline,
    headline,
    settings_table,
    spread,
    text,
    troubles,
    used_rank,
)

_RANK_SECTIONS = 6
_RATE_PICTURES = {"best": "learning_rate_validation", "loss": "learning_rate_loss", "test": "learning_rate_test"}
_WIDE = 6.0  # inches: wider figures take the page's width


@dataclass(frozen=True)
class Picture:
    """A figure on the page, and its file."""

    name: str
    caption: str
    svg: str
    wide: bool


@dataclass
class RankSection:
    """The rank figures of one settings."""

    label: str
    figures: list[Picture]


@dataclass
class Content:
    """A report's parts, by the names the page's template uses."""

    title: str
    headline: str
    numbers: dict[str, str]
    settings: list[Row]
    baseline: str
    differences: list[Row]
    other_measures: list[str]
    mixtures: list[Row]
    rates: list[Row]
    loss_rates: list[Row]
    rank_curve: list[Row]
    troubles: list[Row]
    provenance: list[Row]
    all_runs: list[Row]
    commands: list[str]
    runs: int
    difference_figures: list[Picture] = field(default_factory=list)
    rate_figures: list[Picture] = field(default_factory=list)
    rank_curve_figures: list[Picture] = field(default_factory=list)
    training_figures: list[Picture] = field(default_factory=list)
    rank_sections: list[RankSection] = field(default_factory=list)
    ranks_left_out: int = 0


def gather(
    records: list[Record], sources: list[Path], output: Path, baseline_name: str | None
) -> tuple[Content, list[Curve], list[Group]]:
    """All tables of a report; `draw` adds the figures.

    Raises:
        InputError: the baseline's name is unknown.
    """
    groups = make_groups(records)
    rate = swept_rate(records)
    curves = make_curves(groups, rate)
    is_rate_study = any(len(curve.groups) > 1 for curve in curves)
    rates = rate_table(curves) if is_rate_study else []
    compared = _compared(rates, curves, groups)
    baseline = find_baseline(groups, compared, baseline_name)
    content = Content(
        title=" + ".join(map(_title, sources)),
        headline=headline(groups),
        numbers=_numbers(records, groups),
        settings=settings_table(groups, baseline),
        baseline=baseline.label if baseline else "",
        differences=difference_table(compared, baseline),
        other_measures=_other_measures(groups),
        mixtures=mixtures(groups),
        rates=rates,
        loss_rates=loss_table(curves) if is_rate_study else [],
        rank_curve=rank_curve_table(_measured_alike(compared)),
        troubles=troubles(groups),
        provenance=provenance(records),
        all_runs=[_run_row(record) for record in records],
        commands=_commands(records, sources, output, baseline_name),
        runs=len(records),
    )
    return content, curves, groups


def _title(source: Path) -> str:
    return source.stem if source.is_file() else source.resolve().name


def _compared(rates: list[Row], curves: list[Curve], groups: list[Group]) -> list[Group]:
    """The groups to compare: where rates were swept, each curve's at its chosen rate; and those without such a rate."""
    if not rates:
        return groups
    swept = [group for curve in curves for group in curve.groups.values()]
    return [curve.chosen for curve in curves] + [group for group in groups if group not in swept]


def _measures(groups: list[Group]) -> list[tuple[str, str, int]]:
    return list(dict.fromkeys(group.measure for group in groups if group.measure is not None))


def _measured_alike(groups: list[Group]) -> list[Group]:
    """Groups for one axis, which can't hold two metrics: what was measured like the first."""
    return [group for group in groups if group.measure in (None, *_measures(groups)[:1])]


def _other_measures(groups: list[Group]) -> list[str]:
    """What all but the first were measured by, where groups aren't measured alike."""
    return [f"{name.replace('_', ' ')} on {data} ({rows:,} rows)" for name, data, rows in _measures(groups)[1:]]


def draw(content: Content, curves: list[Curve], groups: list[Group], rate: str, folder: Path) -> None:
    """Draws the figures, writes them into `folder` and adds them to the content; to be called within `style()`."""
    numbers = iter(range(10**6))

    def picture(name: str, caption: str, figure: Figure) -> Picture:
        write_png(figure, folder / f"{name}.png")
        wide = figure.get_size_inches()[0] > _WIDE
        return Picture(name, caption, as_svg(figure, caption, next(numbers)), wide)

    compared = _compared(content.rates, curves, groups)
    shown = _measured_alike(compared)
    curves = [curve for curve in curves if curve.chosen in shown]
    for baseline in (group for group in groups if group.label == content.baseline):
        figure = difference_figure(compared, baseline)
        if figure is not None:
            caption = (
                "Differences to the baseline: a grey dot per common seed; a diamond for the mean, a thick line for its "
                "95 % bootstrap interval, a thin one for Student's (cut off at the axis' ends)."
            )
            if left_out := differences_left_out(compared, baseline):
                caption += f" The best settings; {left_out} more are left out."
            content.difference_figures.append(picture("differences", caption, figure))
    if content.rates:
        kinds = {"best": "Validation figure", "loss": "Validation loss", "test": "Test figure"}
        for kind, what in kinds.items():
            figure = None if kind == "loss" and not content.loss_rates else rate_curves(curves, kind, rate)
            if figure is not None:
                caption = f"{what} against the learning rate: mean over seeds, band from lowest to highest seed."
                if kind != "test":
                    caption += " Dotted: the parabola's optimum."
                content.rate_figures.append(picture(_RATE_PICTURES[kind], caption, figure))
    figure = rank_curve_figure(shown)
    if figure is not None:
        caption = "Figure against the rank: mean over seeds, band from lowest to highest seed."
        content.rank_curve_figures.append(picture("rank_curve", caption, figure))
    figure = training_curves(shown)
    if figure is not None:
        caption = "One line per run" + (", each curve at its chosen rate." if content.rates else ".")
        if left_out := training_left_out(shown):
            caption += f" The best settings; {left_out} more are left out."
        content.training_figures.append(picture("training", caption, figure))
    _draw_ranks(content, groups, picture)


def _draw_ranks(content: Content, groups: list[Group], picture: Any) -> None:
    chosen = list(_best_of_methods(groups))
    content.ranks_left_out = sum(1 for group in groups if allocating(group)) - len(chosen)
    for number, group in enumerate(chosen):
        pictures = [picture(f"{name}_{number}", caption, figure) for name, caption, figure in rank_figures(group)]
        content.rank_sections.append(RankSection(group.label, pictures))


def _best_of_methods(groups: list[Group]) -> Iterator[Group]:
    """The best group of each method first, then the next best, up to a number a reader can take in."""
    ordered = sorted((group for group in groups if allocating(group)), key=lambda group: -group.score)
    first = {group.method: group for group in reversed(ordered)}
    leading = [group for group in ordered if first[group.method] is group]
    rest = [group for group in ordered if first[group.method] is not group]
    yield from (leading + rest)[:_RANK_SECTIONS]


def _numbers(records: list[Record], groups: list[Group]) -> dict[str, str]:
    seconds = sum(record.results["wall_seconds"] for record in records if record.results)
    numbers = {"runs": str(len(records)), "settings": str(len(groups))}
    for measure in _measures(groups):
        best = max((group for group in groups if group.measure == measure), key=lambda group: group.score)
        numbers[f"best median {measure[0].replace('_', ' ')} ({best.label})"] = spread(best.values("best"), measure[0])
    numbers["hours, evaluation included"] = f"{seconds / 3600:.2f}"
    odd = sum(record.status != "finished" for record in records)
    numbers["not simply finished"] = str(odd)
    return numbers


def _run_row(record: Record) -> Row:
    metric = record.metric
    factor = scale(metric["name"]) if metric else 1.0

    def figure(value: float | None) -> str:
        return "" if value is None else f"{factor * value:.2f}"

    results = record.results or {}
    return {
        "Run": record.folder.name,
        "Status": record.status,
        "Seed": str(record.seed),
        "Best": figure(record.best),
        "Best epoch (from 0)": text(metric["best_epoch"] if metric else None),
        "Last": figure(record.last),
        "Test": figure(record.test),
        "Used rank": text(used_rank(results) if results else None),
        "Seconds": f"{results['wall_seconds']:.0f}" if results else "",
        "Peak MiB": f"{results['peak_memory_bytes'] / 2**20:,.0f}" if results.get("peak_memory_bytes") else "",
    }


def _commands(records: list[Record], sources: list[Path], output: Path, baseline: str | None) -> list[str]:
    chosen = [] if baseline is None else ["--baseline", baseline]
    where = [] if output == sources[0] else ["--output", str(output)]
    commands = [["report", *map(str, sources), *chosen, *where]]
    for folder in sources:
        if (folder / "sweep.yaml").exists():
            where = ["--run_name", folder.name, "--runs_dir", str(folder.parent)]
            commands.append(["sweep", "--config", str(folder / "sweep.yaml"), *where])
    configs = (record.folder / "config.yaml" for record in records)
    again = next((config for config in configs if config.exists()), None)
    if again is not None:
        commands.append(["fit", "--config", str(again), "--run_name", "again"])
    return [f"python cli.py {shlex.join(command)}" for command in commands]
