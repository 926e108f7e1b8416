"""The verb report: from folders of runs, or files of trials, to report.html, report.md, table.csv and figures."""

import argparse
from pathlib import Path
from typing import Any

from common.errors import InputError
from common.files import write_json, write_text
from common.terminal import say
from experiments.report.content import Content, Picture, draw, gather
from experiments.report.drawing import style
from experiments.report.groups import Curve, swept_rate
from experiments.report.record import Record
from experiments.report.records import read_records
from experiments.report.tables import as_csv, as_markdown, without_empty_columns
from experiments.report.trials_file import check_place, write_trials

_TEMPLATE = Path(__file__).with_name("page.html.j2")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise InputError(f"{message}. See `python cli.py report --help`.")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python cli.py report", description=__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("sources", nargs="+", type=Path, help="sweep folders, run folders, folders that hold runs, files of trials")
    add("--baseline", help="compare with this method, row or run, seed by seed")
    add("--output", type=Path, help="folder to write into (default: the first folder given)")
    add("--trials", type=Path, help="also write the runs into this one small file, which report reads back")
    add("--seed2_json", action="store_true", help="also write {rate: losses and test accuracy} files into seed2/")
    return parser


def run_report(arguments: list[str]) -> int:
    """Runs the verb and returns the exit code.

    Raises:
        InputError: no runs, files that aren't whole, or an unknown baseline.
    """
    options = _parser().parse_args(arguments)
    output = _output(options)
    if options.trials:
        check_place(options.trials)
    records = read_records(options.sources)
    content, curves, groups = gather(records, options.sources, output, options.baseline)
    with style():
        draw(content, curves, groups, swept_rate(records), output / "figures")
    write_text(output / "table.csv", as_csv(content.settings))
    if content.differences:
        write_text(output / "differences.csv", as_csv(content.differences))
    write_text(output / "report.md", markdown(content))
    write_text(output / "report.html", page(content))
    if options.seed2_json:
        for name, layout in rate_layouts(curves).items():
            write_json(output / "seed2" / f"{name}.json", layout)
    if options.trials:
        write_trials(options.trials, records)
    say(f"{len(records)} runs, {len(groups)} settings: {output}/report.html, report.md, table.csv, figures/")
    return 0


def _output(options: argparse.Namespace) -> Path:
    first: Path = options.sources[0]
    if options.output is None and first.is_file():
        raise InputError(f"{first} is a file, so the report needs a folder to be written into: --output FOLDER.")
    return options.output or first


def page(content: Content) -> str:
    """The whole page: styles and figures inside, nothing to load."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return environment.from_string(_TEMPLATE.read_text()).render(
        {
            **vars(content),
            "settings": without_empty_columns(content.settings),
            "rates": without_empty_columns(content.rates),
            "loss_rates": without_empty_columns(content.loss_rates),
        }
    )


def markdown(content: Content) -> str:
    """The same for a repository's page or an issue, with the pictures from figures/."""
    parts = [f"# {content.title}", f"{content.headline}."]
    if content.other_measures:
        others = "; ".join(content.other_measures)
        parts.append(f"Not all were measured alike: differences are within one measure, figures leave out {others}.")
    parts.append(as_markdown(without_empty_columns(content.settings)))
    if content.mixtures:
        parts += ["Some rows mix runs that differ in more than the seed:", as_markdown(content.mixtures)]
    if content.differences:
        told = "mean over common seeds, 95 % bootstrap interval (too narrow for few seeds) and Student's"
        parts += [f"Differences to {content.baseline}: {told}.", as_markdown(content.differences)]
    parts += map(_markdown_picture, content.difference_figures)
    if content.rates:
        parts += ["## Learning rates", as_markdown(without_empty_columns(content.rates))]
    if content.loss_rates:
        parts += ["By validation loss:", as_markdown(without_empty_columns(content.loss_rates))]
    parts += map(_markdown_picture, content.rate_figures)
    if content.rank_curve:
        parts += ["## Figures against the rank", as_markdown(content.rank_curve)]
    parts += map(_markdown_picture, [*content.rank_curve_figures, *content.training_figures])
    for section in content.rank_sections:
        parts += [f"## Ranks: {section.label}", *map(_markdown_picture, section.figures)]
    parts += ["## Runs that did not simply finish", as_markdown(content.troubles) or "None."]
    parts += ["## Data, model, versions, commands", as_markdown(content.provenance)]
    parts.append("```\n" + "\n".join(content.commands) + "\n```")
    return "\n\n".join(parts) + "\n"


def _markdown_picture(figure: Picture) -> str:
    return f"![{figure.caption}](figures/{figure.name}.png)\n\n{figure.caption}"


def rate_layouts(curves: list[Curve]) -> dict[str, dict[str, Any]]:
    """{rate: {best_val_loss, test_acc, train_losses, val_losses}}, as the second study has it: per curve and seed.

    As there, test_acc is the accuracy after the last epoch; best_epoch_test_acc is the best epoch's.
    """
    layouts: dict[str, dict[str, Any]] = {}
    for curve in curves:
        for rate, group in curve.groups.items():
            for record in group.records:
                if record.results is None:
                    continue
                name = f"{curve.label.replace(' ', '_').replace('/', '_')}-seed_{record.seed}"
                layouts.setdefault(name, {})[str(rate)] = _rate_entry(record)
    return layouts


def _rate_entry(record: Record) -> dict[str, Any]:
    results = record.results or {}
    test = results.get("test") or {}
    last = results.get("test_last") or {}
    if not last and results["metric"]["best_epoch"] == len(results["val_losses"]) - 1:
        last = test  # earlier versions tested the best epoch alone
    entry = {
        "best_val_loss": results["best_val_loss"],
        "test_acc": last.get("accuracy"),
        "best_epoch_test_acc": test.get("accuracy"),
        "train_losses": results["train_losses"],
        "val_losses": results["val_losses"],
    }
    if "perplexity" not in test:
        return entry
    return {**entry, "test_perplexity": last.get("perplexity"), "best_epoch_test_perplexity": test["perplexity"]}
