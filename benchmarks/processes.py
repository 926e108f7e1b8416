"""Fresh processes for what is measured, and what they print."""

import json
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.settings import Settings
from common.errors import InputError

ROOT = Path(__file__).resolve().parents[1]


@cache
def run_side(name: str, settings: Settings, repetition: int) -> dict[str, Any]:
    """Runs one side in its own process and returns what it measured; once per repetition for all pairs with it."""
    printed = run_python(["-m", "benchmarks.side", name, *settings.arguments()], settings.environment())
    figures = last_json_line(printed)
    if figures["threads"] != settings.thread_count:
        raise RuntimeError(f"{name} ran with {figures['threads']} threads instead of {settings.thread_count}")
    if settings.device not in ("auto", figures["device"]):
        raise RuntimeError(f"{name} ran on {figures['device']} instead of {settings.device}")
    return figures


def run_python(arguments: list[str], environment: dict[str, str]) -> str:
    """Runs Python in the project's folder and returns its standard output.

    Raises:
        InputError: the process found its input at fault (exit code 2).
        RuntimeError: it failed in any other way; the message holds the end of what it printed.
    """
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode == 0:
        return done.stdout
    last = "\n".join(done.stderr.strip().splitlines()[-15:])
    if done.returncode == 2:
        raise InputError(last.removeprefix("error: "))
    raise RuntimeError(f"{' '.join(command)} ended with exit code {done.returncode}:\n{last}")


def wall_seconds(arguments: list[str], environment: dict[str, str]) -> float:
    """Seconds from starting Python with these arguments to its end."""
    started = time.perf_counter()
    run_python(arguments, environment)
    return time.perf_counter() - started


def last_json_line(text: str) -> dict[str, Any]:
    """The last line that is a JSON object; a side prints other lines before it."""
    lines = [line for line in text.splitlines() if line.startswith("{") and line.endswith("}")]
    if not lines:
        raise RuntimeError(f"a measured process printed no figures, but:\n{text[-1000:]}")
    return json.loads(lines[-1])
