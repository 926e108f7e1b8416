"""Which code ran: results that can't be traced to it can't be repeated."""

import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent


@cache
def code_version() -> str | None:
    """This code's commit when first asked for (12 digits, -dirty if changed), the package's version, or None."""
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
