"""The verb report: from folders of runs, or files of trials, to report.html, report.md, table.csv and figures."""

import argparse
import re
import shlex
from pathlib import Path

import jinja2

from common.errors import InputError
from common.files import write_json, write_text
from common.terminal import VerbParser, logger
from experiments.report.cells import as_csv, as_markdown, counted, plain
from experiments.report.content import PageSection, Paragraph, Pictures, Study, make_study
from experiments.report.evaluation import evaluation_sections
from experiments.report.groups import Curve
from experiments.report.replay import replays
from experiments.report.sections import gather
from experiments.report.sources import check_place, read_records, write_trials
from experiments.report.tables import difference_table, settings_table

_MANY = 20  # runs: with more, other processes write the figures
# What no name needs, and a terminal or a browser obeys: XML has none of them, and text that runs backwards misleads.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


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
    help_evaluate = "answer rows again with the best setting's best checkpoints (if not given: for one run alone)"
    add("--evaluate", action=argparse.BooleanOptionalAction, help=help_evaluate)
    help_budgets = "evaluate one run cut to these budgets as by export --budget (to halves, if none is given)"
    add("--budgets", nargs="*", type=int, metavar="N", help=help_budgets)
    add("--output", type=Path, help="folder to write into (default: the first folder given)")
    add("--trials", type=Path, help="also write the runs into this one small file, which report reads back")
    add("--seed2_json", action="store_true", help="also write {rate: losses and test accuracy} files into seed2/")
    return parser


def run_report(arguments: list[str]) -> int:
    """Runs the verb and returns the exit code.

    `InputError`: no runs, files that aren't whole, or an unknown baseline.
    """
    options = _parser().parse_args(arguments)
    first: Path = options.sources[0]
    if options.output is None and first.is_file():
        raise InputError(f"{first} is a file, so the report needs a folder to be written into: --output FOLDER.")
    output = options.output or first
    if options.trials:
        check_place(options.trials)
    records = read_records(options.sources)
    study = make_study(records, options.baseline, options.bootstrap, options.law)
    typed = _commands(study, options, output)
    replayed = [] if options.replay is None else replays(study.groups, tuple(options.replay))
    # no processes beside PyTorch's threads
    pictures = Pictures(output / "figures", in_parallel=len(records) > _MANY and not options.evaluate)
    evaluated = evaluation_sections(study, options.evaluate, options.budgets, pictures)
    sections = gather(study, options.sources, typed, pictures, replayed, evaluated)
    pictures.wait()
    title = " + ".join(source.stem if source.is_file() else source.resolve().name for source in options.sources)
    write_text(output / "table.csv", as_csv(settings_table(study.groups, study.baseline)))
    differences = difference_table(study.compared, study.baseline, study.bootstrap)
    if not differences.empty:
        write_text(output / "differences.csv", as_csv(differences))
    write_text(output / "report.md", markdown(title, sections))
    write_text(output / "report.html", page(title, sections))
    if options.seed2_json:
        for name, layout in rate_layouts(study.curves).items():
            write_json(output / "seed2" / f"{name}.json", layout)
    if options.trials:
        write_trials(options.trials, records)
    told = [counted(len(records), "run"), *([f"{len(study.groups)} settings"] if len(study.groups) > 1 else [])]
    logger.info(f"{', '.join(told)}: {output}/report.html, report.md, table.csv, figures/")
    return 0


def _commands(study: Study, options: argparse.Namespace, output: Path) -> list[str]:
    """What makes the report and its runs again."""
    chosen = [] if options.baseline is None else ["--baseline", options.baseline]
    where = [] if output == options.sources[0] else ["--output", str(output)]
    found = [["report", *map(str, options.sources), *chosen, *where]]
    for folder in options.sources:
        if (folder / "sweep.yaml").exists():
            where = ["--run_name", folder.name, "--runs_dir", str(folder.parent)]
            found.append(["sweep", "--config", str(folder / "sweep.yaml"), *where])
    configs = (record.folder / "config.yaml" for record in study.records)
    again = next((config for config in configs if config.exists()), None)
    if again is not None:
        found.append(["fit", "--config", str(again), "--run_name", "again"])
    return [f"python cli.py {shlex.join(command)}" for command in found]


def page(title: str, sections: list[PageSection]) -> str:
    """The whole page: styles and figures inside, nothing to load."""
    return _rendered("page.html.j2", title, sections, autoescape=True)


def markdown(title: str, sections: list[PageSection]) -> str:
    """The same for a repository's page or an issue, with the pictures from figures/."""
    commands = [part.text for section in sections for part in section.parts if isinstance(part, Paragraph)]
    longest = max(map(len, re.findall("`+", "\n".join(commands))), default=0)  # the fence has to be longer
    text = _rendered("report.md.j2", title, sections, autoescape=False, fence="`" * max(3, 1 + longest))
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _rendered(template: str, title: str, sections: list[PageSection], autoescape: bool, fence: str = "") -> str:
    environment = jinja2.Environment(autoescape=autoescape, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters |= {"plain": plain, "table": as_markdown}
    text = Path(__file__).with_name(template).read_text()
    told = environment.from_string(text).render(title=title, sections=sections, fence=fence)
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", told)


def rate_layouts(curves: list[Curve]) -> dict[str, dict[str, object]]:
    """{rate: {best_val_loss, test_acc, train_losses, val_losses}}, as the second study has it: per curve and seed.

    As there, test_acc is the accuracy after the last epoch; best_epoch_test_acc is the best epoch's.
    """
    layouts: dict[str, dict[str, object]] = {}
    stems: dict[str, str] = {}  # of file names, by label; labels that look alike in one get a number
    for label in dict.fromkeys(curve.label for curve in curves):
        stem = re.sub(r"[^\w.+=-]+", "_", label)[:60]
        taken = [other.lower() for other in stems.values()]
        stems[label] = f"{stem}-{len(stems)}" if stem.lower() in taken else stem
    runs = ((curve, rate, one) for curve in curves for rate, group in curve.groups.items() for one in group.results)
    for curve, rate, results in runs:
        name = f"{stems[curve.label]}-seed_{results.seed or 0}"
        test, last = results.test_figures, results.last_test_figures
        entry: dict[str, object] = {
            "best_val_loss": results.best_val_loss,
            "test_acc": last.get("accuracy"),
            "best_epoch_test_acc": test.get("accuracy"),
            "train_losses": results.train_losses,
            "val_losses": results.val_losses,
        }
        if (figure := "perplexity") in test:
            entry |= {f"test_{figure}": last.get(figure), f"best_epoch_test_{figure}": test[figure]}
        layouts.setdefault(name, {})[str(rate)] = entry
    return layouts
