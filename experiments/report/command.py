"""The verb report: from folders of runs, or files of trials, to report.html, report.md, table.csv and figures."""

import argparse
import re
from pathlib import Path
from typing import Any

import jinja2

from common.errors import InputError
from common.files import write_json, write_text
from common.terminal import VerbParser, logger
from experiments.report.cells import as_csv, as_markdown, plain, without_empty_columns
from experiments.report.content import Content, draw, gather, make_study
from experiments.report.drawing import style
from experiments.report.groups import Curve
from experiments.report.replay import replay_table, replays
from experiments.report.sources import read_records
from experiments.report.trials_file import check_place, write_trials
from experiments.results import RunResults


def _parser() -> argparse.ArgumentParser:
    parser = VerbParser(prog="python cli.py report", description=__doc__)
    add = parser.add_argument
    add("sources", nargs="+", type=Path, help="sweep folders, run folders, folders that hold runs, files of trials")
    add("--baseline", help="compare with this method, row or run, seed by seed")
    add("--bootstrap", action="store_true", help="intervals from resampling seeds, too: too narrow for a handful")
    help_law = "fit best rates against rank and scale (takes three ranks), forecast full fine-tuning's from LoRA's"
    add("--law", action="store_true", help=help_law)
    help_replay = "would sweep --stop_early have chosen the same? NAMES: what was searched besides learning rates"
    add("--replay", nargs="*", metavar="NAME", help=help_replay)
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
    study = make_study(records, options.baseline, options.bootstrap, options.law)
    content = gather(study, options.sources, output, options.baseline)
    if options.replay is not None:
        content.replay = replay_table(replays(study.groups, tuple(options.replay)))
    with style():
        draw(content, study, output / "figures")
    write_text(output / "table.csv", as_csv(content.settings))
    if not content.differences.empty:
        write_text(output / "differences.csv", as_csv(content.differences))
    write_text(output / "report.md", markdown(content))
    write_text(output / "report.html", page(content))
    if options.seed2_json:
        for name, layout in rate_layouts(study.curves).items():
            write_json(output / "seed2" / f"{name}.json", layout)
    if options.trials:
        write_trials(options.trials, records)
    logger.info(
        f"{len(records)} runs, {len(study.groups)} settings: {output}/report.html, report.md, table.csv, figures/"
    )
    return 0


def _output(options: argparse.Namespace) -> Path:
    first: Path = options.sources[0]
    if options.output is None and first.is_file():
        raise InputError(f"{first} is a file, so the report needs a folder to be written into: --output FOLDER.")
    return options.output or first


def page(content: Content) -> str:
    """The whole page: styles and figures inside, nothing to load."""
    return _rendered("page.html.j2", content, autoescape=True)


def markdown(content: Content) -> str:
    """The same for a repository's page or an issue, with the pictures from figures/."""
    # longer than any fence in the commands
    longest = max(map(len, re.findall("`+", "\n".join(content.commands))), default=0)
    text = _rendered("report.md.j2", content, autoescape=False, fence="`" * max(3, 1 + longest))
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _rendered(template: str, content: Content, autoescape: bool, **more: Any) -> str:
    environment = jinja2.Environment(autoescape=autoescape, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters |= {"plain": plain, "table": as_markdown}
    parts = {**vars(content), "settings": without_empty_columns(content.settings), **more}
    return environment.from_string(Path(__file__).with_name(template).read_text()).render(parts)


def rate_layouts(curves: list[Curve]) -> dict[str, dict[str, Any]]:
    """{rate: {best_val_loss, test_acc, train_losses, val_losses}}, as the second study has it: per curve and seed.

    As there, test_acc is the accuracy after the last epoch; best_epoch_test_acc is the best epoch's.
    """
    layouts: dict[str, dict[str, Any]] = {}
    for curve in curves:
        for rate, group in curve.groups.items():
            for results in group.results:
                name = f"{curve.label.replace(' ', '_').replace('/', '_')}-seed_{results.seed or 0}"
                layouts.setdefault(name, {})[str(rate)] = _rate_entry(results)
    return layouts


def _rate_entry(results: RunResults) -> dict[str, Any]:
    test, last = results.test_figures, results.last_test_figures
    entry = {
        "best_val_loss": results.best_val_loss,
        "test_acc": last.get("accuracy"),
        "best_epoch_test_acc": test.get("accuracy"),
        "train_losses": results.train_losses,
        "val_losses": results.val_losses,
    }
    if "perplexity" not in test:
        return entry
    return {**entry, "test_perplexity": last.get("perplexity"), "best_epoch_test_perplexity": test["perplexity"]}
