"""The verb sweep: many trials from one file; killed and run again, it goes on."""

import argparse
import re
import shlex
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import yaml
from rich.console import Console

from common.errors import InputError, shown
from common.terminal import VerbParser, logger, quiet_libraries
from experiments.arguments import MEANINGS
from experiments.config_files import load_yaml, locate_config
from experiments.resumption import is_requeued_job
from experiments.run_folder import RunFolder
from experiments.sweep.claim import check_claim, claim
from experiments.sweep.definition import make_trials, read_definition, with_settings
from experiments.sweep.deletion import KEPT, clear, drop_checkpoints, sweep_files
from experiments.sweep.early_exit import check_epochs, rounds_of
from experiments.sweep.engines import Engine, WorkerProcesses, run_here
from experiments.sweep.folder import State, SweepFolder
from experiments.sweep.grid import Trial
from experiments.sweep.progress import Progress
from experiments.sweep.question import SEARCHED, Question
from experiments.sweep.ray_engine import RayEngine
from experiments.sweep.trial_config import check_trials, trial_arguments

_EPILOG = (
    "Any other option holds for every trial: --data.data_dir DIR, --model.backbone NAME, --trainer.max_epochs 2, … "
    "Run the same command again to go on after a stop: finished trials are skipped, the begun one resumes, failed "
    "ones are tried again. docs/sweeps.md has the grid's syntax. Exit codes: 0 all trials ran, 1 some failed or the "
    "sweep was stopped, 2 the input is at fault."
)
_RAY_OPTIONS = ("ray_address", "cpus_per_trial", "gpus_per_trial")
_APART = {  # options that exclude one another, and why
    ("overwrite", "part"): "that would delete what the other parts are doing: delete the sweep's folder beforehand.",
    ("stop_early", "part"): "--stop_early compares trials that --part leaves to others.",
    ("extend", "overwrite"): "--extend keeps the trials that --overwrite deletes.",
    ("extend", "part"): "the grid grows for all parts: run it with --extend and without --part, stop it, start them.",
}
_HELP = "See `python cli.py sweep --help`."


def _parser() -> argparse.ArgumentParser:
    parser = VerbParser(prog="python cli.py sweep", description=__doc__, epilog=_EPILOG, handed_on=MEANINGS)
    add = parser.add_argument
    add("--config", required=True, help="the sweep file: a path, or a name in configs/ such as sweeps/NAME.yaml")
    add("--run_name", help="folder of the sweep below --runs_dir (default: the file's name)")
    add("--runs_dir", default="runs", help="folder that holds it (default: runs)")
    add("--dry_run", action="store_true", help="list the trials, where they stand and the time left; run nothing")
    help_pilot = "with --dry_run: trials that tell how many seeds the question needs (default: those finished here)"
    add("--pilot", type=Path, nargs="+", help=help_pilot)
    add("--jobs", type=int, default=1, help="trials at once on this machine, in worker processes (default: 1, here)")
    add("--engine", default="local", choices=("local", "ray"), help="local, or ray: this machine's or a cluster's")
    add("--ray_address", help="join this Ray cluster (auto: the one this machine belongs to); default: start one here")
    add("--cpus_per_trial", type=float, help="with ray: cores, and threads, of a trial (default: 1)")
    help_gpus = "with ray: GPUs of a trial; 0.5 puts two on one (default: 1 if there are any)"
    add("--gpus_per_trial", type=float, help=help_gpus)
    help_kept = "what finished trials keep: all, best (best.ckpt alone), or none (default: all)"
    add("--keep_checkpoints", default="all", choices=KEPT, help=help_kept)
    add("--part", help="K/N: only every N-th trial from the K-th (1 to N), for arrays of jobs")
    help_early = "pause trials whose searched settings (learning rates) do worse; docs/deciding.md has the rule"
    add("--stop_early", action="store_true", help=help_early)
    help_extend = "let the grid in the folder grow (more seeds, rates, methods): its trials stay and aren't run again"
    add("--extend", action="store_true", help=help_extend)
    add("--overwrite", action="store_true", help="delete a sweep of this name with all its trials first")
    return parser


