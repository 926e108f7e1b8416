"""What a report says, section by section, gathered once for the page and the Markdown file."""

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from common.errors import listing
from experiments.report.answer import answer, answers
from experiments.report.audit import audit_table, method_table, mixtures, provenance, untold_settings
from experiments.report.cells import counted, without_constant_columns, without_empty_columns
from experiments.report.content import PageSection, PageTable, Paragraph, Part, Pictures, Study, say
from experiments.report.figures_compared import (
    MOST_BARS,
    MOST_ROWS,
    cost_figure,
    difference_figure,
    regret_figure,
    regret_table,
    regrets,
    run_bars,
)
from experiments.report.figures_ranks import RankSets, allocating, allocation_figures
from experiments.report.figures_rates import (
    MOST_LINES,
    law_figure,
    rank_curve_figure,
    rank_curve_table,
    rate_curves,
    training_curves,
    training_values,
)
from experiments.report.groups import Group
from experiments.report.rate_forecast import forecast_table, forecasts
from experiments.report.rate_law import law_table, left_out, points_of
from experiments.report.rate_tables import loss_table, rate_table
from experiments.report.replay import Replay, replay_table
from experiments.report.tables import comparable, difference_table, headline, run_table, settings_table, trouble_table

_RANK_SECTIONS = 4
_RATE_PICTURES = {  # which figures are drawn against the rate: their files, and their names
    "best": ("validation_metric_against_learning_rate", "Validation figure"),
    "loss": ("validation_loss_against_learning_rate", "Validation loss"),
    "test": ("test_metric_against_learning_rate", "Test figure"),
}


def gather(
    study: Study,
    sources: list[Path],
    commands: list[str],
    pictures: Pictures,
    replayed: Sequence[Replay] = (),
    evaluated: Iterable[PageSection] = (),
) -> list[PageSection]:
    """All sections of a report that have something to say.

    `commands` make the report and its runs again; `replayed` is what `sweep --stop_early` would have done; `evaluated`
    is what models loaded again say.
    """
    told, troubles = Paragraph(say("replay")), Paragraph(say("troubles"), "warning")
    fallen = "Runs that collapsed or did not finish"
    found = [
        PageSection("top", "", _top(study, sources)),
        PageSection("costs", "Score against cost", _costs(study, pictures)),
        PageSection("differences", "Differences to the baseline", _differences(study, pictures)),
        PageSection("settings", "The run" if len(study.records) == 1 else "Settings", _settings(study, pictures)),
        PageSection("rates", "Learning rates", _rates(study, pictures)),
        PageSection("law", "A law for the learning rate", _law(study, pictures)),
        PageSection("rank-curve", "The metric against the rank", _rank_curve(study, pictures)),
        PageSection(
            "replay", "Stopping early, replayed", _table("Stopping early, replayed", replay_table(replayed), told)
        ),
        *evaluated,
        PageSection("training", "Training", _training(study, pictures)),
        *_ranks(study, pictures),
        PageSection("troubles", fallen, _table(fallen, trouble_table(study.records), troubles)),
        PageSection("provenance", "Data, model, versions, commands", _provenance(study, commands)),
    ]
    return [section for section in found if section.parts]


def _table(name: str, rows: pd.DataFrame, *before: Paragraph, in_words: bool = True) -> list[Part]:
    """The table without columns that no row fills, after the text before it; nothing without rows."""
    return [] if rows.empty else [*before, PageTable(name, without_empty_columns(rows), in_words)]


def _top(study: Study, sources: list[Path]) -> list[Part]:
    asked = answers(sources, study.records, study.groups, study.compared)
    parts: list[Part] = [Paragraph(text, "answer") for text in (*asked, *answer(study))]
    parts.append(Paragraph(f"{headline(study.groups)}. {_numbers(study)}", "small"))
    if others := study.measures[1:]:
        names = [f"{one.metric.replace('_', ' ')} on {one.data} ({one.validation_rows:,} rows)" for one in others]
        parts.append(Paragraph(say("other_measures", "; ".join(names)), "warning"))
    unfair = audit_table(study.groups, study.swept, study.compared, study.baseline)
    return parts + _table("Not compared fairly", unfair, Paragraph(say("unfair"), "warning"))


