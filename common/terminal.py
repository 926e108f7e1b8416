"""Words for the person at the terminal, from one process only, and silence from everyone else's libraries."""

import argparse
import errno
import io
import logging
import os
import re
import shutil
import sys
import threading
import warnings
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

from common.errors import InputError


class _LastingOutput(io.TextIOWrapper):
    """Standard output or error; once it can't be written to, what is printed is dropped and the run goes on."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            self._give_up(error)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())  # whatever is in a buffer goes there, too
        os.close(nowhere)
        if error.errno != errno.EPIPE and self is not sys.stderr:  # a reader such as head has had enough
            print(f"warning: standard output can't be written ({error.strerror}); going on.", file=sys.stderr)


def keep_output_going() -> None:
    """Output that can't be written ends nothing: a closed one, a full disk, a reader that is gone, a poor encoding.

    To be called when a process begins, before anything is printed.
    """
    for number, name in ((0, "stdin"), (1, "stdout"), (2, "stderr")):
        try:
            os.fstat(number)
        except OSError:  # closed: else the next file that is opened would get what is printed
            os.open(os.devnull, os.O_RDWR)
        stream = getattr(sys, name)
        if number == 0 or stream is not getattr(sys, f"__{name}__"):  # a notebook's or a test's own
            continue
        encoding = "utf-8" if stream is None else stream.encoding
        binary = os.fdopen(number, "wb", closefd=False) if stream is None else stream.detach()
        lasting = _LastingOutput(binary, encoding, "backslashreplace", line_buffering=True)
        setattr(sys, name, lasting)
        setattr(sys, f"__{name}__", lasting)


class VerbParser(argparse.ArgumentParser):
    """The options of one verb; what it can't read is an `InputError` that names the option probably meant.

    Options of a run, for a verb that hands on what it doesn't know itself, are no mistakes: `handed_on`.
    """

    def __init__(self, handed_on: Iterable[str] = (), **kwargs: Any) -> None:
        super().__init__(allow_abbrev=False, **kwargs)
        self._handed_on = set(handed_on)
        self._typed: Sequence[str] = ()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        self._typed = args or ()
        options, rest = super().parse_known_args(args, namespace)
        if self._handed_on and self._meant():
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        return options, rest

    def error(self, message: str) -> NoReturn:
        hints = [f" {typed} is no option; did you mean {meant}?" for typed, meant in self._meant().items()]
        raise InputError(f"{message}.{''.join(hints)} See `{self.prog} --help`.")

    def _meant(self) -> dict[str, str]:
        """The options that were mistyped, each with this parser's own one that is nearest to it."""
        own = [option for action in self._actions for option in action.option_strings]
        typed = {word.partition("=")[0] for word in self._typed if re.match(r"--\w+(=|$)", word)}
        unknown = sorted(typed - {*own, *(f"--{name}" for name in self._handed_on)})
        near = {word: get_close_matches(word, own, n=1, cutoff=0.75) for word in unknown}
        return {word: found[0] for word, found in near.items() if found}


def is_first_process() -> bool:
    """Whether this process speaks for the run: rank 0, as torchrun, SLURM and Lightning number them."""
    # All must agree: a process that Lightning starts inside a SLURM step has the step's SLURM_PROCID, 0.
    names = ("RANK", "SLURM_PROCID", "NODE_RANK", "LOCAL_RANK")
    return all(os.environ.get(name, "0") == "0" for name in names)


def as_called(text: str) -> str:
    """Text with commands that begin as this program was begun: `rankwise` once that is installed."""
    return text.replace("python cli.py", "rankwise") if os.path.basename(sys.argv[0]) == "rankwise" else text


def print_columns(rows: list[tuple[str, str]]) -> None:
    """Prints two columns, one line a row: as much as a terminal has room for, 160 characters elsewhere."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 160
    left = max(len(first) for first, _ in rows)
    for first, second in rows:
        line = f"{first:<{left}}  {second}".rstrip()
        print(line if len(line) <= width else f"{line[: width - 1]}…")


class _TerminalHandler(logging.Handler):
    """Prints what a run says on standard output, and warnings on standard error; the first process alone speaks."""

    def emit(self, record: logging.LogRecord) -> None:
        if not is_first_process():
            return
        message = as_called(record.getMessage())
        if record.levelno >= logging.WARNING:
            print(f"warning: {message}", file=sys.stderr, flush=True)
        else:
            print(message, flush=True)


logger = logging.getLogger("rankwise")
logger.setLevel(logging.INFO)
logger.propagate = False
logger.addHandler(_TerminalHandler())


# Each is raised by a library about itself, or about something this project does on purpose.
_FOREIGN_WARNINGS = (
    # lightning 2.6.6 uses jsonargparse APIs that 4.53 calls deprecated
    r"(?s).*(instantiate_classes|By default only one JsonargparseDeprecationWarning)",
    r".*does not have many workers.*",  # rows are tokenised beforehand: workers would only cost
    r".*is smaller than the logging interval.*",  # epoch figures are logged whatever the interval
    r"Checkpoint directory .* exists and is not empty.*",  # the run folder was checked before
    r"The dirpath has changed from.*",  # a run folder may be moved
    r".*LeafSpec.*is deprecated.*",
    r".*treespec, LeafSpec.*",
    r".*recommended to use `self\.log\('.*', \.\.\., sync_dist=True\)`.*",  # values are reduced already
    r".*during `trainer\.(test|validate)\(\)`, it is recommended to use.*",  # no row is shown twice here
    r"(?s).*callbacks used to create the checkpoint need to be provided",  # evaluation needs none of a fit's
    r".*`is_gradient_checkpointing` is deprecated.*",  # peft 0.21 asks transformers in the old way
)


def quiet_libraries() -> None:
    """Leaves the terminal to this project: no adverts, tips or warnings a user can't act on.

    To be called again after Lightning was imported: importing it sets its loggers' levels.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    for name in (
        "lightning.pytorch",
        "lightning.fabric",
        "lightning.fabric.utilities.seed",
        "lightning_fabric",
        "huggingface_hub",
        "bitsandbytes",  # it looks for optional kernels, and says so
    ):
        logging.getLogger(name).setLevel(logging.ERROR)
    for pattern in _FOREIGN_WARNINGS:
        warnings.filterwarnings("ignore", message=pattern)
    threading.excepthook = _note_failed_thread


def _note_failed_thread(failed: threading.ExceptHookArgs) -> None:
    """TensorBoard's writer, a thread, hands its error on to whoever logs next: here it is one line."""
    if isinstance(failed.exc_value, OSError):
        logger.warning(f"TensorBoard's file can't be written: {failed.exc_value}")
    else:
        threading.__excepthook__(failed)
