"""The verbs fit, validate, test, predict and export as they are typed: options into a `Run`, words for what came."""

import shlex
import sys
import time
from contextlib import nullcontext, redirect_stdout
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException

from callbacks.predictions import is_standard_output
from common.errors import InputError
from common.terminal import VerbParser, is_first_process, logger, quiet_libraries
from experiments.arguments import MEANINGS
from experiments.closing_table import print_evaluation
from experiments.config_files import locate_configs
from experiments.error_causes import told_as_input_errors
from experiments.export import settings_of_export
from experiments.export_formats import FORMATS, ExportOptions
from experiments.options import print_help
from experiments.resumption import was_requeued
from experiments.run import Run
from experiments.run_folder import RunFolder
from experiments.settings import Settings, parse
from experiments.watched_ddp import COURTESY_SECONDS

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def run(arguments: list[str], stop_after_epoch: int | None = None) -> int:
    """Runs one verb and returns the exit code: see `Run.train` for `stop_after_epoch`. Bad input is an `InputError`."""
    quiet_libraries()
    try:
        with told_as_input_errors():
            return _run(arguments, stop_after_epoch)
    except InputError:
        if not is_first_process():  # most likely the first one says the same
            time.sleep(COURTESY_SECONDS)
        raise


def _run(arguments: list[str], stop_after_epoch: int | None) -> int:
    helped = [word for word in arguments if word not in ("-h", "--help")]
    typed, base = _below(helped)
    if len(helped) < len(arguments):
        settings = parse(typed if base or locate_configs(typed)[1] else [*typed, "--config", "quickstart.yaml"], base)
        source = ", ".join(path.name for path in settings.configs) or "this run"
        print_help(typed[0], settings.values.as_dict(), source)
        return 0
    with TemporaryDirectory() as folder:
        file = Path(folder) / "texts.txt"
        asked = Run(_with_texts(parse(typed, base), file))
        table_alone = is_standard_output(asked.settings.values.get("output") or "")
        try:
            with redirect_stdout(sys.stderr) if table_alone else nullcontext():
                return _follow(asked, arguments, stop_after_epoch)
        except InputError as error:
            if str(file) not in str(error):
                raise
            raise InputError(str(error).replace(str(file), "the given text")) from error  # nobody knows that file


def _with_texts(settings: Settings, file: Path) -> Settings:
    """Texts that are typed or come from standard input are read from a file, and answered on standard output.

    `InputError`: texts are typed, and a file of them is, too.
    """
    texts = settings.values.get("text")
    if texts:
        if any(word.replace(".init_args.", ".").startswith("--data.predict_file") for word in settings.typed):
            raise InputError("--text is given, and a file of texts, too; allowed: one of them. Leave the other out.")
        lines = [" ".join(text.replace("\\t", "\t").splitlines()) for text in texts]
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    elif settings.verb == "predict" and settings.values.data.init_args.get("predict_file") == "-":
        file.write_bytes(sys.stdin.buffer.read())  # its lines are those of a file
    else:
        return settings
    return settings.changed({"data.predict_file": str(file), "output": settings.values.output or "-"})


def _follow(asked: Run, arguments: list[str], stop_after_epoch: int | None) -> int:
    for path in asked.settings.configs:
        logger.info(f"config: {path}")
    try:
        _carry_out(asked, stop_after_epoch)
    except (SIGTERMException, SystemExit):  # Lightning turns a second Ctrl-C into the latter
        if not asked.signals.requeue():
            logger.info(_how_to_go_on(arguments, asked.folder))
        return 1
    return 0


def _carry_out(asked: Run, stop_after_epoch: int | None) -> None:
    verb, values = asked.settings.verb, asked.settings.values
    ckpt_path = values.ckpt_path
    if verb == "fit":
        if ckpt_path is None and was_requeued(asked.folder):
            logger.info("SLURM has started this job again.")
            ckpt_path = "last"
        asked.train(ckpt_path, values.overwrite, stop_after_epoch)
        return
    if ckpt_path is None and values.export is None:
        raise InputError(
            f"{verb} needs trained weights, and ckpt_path isn't given; allowed: --ckpt_path best, last or FILE, "
            f"--export FOLDER, or a run: python cli.py {verb} RUN."
        )
    if verb == "predict":
        asked.predict(ckpt_path, values.output)
        return
    split = "validation" if verb == "validate" else "test"
    print_evaluation(f"{asked.folder.path.name}: {split}", asked.evaluate(split, ckpt_path))