def _numbers(study: Study) -> str:
    seconds = sum(record.results.wall_seconds for record in study.records if record.results)
    unfinished = sum(record.status != "finished" for record in study.records)
    told = [counted(len(study.records), "run")]
    told += [counted(len(study.groups), "setting")] if len(study.groups) > 1 else []
    told.append(f"{seconds / 3600:.2f} hours, evaluation included")
    told += [f"{unfinished} that collapsed or did not finish"] if unfinished else []
    return ", ".join(told) + "."


def _costs(study: Study, pictures: Pictures) -> list[Part]:
    shown, found = study.on_one_axis, regrets(study.compared)
    parts: list[Part] = []
    if len(shown) > 1:
        caption = _caption("cost_figure", "edge")
        parts += pictures.draw("score_against_cost", caption, lambda: cost_figure(shown))
    parts += pictures.draw("regret_against_trained_entries", say("regret_figure"), lambda: regret_figure(found))
    return parts + _table("Regret against full fine-tuning", regret_table(found), in_words=False)


def _differences(study: Study, pictures: Pictures) -> list[Part]:
    if (baseline := study.baseline) is None:
        return []
    caption = _caption("difference_figure", "edge", more=len(comparable(study.compared, baseline)) - MOST_ROWS)
    drawn = pictures.draw("differences_to_baseline", caption, lambda: difference_figure(study.compared, baseline))
    rows = difference_table(study.compared, baseline, study.bootstrap)
    told = Paragraph(say("difference_table", baseline.label))
    return [*drawn, *_table("Differences to the baseline", rows, told, in_words=False)]


def _settings(study: Study, pictures: Pictures) -> list[Part]:
    baseline, shown = study.baseline, study.on_one_axis
    rows = without_empty_columns(settings_table(study.groups, baseline))
    if len(study.records) == 1:
        (only,) = rows.rename(columns={"Median ± Std": "Best epoch"}).drop(columns="n").to_dict("records")
        return [PageTable("The run", pd.DataFrame({"What": only.keys(), "Value": only.values()}))]
    rows, same = without_constant_columns(rows)
    told = [say("settings"), say("settings_baseline", baseline.label) if baseline else ""]
    told.append(say("settings_same", same) if same else "")
    parts = _table("What the names stand for", method_table(study.groups), Paragraph(say("methods")))
    parts += [Paragraph(" ".join(filter(None, told))), PageTable("Settings", rows, in_words=False)]
    caption = _caption("run_figure", "run_figure_baseline" if baseline else "", "edge", more=len(shown) - MOST_BARS)
    parts += pictures.draw("score_of_each_run", caption, lambda: run_bars(shown, baseline))
    if untold := untold_settings(study.groups):
        parts.append(Paragraph(say("untold_settings", listing(untold)), "warning"))
    return parts + _table("Rows that mix runs", mixtures(study.groups), Paragraph(say("mixtures"), "warning"))


def _rates(study: Study, pictures: Pictures) -> list[Part]:
    if not study.is_rate_study:
        return []
    parts = _table("Learning rates", rate_table(study.swept, study.bootstrap), Paragraph(say("rates")))
    losses = loss_table(study.swept, study.bootstrap)
    parts += _table("Learning rates by validation loss", losses, Paragraph(say("loss_rates")))
    curves = [curve for curve in study.curves if curve.chosen in study.on_one_axis]
    for kind, (name, shown) in _RATE_PICTURES.items():
        caption = f"{say('rate_figure', shown)} {_caption('' if kind == 'test' else 'rate_figure_optimum', 'edge')}"
        if kind != "loss" or not losses.empty:
            parts += pictures.draw(name, caption, partial(rate_curves, curves, kind, study.rate))
    return parts


