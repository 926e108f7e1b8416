"""Which code ran: results that can't be traced to it can't be repeated."""

import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent


@cache
def code_version() -> str | None:
    """The git commit of this code as it was when first asked for, the installed package's version, or None.

    Returns:
        Twelve digits of the commit, with `-dirty` behind where tracked files differ from it.
    """
    if _git("ls-files", "--error-unmatch", "cli.py") is not None:  # else a repository that holds, say, a .venv with us
        return _git("describe", "--always", "--abbrev=12", "--exclude=*", "--dirty")
    try:
        return version("rankwise")
    except PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    """What git answers about the folder of this code; None where it can't."""
    try:
        done = subprocess.run(["git", "-C", str(_ROOT), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