def _below(arguments: list[str]) -> tuple[list[str], dict[str, Any] | None]:
    """The verb with its options, and the settings below them: those of a run that is named, or of an export."""
    verb, *options = arguments
    if verb == "fit":
        return arguments, None
    places = VerbParser(prog=f"python cli.py {verb}", add_help=False)
    places.add_argument("--runs_dir", default="runs")
    places.add_argument("--export")
    given, rest = places.parse_known_args(options)
    is_run = bool(options) and not options[0].startswith("-")
    rest = rest[1:] if is_run else rest
    has_file = verb == "predict" and bool(rest) and (rest[0] == "-" or not rest[0].startswith("-"))
    if has_file:
        rest[0] = f"--data.predict_file={rest[0]}"
    if is_run:
        if given.export is not None:
            raise InputError(f"{verb} is given the run {options[0]!r} and --export, too; allowed: one of them.")
        settings = RunFolder.find(options[0], given.runs_dir).settings()
        return [verb, *rest], {**settings, "ckpt_path": "best"}
    if given.export is not None:
        words = [verb, f"--export={given.export}", f"--runs_dir={given.runs_dir}", *rest] if has_file else arguments
        return words, settings_of_export(Path(given.export).expanduser().resolve())
    return arguments, None


def _how_to_go_on(arguments: list[str], folder: RunFolder) -> str:
    if arguments[0] != "fit":
        return "\nStopped by a signal."
    if not (folder.checkpoints / "last.ckpt").exists():
        return f"\nStopped by a signal before the first checkpoint. Start again: python cli.py {shlex.join(arguments)}"
    kept = [argument for argument in arguments if argument.partition("=")[0] != "--overwrite"]
    # the last one counts: a run that began at another checkpoint goes on from its own
    resume = [] if kept[-1] == "--ckpt_path=last" or kept[-2:] == ["--ckpt_path", "last"] else ["--ckpt_path", "last"]
    return f"\nStopped by a signal; last.ckpt is written. Go on with:\n  python cli.py {shlex.join([*kept, *resume])}"


def _export_parser() -> VerbParser:
    parser = VerbParser(
        prog="python cli.py export",
        description="Writes a run's model into a folder that other programs load, and checks that it says the same.",
        epilog="Other options go to the run's settings, such as --model.backbone FOLDER or --data.data_dir FOLDER.",
        handed_on=MEANINGS,
    )
    add = parser.add_argument
    add("run", help="Run folder, or a run's name below --runs_dir.")
    told = "peft: PEFT's own folder, as a rule plain LoRA; merged: the whole model; native: R blocks in one file."
    add("--format", required=True, choices=list(FORMATS), help=told)
    add("--output", type=Path, help="Folder to write; RUN/exports/FORMAT if not given.")
    add("--ckpt_path", default="best", help="best (default), last or a file.")
    add("--runs_dir", default="runs", help="Folder that holds the run folders.")
    add("--force", action="store_true", help="Export a run whose ranks are still soft.")
    add("--budget", type=int, help="Cut the adapter to so many entries of R (LoRA-XS), or parameters (LoRA).")
    add("--dtype", choices=list(_DTYPES), help="Type of merged weights; float32 if not given.")
    add("--max_shard_size", default="5GB", help="Largest file of a merged model (5GB).")
    add("--with_factors", action="store_true", help="native: put in the frozen factors, cut to the ranks.")
    add("--without_head", action="store_true", help="native: leave the head out.")
    told = "Largest allowed difference of logits (1e-5), times the largest logit if above 1."
    add("--tolerance", type=float, default=1e-5, help=told)
    return parser


def run_export(arguments: list[str]) -> int:
    """Exports a run and returns the exit code; raises what `Run.export` does."""
    quiet_libraries()
    asked, overrides = _export_parser().parse_known_args(arguments)
    chosen = {field.name: getattr(asked, field.name) for field in fields(ExportOptions)}
    options = ExportOptions(**{**chosen, "dtype": _DTYPES.get(asked.dtype)})
    try:
        run = Run.open(asked.run, asked.runs_dir, overrides, verb="validate")
    except InputError as error:
        own, those_of_run = "`python cli.py export --help` lists export's options", "`python cli.py validate --help`"
        raise InputError(str(error).replace(f"{those_of_run} lists all", f"{own}, {those_of_run} the run's")) from error
    output = shlex.quote(str(run.export(asked.format, asked.output, asked.ckpt_path, options)))
    logger.info(f"Use it: python cli.py predict --export {output} --text 'A sentence.'")
    return 0
