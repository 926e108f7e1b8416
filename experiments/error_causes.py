"""Which exceptions are the user's input at fault, whatever library raised them."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.errors import IncompleteRunError, InputError, reason
from common.files import NO_SPACE, no_access, storage_error

# How libraries say that there is no memory left, in lower case.
_NO_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory", "status_alloc_failed")
# How Lightning begins what it raises about settings as something else.
_OF_LIGHTNING = ("`val_check_interval`", "Early stopping conditioned on")


@contextmanager
def told_as_input_errors() -> Iterator[None]:
    """Raises the `InputError` that an exception was raised from or stands for, if there is one, in its place.

    Raises:
        IncompleteRunError: memory ran out.
    """
    try:
        yield
    except Exception as error:
        if (ran_out := out_of_memory(error)) is not None:
            raise ran_out from error
        cause = input_error_behind(error)
        if cause is None or cause is error:
            raise
        raise cause from error


def out_of_memory(error: Exception, last: str = "") -> IncompleteRunError | None:
    """What to tell if an exception says that memory ran out; `last` says where the run's last checkpoint is."""
    known = isinstance(error, MemoryError | RuntimeError | OSError)
    if not known or not (isinstance(error, MemoryError) or any(words in str(error).lower() for words in _NO_MEMORY)):
        return None
    return IncompleteRunError(
        f"out of memory: {reason(error) or 'Python asked for more than there is.'}\nWhat needs less, the first ones "
        "without another result: --trainer.accumulate_grad_batches N (a part of each batch at a time), "
        "--model.gradient_checkpointing true, --data.evaluation_batch_size (in validation, test and predict), a "
        "smaller --data.max_length or --data.batch_size, or what else is at work on this machine." + last
    )


def input_error_behind(error: BaseException | None) -> InputError | None:
    """The `InputError` that an exception was raised from or stands for, if there is one.

    The parser wraps what classes raise. A full disk or quota counts, whoever met it: TensorBoard's writer is a thread
    of its own, and torch's says something else on top.
    """
    if error is not None and (cause := _about_settings(error)) is not None:
        return cause
    seen: set[int] = set()
    while error is not None and id(error) not in seen:  # one raised again from another thread may be its own context
        seen.add(id(error))
        if isinstance(error, InputError):
            return error
        if isinstance(error, OSError) and error.errno in NO_SPACE:
            return _about_settings(error)
        error = error.__cause__ or error.__context__
    return None


def _about_settings(error: BaseException) -> InputError | None:
    """What a library raises while it runs, but because of what the user asked for."""
    if isinstance(error, OSError):
        if error.errno == errno.ENOENT:  # a file that isn't there may be a fault of the program, too
            return None
        path = Path(str(error.filename or "the run folder"))
        told = no_access(path, error) or storage_error(path, error)
        return told if isinstance(told, InputError) else None
    if isinstance(error, RuntimeError) and "home directory" in str(error):  # Path.expanduser
        return InputError(f"a path begins with ~, but {error} Write the whole path, or set HOME or RANKWISE_CACHE.")
    if type(error).__name__ == "MisconfigurationException" or str(error).lstrip().startswith(_OF_LIGHTNING):
        return lightning_refuses(error)
    if isinstance(error, RuntimeError) and "Expected to have finished reduction" in str(error):
        return InputError(
            "a step used only a part of what is trained, which data-parallel processes must be told to expect. Use "
            "--trainer.strategy ddp_find_unused_parameters_true."
        )
    return None


def lightning_refuses(error: BaseException) -> InputError:
    """Lightning's own words about settings, as a message of ours."""
    reason = " ".join(str(error).split())[:600]
    return InputError(f"Lightning refuses these trainer settings: {reason} See `python cli.py fit --help`.")