def run_sweep(arguments: list[str]) -> int:
    """Runs the verb and returns the exit code. Before any trial starts, bad input is an `InputError`."""
    quiet_libraries()  # once more: this module's imports have set Lightning's loggers back
    options, rest = _parser().parse_known_args(arguments)
    _check_options(options)
    engine, at_once = _engine(options)
    path = locate_config(options.config)
    definition = with_settings(read_definition(path), _settings(rest))
    trials = make_trials(definition)
    mine = _part(trials, options.part)
    folder = SweepFolder(RunFolder.of(options.runs_dir, options.run_name or path.stem).path)
    configs, misfit = check_trials(folder, trials, run_here=options.engine != "ray")
    overwrite = options.overwrite and not is_requeued_job()  # a job started again goes on with its own trials
    if options.dry_run:
        _list_trials(folder, mine, at_once, overwrite)
    if misfit is not None:
        raise misfit
    searched = definition.get(SEARCHED) or []
    epochs = check_epochs(trials, configs, searched) if options.stop_early else 0
    command = f"python cli.py sweep {shlex.join(arguments)}"
    if options.dry_run:
        if overwrite:
            sweep_files(folder)  # refuses what can't be deleted
        else:
            check_claim(folder, definition, configs, command, options.extend)
        _tell_seeds(definition, trials, options.pilot or folder)
        return 0
    logger.info(f"sweep: {path}, {len(trials)} trials, folder {folder.path}")
    with folder.sweep_lock(is_part=options.part is not None):
        if overwrite:
            clear(folder)
        check_claim(folder, definition, configs, command, options.extend)
        claim(folder, definition)

        def keep_account() -> None:
            folder.write_results(trials)
            drop_checkpoints(folder, trials, options.keep_checkpoints)

        keep_account()
        progress = Progress(folder, mine, at_once, keep_account, may_pause=options.stop_early)
        rounds: Iterable[list[Trial]] = [progress.unfinished]
        if options.stop_early:
            rounds = rounds_of(folder, trials, epochs, searched, progress.say)
        complete = not progress.unfinished
        if not complete:
            with progress.shown(), suppress(KeyboardInterrupt):
                complete = engine(folder, rounds, progress)
        keep_account()
        return _close(folder, mine, complete, command, options.stop_early)


def _close(folder: SweepFolder, mine: list[Trial], complete: bool, command: str, stops_early: bool) -> int:
    if not complete:
        again = command.replace(" --overwrite", "").replace(" --extend", "")
        logger.info(f"Stopped. Every finished trial is kept; go on with:\n  {again}")
        return 1
    states = [folder.state(trial) for trial in mine]
    finished, failed, paused = (states.count(state) for state in (State.FINISHED, State.FAILED, State.PAUSED))
    logger.info(
        f"{finished} of {len(mine)} trials finished. {folder.path}/results.json holds them. Next:\n"
        f"  python cli.py report {shlex.quote(str(folder.path))}"
    )
    if failed:
        logger.info(f"{failed} failed: log.txt in a trial's folder says why. Run the sweep again to try them again.")
    if paused:
        again = command.replace(" --stop_early", "")
        logger.info(f"{paused} paused early, with any checkpoints. Train them to the end with:\n  {again}")
    return 0 if (stops_early and not failed) or finished == len(mine) else 1


def _list_trials(folder: SweepFolder, trials: list[Trial], at_once: int, overwrite: bool) -> None:
    progress = Progress(folder, trials, at_once, anew=overwrite)
    console = Console() if sys.stdout.isatty() else Console(width=160)
    console.print(progress.table(trials))
    logger.info(f"{progress.summary()}.")
    if not trials:  # an array may have more parts than there are trials
        logger.info("This part has no trial.")
        return
    first = (trials if overwrite else progress.unfinished or trials)[0]
    by_hand = shlex.join(trial_arguments(SweepFolder(folder.path.parent), first))
    logger.info(f"One trial by hand:\n  python cli.py {by_hand}")


