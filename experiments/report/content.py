"""Everything a report says, gathered once for the page, the Markdown file and the pictures."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from experiments.report.audit import audit_table
from experiments.report.cells import spread, without_empty_columns
from experiments.report.drawing import as_svg, write_png
from experiments.report.figures_differences import MOST_BARS, MOST_ROWS, difference_figure, run_bars
from experiments.report.figures_ranks import allocating, allocation_figures
from experiments.report.figures_rates import MOST_LINES, law_figure, rate_curves, training_curves
from experiments.report.groups import Curve, Group, Measure, make_curves, make_groups, swept_rate
from experiments.report.provenance import mixtures, provenance
from experiments.report.rank_curves import rank_curve_figure, rank_curve_table
from experiments.report.rate_forecast import forecast_table, forecasts
from experiments.report.rate_law import Law, fit_law, law_table, left_out, points_of
from experiments.report.rate_tables import loss_table, rate_table
from experiments.report.record import Record
from experiments.report.tables import (
    comparable,
    difference_table,
    find_baseline,
    headline,
    run_table,
    settings_table,
    trouble_table,
)
from experiments.report.verdict import answers

_SECTIONS = ("settings", "differences", "rates", "law", "rank_curve", "training")  # of the page, those with figures
_RANK_SECTIONS = 6
_RATE_PICTURES = {  # which figures are drawn against the rate: their files, and their names
    "best": ("learning_rate_validation", "Validation figure"),
    "loss": ("learning_rate_loss", "Validation loss"),
    "test": ("learning_rate_test", "Test figure"),
}
_WIDE = 6.0  # inches: wider figures take the page's width


@dataclass(frozen=True)
class Picture:
    """A figure on the page, and its file."""

    name: str
    caption: str
    svg: str
    wide: bool


@dataclass(frozen=True)
class Study:
    """The runs of a report, put in order.

    Attributes:
        groups: by settings.
        rate: the swept learning rate, by command-line name.
        curves: groups over that rate.
        compared: where rates were swept, each curve's group at its chosen rate, and those without such a rate; else
            all groups.
        baseline: what differences are to.
        bootstrap: whether intervals from resampling seeds stand beside Student's.
        law: of the learning rate, if that was asked for.
    """

    records: list[Record]
    groups: list[Group]
    rate: str
    curves: list[Curve]
    compared: list[Group]
    baseline: Group | None
    bootstrap: bool = False
    law: Law | None = None

    @property
    def is_rate_study(self) -> bool:
        return any(len(curve.groups) > 1 for curve in self.curves)

    @property
    def measures(self) -> list[Measure]:
        """What the groups were measured by, in order of their appearance."""
        return list(dict.fromkeys(group.measure for group in self.groups if group.measure is not None))

    @property
    def on_one_axis(self) -> list[Group]:
        """Compared groups that were measured like the first: one axis can't hold two metrics."""
        return [group for group in self.compared if group.measure in (None, *self.measures[:1])]


@dataclass
class Content:
    """A report's parts, by the names the page's template uses; tables may be empty."""

    title: str
    headline: str
    numbers: dict[str, str]
    answers: list[str]
    audit: pd.DataFrame
    settings: pd.DataFrame
    baseline: str
    differences: pd.DataFrame
    other_measures: list[str]
    mixtures: pd.DataFrame
    rates: pd.DataFrame
    loss_rates: pd.DataFrame
    rank_curve: pd.DataFrame
    troubles: pd.DataFrame
    provenance: pd.DataFrame
    all_runs: pd.DataFrame
    commands: list[str]
    runs: int
    pictures: dict[str, list[Picture]] = field(default_factory=lambda: {section: [] for section in _SECTIONS})
    rank_sections: dict[str, list[Picture]] = field(default_factory=dict)  # by the label of the settings
    ranks_left_out: int = 0
    law: dict[str, pd.DataFrame] = field(default_factory=dict)  # tables by their titles
    replay: pd.DataFrame = field(default_factory=pd.DataFrame)


def make_study(records: list[Record], baseline: str | None, bootstrap: bool = False, law: bool = False) -> Study:
    """The runs in order.

    Raises:
        InputError: the baseline's name is unknown, or there are too few curves for the law.
    """
    groups, rate = make_groups(records), swept_rate(records)
    curves = make_curves(groups, rate)
    compared = groups
    if any(len(curve.groups) > 1 for curve in curves):
        swept = {group for curve in curves for group in curve.groups.values()}
        compared = [curve.chosen for curve in curves] + [group for group in groups if group not in swept]
    fitted = fit_law(points_of(records)) if law else None
    return Study(records, groups, rate, curves, compared, find_baseline(groups, compared, baseline), bootstrap, fitted)