def _law(study: Study, pictures: Pictures) -> list[Part]:
    if (law := study.law) is None:
        return []
    points = points_of(study.records)
    parts = _table("The law", law_table(law), Paragraph(say("law")))
    parts += _table("Each rank predicted from the others", left_out(points))
    parts += _table("Full fine-tuning's rate, forecast from LoRA's", forecast_table(forecasts(points)))
    return [*parts, *pictures.draw("learning_rate_law", say("law_figure"), lambda: law_figure(law))]


def _rank_curve(study: Study, pictures: Pictures) -> list[Part]:
    told = Paragraph(_caption("rank_curve", "rank_curve_rates" if study.is_rate_study else ""))
    table = _table("The metric against the rank", rank_curve_table(study.on_one_axis), told)
    drawn = pictures.draw("metric_against_rank", say("rank_curve_figure"), lambda: rank_curve_figure(study.on_one_axis))
    return [*table, *drawn]


def _training(study: Study, pictures: Pictures) -> list[Part]:
    shown = study.on_one_axis
    first = "training_figure_one" if len(study.records) == 1 else "training_figure"
    rates = "training_figure_rates" if study.is_rate_study else ""
    missing = [told for told, lines in training_values(shown).items() if not lines]
    caption = _caption(first, rates, more=len(shown) - MOST_LINES)
    caption += f" {say('training_missing', ', '.join(missing))}" if missing else ""
    parts = pictures.draw("training_curves", caption, lambda: training_curves(shown))
    return [*parts] or [Paragraph(say("training_empty"))]


def _ranks(study: Study, pictures: Pictures) -> Iterator[PageSection]:
    """A section for the best settings of each method, all on one colour scale."""
    chosen = _best_of_methods(study.groups)
    sets = [RankSets.of(group) for group in chosen]
    extremes = [one.extremes for one in sets] or [(0.0, 0.0)]
    scale = (min(low for low, _ in extremes), max(high for _, high in extremes))
    for one in sets:
        label = re.sub(r"[^\w.-]+", "_", one.group.label).strip("._")[:80] or "settings"  # of a file
        drawn: list[Part] = []
        for name, caption, make in allocation_figures(one, scale):
            drawn += pictures.draw(f"{name}_{label}", caption, make)
        yield PageSection(f"ranks-{label}", f"Ranks: {one.group.label}", drawn)
    hidden = sum(1 for group in study.groups if allocating(group)) - len(chosen)
    lost = [group for group in study.groups if not allocating(group) and any(one.budget for one in group.results)]
    notes = [say("ranks_hidden", hidden)] if hidden else []
    notes += [say("ranks_lost", ", ".join(group.label for group in lost))] if lost else []
    yield PageSection("ranks-not-shown", "Ranks that are not shown", [Paragraph(note) for note in notes])


def _caption(*names: str, more: int = 0) -> str:
    """Texts after each other, and how many settings have no room in the figure."""
    told = [say(name) for name in names if name]
    return " ".join([*told, *([say("left_out", more)] if more > 0 else [])])


def _best_of_methods(groups: list[Group]) -> list[Group]:
    """The best group of each method first, then the next best, up to a number a reader can take in."""
    ordered = sorted((group for group in groups if allocating(group)), key=lambda group: -group.score)
    first = {group.method: group for group in reversed(ordered)}
    return sorted(ordered, key=lambda group: first[group.method] is not group)[:_RANK_SECTIONS]


def _provenance(study: Study, commands: list[str]) -> list[Part]:
    parts = _table("Data, model, versions", provenance(study.records))
    if len(study.records) > 1:
        parts.append(PageTable(f"Every run ({len(study.records)})", run_table(study.records), False, is_folded=True))
    return [*parts, Paragraph("\n".join(commands), "commands")]