def _tell_seeds(definition: Mapping[str, object], trials: list[Trial], pilot: list[Path] | SweepFolder) -> None:
    """How many seeds the sweep's question needs, if it asks one."""
    if (question := Question.of(definition)) is None:
        if isinstance(pilot, list):
            raise InputError(
                f"--pilot is {pilot[0]}, but the sweep asks no question. Leave it out, or add to the sweep file "
                "question: {compare: [A, B], figure: test, at_least: 1.0}."
            )
        return
    from experiments.report.answer import improvement, seeds_needed
    from experiments.report.content import make_study
    from experiments.report.sources import read_records

    found = None
    if isinstance(pilot, SweepFolder):
        pilot = [pilot.path] if (pilot.path / "results.json").exists() else []
    if pilot:
        study = make_study(read_records(pilot), None)
        try:
            found = improvement(question, study.groups, study.compared)
        except InputError as error:
            named = ", ".join(sorted({record.method or "none" for record in study.records}))
            raise InputError(
                f"question.compare is {list(question.compare)}, but the pilot {', '.join(map(str, pilot))} has the "
                f"methods {named}; allowed: a pilot of both. Give another --pilot, or leave it out."
            ) from error
    logger.info(seeds_needed(question, found, len({trial.seed for trial in trials})))


def _settings(rest: list[str]) -> dict[str, object]:
    """What is left of the command line, as settings for every trial."""
    settings: dict[str, object] = {}
    tokens = iter(rest)
    for token in tokens:
        name, equals, text = token.removeprefix("--").partition("=")
        if not token.startswith("--") or not name:
            raise InputError(f"{token!r} belongs to no option. {_HELP}")
        if not equals:
            text = next(tokens, "--")
            if text.startswith("--"):
                told = f"--{name} is no option of sweep. As a setting of every trial it needs a value: --{name} VALUE"
                raise InputError(f"{told}. {_HELP}")
        try:
            settings[name] = load_yaml(text)
        except yaml.YAMLError:
            settings[name] = text
    return settings


def _part(trials: list[Trial], part: str | None) -> list[Trial]:
    if part is None:
        return trials
    first, _, count = part.partition("/")
    if not (re.fullmatch(r"\d{1,9}/\d{1,9}", part) and 1 <= int(first) <= int(count)):
        raise InputError(f"part is {shown(part)}; allowed: K/N with 1 <= K <= N, such as 3/20.")
    return trials[int(first) - 1 :: int(count)]


def _check_options(options: argparse.Namespace) -> None:
    if options.jobs < 1:
        raise InputError(f"jobs is {options.jobs}; allowed: 1 or more. Leave --jobs out to run one trial at a time.")
    if options.engine == "ray" and options.jobs != 1:
        raise InputError("--jobs belongs to the local engine; with --engine ray give --cpus_per_trial.")
    for name in _RAY_OPTIONS:
        value = getattr(options, name)
        if options.engine != "ray" and value is not None:
            raise InputError(f"--{name} is given without --engine ray; add it, or leave --{name} out.")
        if isinstance(value, float) and not 0 <= value < float("inf"):  # NaN, too
            raise InputError(f"{name} is {value}; allowed: 0 or more. Give a number such as 1 or 0.5.")
    if options.pilot and not options.dry_run:
        raise InputError(f"--pilot is {options.pilot[0]}, but it belongs to --dry_run. Add that, or leave it out.")
    for (one, other), reason in _APART.items():
        if getattr(options, one) and getattr(options, other):
            raise InputError(f"--{one} and --{other} are given, but {reason} Leave one of them out.")


def _engine(options: argparse.Namespace) -> tuple[Engine, int]:
    """What carries trials out, and how many it runs at once."""
    if options.engine == "ray":
        cpus = 1.0 if options.cpus_per_trial is None else options.cpus_per_trial
        engine = RayEngine(options.ray_address, cpus, options.gpus_per_trial)
        return engine, engine.at_once
    return (run_here, 1) if options.jobs == 1 else (WorkerProcesses(options.jobs), options.jobs)
