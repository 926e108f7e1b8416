"""Everything a report says, gathered once for the page, the Markdown file and the pictures."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from experiments.metrics import scale
from experiments.report.drawing import as_svg, write_png
from experiments.report.figures_differences import difference_figure
from experiments.report.figures_ranks import allocating, rank_figures
from experiments.report.figures_rates import rate_curves, training_curves, training_left_out
from experiments.report.groups import Curve, Group, make_curves, make_groups, swept_rate
from experiments.report.rank_curves import rank_curve_figure, rank_curve_table
from experiments.report.records import Record
from experiments.report.tables import (
    Row,
    find_baseline,
    headline,
    metric_of,
    rate_table,
    settings_table,
    spread,
    text,
    troubles,
)

_RANK_SECTIONS = 6
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
    rates: list[Row]
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
    records: list[Record], folders: list[Path], baseline_name: str | None
) -> tuple[Content, list[Curve], list[Group]]:
    """All tables of a report; `draw` adds the figures.

    Raises:
        InputError: the baseline's name is unknown.
    """
    groups = make_groups(records)
    rate = swept_rate(records)
    curves = make_curves(groups, rate)
    is_rate_study = any(len(curve.groups) > 1 for curve in curves)
    baseline = find_baseline(groups, baseline_name)
    rates = rate_table(curves) if is_rate_study else []
    content = Content(
        title=" + ".join(folder.resolve().name for folder in folders),
        headline=headline(groups),
        numbers=_numbers(records, groups),
        settings=settings_table(groups, rate, baseline),
        baseline=baseline.label if baseline else "",
        rates=rates,
        rank_curve=rank_curve_table(_compared(rates, curves, groups)),
        troubles=troubles(groups),
        provenance=_provenance(records),
        all_runs=[_run_row(record) for record in records],
        commands=_commands(records, folders),
        runs=len(records),
    )
    return content, curves, groups


def _compared(rates: list[Row], curves: list[Curve], groups: list[Group]) -> list[Group]:
    """The groups to compare: where rates were swept, each curve's at its chosen rate."""
    return [curve.chosen for curve in curves] if rates else groups


def draw(content: Content, curves: list[Curve], groups: list[Group], rate: str, folder: Path) -> None:
    """Draws the figures, writes them into `folder` and adds them to the content; to be called within `style()`."""
    numbers = iter(range(10**6))

    def picture(name: str, caption: str, figure: Figure) -> Picture:
        write_png(figure, folder / f"{name}.png")
        wide = figure.get_size_inches()[0] > _WIDE
        return Picture(name, caption, as_svg(figure, caption, next(numbers)), wide)

    shown = _compared(content.rates, curves, groups)
    for baseline in (group for group in groups if group.label == content.baseline):
        figure = difference_figure(shown, baseline)
        if figure is not None:
            caption = "Differences to the baseline: a dot per common seed; mean and 95 % bootstrap interval in blue."
            content.difference_figures.append(picture("differences", caption, figure))
    if content.rates:
        for kind, what in (("best", "Validation"), ("test", "Test")):
            figure = rate_curves(curves, kind, rate)
            if figure is not None:
                caption = f"{what} figure against the learning rate: mean over seeds, band from lowest to highest seed."
                if kind == "best":
                    caption += " Dotted: the parabola's optimum."
                content.rate_figures.append(picture(f"learning_rate_{what.lower()}", caption, figure))
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
    metric = metric_of(groups)
    seconds = sum(record.results["wall_seconds"] for record in records if record.results)
    numbers = {"runs": str(len(records)), "settings": str(len(groups))}
    if metric is not None:
        best = max(groups, key=lambda group: group.score)
        numbers["best median (" + best.label + ")"] = spread(best.values("best"), metric["name"])
    numbers["hours of training"] = f"{seconds / 3600:.2f}"
    odd = sum(record.status != "finished" for record in records)
    numbers["collapsed, diverged, failed or unfinished"] = str(odd)
    return numbers


def _provenance(records: list[Record]) -> list[Row]:
    """What the runs were made with; several values where runs differ."""
    facts: dict[str, dict[str, None]] = {}
    for record in records:
        results = record.results
        if results is None:
            continue
        data = results["data"]
        rows = f"{data['train_rows']:,} train, {data['validation_rows']:,} validation, {data['test_rows']:,} test rows"
        found = {
            "data": f"{data['name']}: {rows}",
            "data folder": text(record.config.get("data.data_dir")),
            "backbone": results["backbone"],
            "adapter": results["adapter"],
            "device": f"{results.get('device', '')} × {results.get('processes', 1)}",
            **{f"{name} version": version for name, version in results["versions"].items()},
        }
        for name, value in found.items():
            if value:
                facts.setdefault(name, {})[str(value)] = None
    return [{"What": name, "Value": "; ".join(values)} for name, values in facts.items()] or [
        {"What": "runs", "Value": "none has finished"}
    ]


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
        "Best epoch": text(metric["best_epoch"] if metric else None),
        "Last": figure(record.last),
        "Test": figure(record.test),
        "Used rank": text(results.get("average_rank")),
        "Seconds": f"{results['wall_seconds']:.0f}" if results else "",
        "Peak MiB": f"{results['peak_memory_bytes'] / 2**20:,.0f}" if results else "",
    }


def _commands(records: list[Record], folders: list[Path]) -> list[str]:
    commands = [f"python cli.py report {shlex.join(str(folder) for folder in folders)}"]
    for folder in folders:
        if (folder / "sweep.yaml").exists():
            where = f"--run_name {folder.name} --runs_dir {folder.parent}"
            commands.append(f"python cli.py sweep --config {folder / 'sweep.yaml'} {where}")
    runs = (f"python cli.py fit --config {record.folder / 'config.yaml'} --run_name again" for record in records[:1])
    return [*commands, *runs]
