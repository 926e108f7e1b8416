"""The exceptions that cli.py shows as one message: bad input, a run that fell short, files that say something else."""

from collections.abc import Collection, Sequence

LONGEST_NAME = 60  # characters of a name that a message shows


class InputError(Exception):
    """The input is at fault: the message gives the value, what is allowed and what to do next.

    cli.py prints the message alone and ends with exit code 2; every other exception ends with 1.
    """


class VerificationError(Exception):
    """The files of an export don't say what the run says, so they aren't kept.

    cli.py prints the message alone and ends with exit code 1: the input needn't be at fault.
    """


class IncompleteRunError(Exception):
    """A run ended before it had done all that was asked for; its results so far are written.

    cli.py prints the message alone and ends with exit code 1.
    """


class PausedRunError(IncompleteRunError):
    """A run ended at the epoch it was asked to pause after; last.ckpt is written."""


class DivergedRunError(IncompleteRunError):
    """A run's numbers stopped being finite."""


def one_of(what: str, value: object, allowed: list[str] | tuple[str, ...]) -> InputError:
    """An `InputError` for a value outside a fixed set, naming the closest allowed ones first."""
    from difflib import get_close_matches

    near = get_close_matches(str(value), allowed, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(repr(name) for name in near)}?" if near else ""
    return InputError(f"{what} is {shown(value)}; allowed: {listing(allowed, limit=60, room=700)}.{hint}")


def check_one_of(what: str, value: object, allowed: Collection[str]) -> None:
    """Raises `one_of` unless the value is among the allowed ones."""
    if value not in allowed:
        raise one_of(what, value, tuple(allowed))


def shown(value: object) -> str:
    """A value for a message, cut to a few words."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"


def listing(names: Sequence[str], limit: int = 20, room: int = 400) -> str:
    """Names for a message: the first few, each cut to a few words, and how many there are."""
    short: list[str] = []
    for name in names[:limit]:
        plain = name if name.isprintable() else repr(name)[1:-1]
        short.append(plain if len(plain) <= LONGEST_NAME else f"{plain[:LONGEST_NAME]}…")
        room -= len(short[-1])
        if room < 0:
            break
    more = f", … ({len(names)} in all)" if len(names) > len(short) else ""
    return (", ".join(short) or "nothing") + more


def reason(error: Exception) -> str:
    """The first line of what another library says, cut to a few sentences."""
    return str(error).strip().split("\n")[0][:300]