def gather(study: Study, sources: list[Path], output: Path, baseline_name: str | None) -> Content:
    """All tables of a report; `draw` adds the figures."""
    groups, swept = study.groups, study.curves if study.is_rate_study else []
    return Content(
        title=" + ".join(source.stem if source.is_file() else source.resolve().name for source in sources),
        headline=headline(groups),
        numbers=_numbers(study),
        answers=answers(sources, study.records, groups, study.compared),
        audit=audit_table(groups, swept, study.compared, study.baseline),
        settings=settings_table(groups, study.baseline),
        baseline=study.baseline.label if study.baseline else "",
        differences=difference_table(study.compared, study.baseline, study.bootstrap),
        other_measures=[
            f"{m.metric.replace('_', ' ')} on {m.data} ({m.validation_rows:,} rows)" for m in study.measures[1:]
        ],
        mixtures=mixtures(groups),
        rates=without_empty_columns(rate_table(swept, study.bootstrap)),
        loss_rates=without_empty_columns(loss_table(swept, study.bootstrap)),
        law=_law_tables(study),
        rank_curve=rank_curve_table(study.on_one_axis),
        troubles=trouble_table([record for group in groups for record in group.records]),
        provenance=provenance(study.records),
        all_runs=run_table(study.records),
        commands=_commands(study.records, sources, output, baseline_name),
        runs=len(study.records),
    )


def _law_tables(study: Study) -> dict[str, pd.DataFrame]:
    if study.law is None:
        return {}
    points = points_of(study.records)
    found = {
        "The law": law_table(study.law),
        "Each rank predicted from the others": left_out(points),
        "Full fine-tuning's rate, forecast from LoRA's": forecast_table(forecasts(points)),
    }
    return {title: table for title, table in found.items() if not table.empty}


def draw(content: Content, study: Study, folder: Path) -> None:
    """Draws the figures, writes them into `folder` and adds them to the content; to be called within `style()`."""
    numbers = count()

    def picture(name: str, caption: str, figure: Figure) -> Picture:
        write_png(figure, folder / f"{name}.png")
        return Picture(name, caption, as_svg(figure, caption, next(numbers)), figure.get_size_inches()[0] > _WIDE)

    for section, name, caption, figure in _figures(study, with_loss=not content.loss_rates.empty):
        if figure is not None:
            content.pictures[section].append(picture(name, caption, figure))
    for number, group in enumerate(_best_of_methods(study.groups)):
        found = [picture(f"{name}_{number}", caption, figure) for name, caption, figure in allocation_figures(group)]
        content.rank_sections[group.label] = found
    content.ranks_left_out = sum(1 for group in study.groups if allocating(group)) - len(content.rank_sections)


def _figures(study: Study, with_loss: bool) -> Iterator[tuple[str, str, str, Figure | None]]:
    """Section, file name, caption and figure of each picture; no figure where there is nothing to draw."""
    shown, baseline = study.on_one_axis, study.baseline
    curves = [curve for curve in study.curves if curve.chosen in shown]
    caption = "A bar per run." + (" Line and band: the baseline's median ± deviation." if baseline is not None else "")
    yield "settings", "runs", caption + _left_out(len(shown) - MOST_BARS), run_bars(shown, baseline)
    if baseline is not None:
        caption = (
            "Differences to the baseline: a grey dot per common seed; a diamond for the mean, a line for its 95 % "
            "Student interval (cut off at the axis' ends)."
        )
        caption += _left_out(len(comparable(study.compared, baseline)) - MOST_ROWS)
        yield "differences", "differences", caption, difference_figure(study.compared, baseline)
    if study.is_rate_study:
        for kind, (name, told) in _RATE_PICTURES.items():
            caption = f"{told} against the learning rate: mean over seeds, band from lowest to highest seed."
            caption += "" if kind == "test" else " Dotted: the parabola's optimum."
            yield "rates", name, caption, rate_curves(curves, kind, study.rate) if kind != "loss" or with_loss else None
    if study.law is not None:
        caption = "Best rates against the rank, with one standard error; lines: the law, for each study and alpha rule."
        yield "law", "learning_rate_law", caption, law_figure(study.law)
    caption = "Figure against the rank: mean over seeds, band from lowest to highest seed."
    yield "rank_curve", "rank_curve", caption, rank_curve_figure(shown)
    caption = "One line per run" + (", each curve at its chosen rate." if study.is_rate_study else ".")
    yield "training", "training", caption + _left_out(len(shown) - MOST_LINES), training_curves(shown)


def _left_out(settings: int) -> str:
    return f" The best settings; {settings} more are left out." if settings > 0 else ""


def _best_of_methods(groups: list[Group]) -> list[Group]:
    """The best group of each method first, then the next best, up to a number a reader can take in."""
    ordered = sorted((group for group in groups if allocating(group)), key=lambda group: -group.score)
    first = {group.method: group for group in reversed(ordered)}
    return sorted(ordered, key=lambda group: first[group.method] is not group)[:_RANK_SECTIONS]


def _numbers(study: Study) -> dict[str, str]:
    seconds = sum(record.results.wall_seconds for record in study.records if record.results)
    numbers = {"runs": str(len(study.records)), "settings": str(len(study.groups))}
    for measure in study.measures:
        best = max((group for group in study.groups if group.measure == measure), key=lambda group: group.score)
        name = f"best median {measure.metric.replace('_', ' ')} ({best.label})"
        numbers[name] = spread(best.values("best"), measure.metric)
    numbers["hours, evaluation included"] = f"{seconds / 3600:.2f}"
    numbers["not simply finished"] = str(sum(record.status != "finished" for record in study.records))
    return numbers


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
