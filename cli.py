"""Rankwise: low-rank adapters whose ranks allocate themselves. The one entry to everything."""

import os
import re
import signal
import sys
import threading
import traceback
from importlib import import_module
from types import ModuleType

VERSION = "0.1.0"
USAGE = """\
usage: python cli.py fit --config NAME.yaml [options]
       python cli.py VERB RUN [options]    RUN: a run's folder or its name

verbs
  fit        train, validate every epoch, test the best epoch, write runs/NAME/
  validate   evaluate a run on the validation split
  test       evaluate a run on the labelled test split
  predict    answer sentences: predict RUN --text "..." (repeatable),
             predict RUN FILE, or - for standard input; the test split if none
  export     for use elsewhere: export RUN --format peft|merged|native
             (validate, test and predict take it by --export DIR)
  sweep      run a grid of trials, killed and resumed at will
             (--config sweeps/NAME.yaml, --dry_run, --jobs N)
  report     tables, figures and one HTML page: report FOLDER [FOLDER ...]
  configs    list the configs that come with Rankwise

start here
  python cli.py fit --config quickstart.yaml
      a real model without a hub, in minutes on two cores
  python cli.py fit --config cola_adaptive.yaml
      the main job: adaptive LoRA-XS, roberta-large on CoLA
  python cli.py fit --config cola_adaptive.yaml --ckpt_path last
      go on where it stopped
  python cli.py test cola_adaptive
      the best epoch's figures on the test split
  tensorboard --logdir runs
      watch the ranks move
  python cli.py sweep --config sweeps/quickstart_sweep.yaml
      a small grid, ten minutes or so on two cores
  python cli.py report runs/quickstart_sweep
      what came out, as one page

options that work with every config
  --config NAME          a path, or a name in configs/; several are merged
  --run_name NAME        folder of the run (default: the config's name)
  --runs_dir FOLDER      folder of all runs (default: runs)
  --overwrite            delete a run of this name first
  --ckpt_path WHICH      last, best or a file (validate, test, predict: best)
  --seed_everything N    seed of every random choice (default 42)
  --model.backbone NAME  hub name, folder, or package:NAME for a model carried
                         by an installed package
  --model.adapter.*      rank_min, rank_max, rank_average, allocation, ...
  --model.optimizer.*    learning_rate, head_learning_rate, schedule, ...
  --data.*               task, data_dir, batch_size, max_length, ...
  --trainer.*            max_epochs, precision, devices, ... (Lightning's)
  --print_config         show the complete configuration and stop
  --debug                show the traceback of an error

  python cli.py fit --config NAME --help lists every option with its meaning
  and its value there. python cli.py --version says which version this is.
exit codes: 0 finished, 2 the input is at fault (one message says what to do),
1 anything else."""

VERBS = {
    **dict.fromkeys(("fit", "validate", "test", "predict"), "experiments.command_line:run"),
    "export": "experiments.command_line:run_export",
    "sweep": "experiments.sweep.command:run_sweep",
    "report": "experiments.report.command:run_report",
    "configs": "experiments.config_files:list_configs",
}


def main(arguments: list[str] | None = None) -> int:
    """Runs one verb and returns the exit code."""
    from common.terminal import as_called, is_first_process, keep_output_going

    keep_output_going()
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(as_called(USAGE))  # without importing anything more: answers at once
        return 0
    if arguments[0] == "--version":
        from common.code_version import code_version

        print(f"rankwise {VERSION} ({code_version() or 'unknown commit'})")
        return 0
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    from common.errors import IncompleteRunError, InputError, VerificationError

    try:
        return _run(arguments)
    except (InputError, IncompleteRunError, VerificationError) as error:
        if debug:
            traceback.print_exc()
        print(f"error: {_in_few_words(as_called(str(error)))}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    except KeyboardInterrupt:
        if is_first_process():  # each process gets the signal
            print("\nStopped by Ctrl-C.", file=sys.stderr)
        return 1


def _in_few_words(message: str) -> str:
    """At most ten lines that a terminal shows as they are, whatever a name, a value or another library has in them."""
    first = message.split("\n")[:10]
    lines = ["".join(one if one.isprintable() else repr(one)[1:-1] for one in line) for line in first]
    return "\n".join(line if len(line) <= 1000 else f"{line[:1000]}…" for line in lines)


def _run(arguments: list[str]) -> int:
    """The verb's exit code; each verb imports no more than it needs.

    `InputError`: the input is at fault, whatever library found out.
    """
    from common.errors import check_one_of
    from common.machine import keep_freed_memory
    from common.terminal import quiet_libraries

    verb, *arguments = _joined(arguments)
    check_one_of("the verb", verb, VERBS)
    quiet_libraries()
    keep_freed_memory()
    module, _, name = VERBS[verb].partition(":")
    carry_out = getattr(_imported(module), name)
    from experiments.error_causes import told_as_input_errors

    with told_as_input_errors():
        return carry_out([verb, *arguments] if name == "run" else arguments)


def _joined(arguments: list[str]) -> list[str]:
    """`--run_name -n` as `--run_name=-n`: the parsers would take -n for an option of theirs."""
    joined: list[str] = []
    for word in arguments:
        before = joined[-1] if joined else ""
        if re.match(r"-[^-\d.]", word) and word not in ("-c", "-h") and re.fullmatch(r"--[^=]+", before):
            joined[-1] = f"{before}={word}"
        else:
            joined.append(word)
    return joined


def _imported(module: str) -> ModuleType:
    """A module; Ctrl-C meanwhile ends the process with words, which libraries would turn into errors of their own."""
    if threading.current_thread() is not threading.main_thread():
        return import_module(module)
    before = signal.signal(signal.SIGINT, _stop_at_once)
    try:
        return import_module(module)
    finally:
        signal.signal(signal.SIGINT, before)


def _stop_at_once(number: int, frame: object) -> None:
    from common.terminal import is_first_process

    if is_first_process():
        os.write(2, b"\nStopped by Ctrl-C.\n")
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
