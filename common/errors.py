"""The exceptions that cli.py shows as one message: bad input, a run that fell short, files that say something else."""


class InputError(Exception):
    """The input is at fault: the message gives the value, what is allowed and what to do next.

    cli.py prints the message alone and ends with exit code 2; every other exception ends with 1.
    """


class VerificationError(Exception):
    """The files of an export don't say what the run says, so they aren't kept.

    cli.py prints the message alone and ends with exit code 1: the input needn't be at fault.
    """


class IncompleteRunError(Exception):
    """A run ended short of what it was asked for; all it came to is written.

    cli.py prints the message alone and ends with exit code 1.
    """


class DivergedRunError(IncompleteRunError):
    """A run's numbers stopped being finite."""


def one_of(what: str, value: object, allowed: list[str] | tuple[str, ...]) -> InputError:
    """An `InputError` for a value outside a fixed set, naming the closest allowed ones first."""
    from difflib import get_close_matches

    near = get_close_matches(str(value), allowed, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(repr(name) for name in near)}?" if near else ""
    return InputError(f"{what} is {value!r}; allowed: {', '.join(allowed)}.{hint}")
