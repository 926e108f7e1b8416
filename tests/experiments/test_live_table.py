"""The live table of a sweep, on a terminal."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command_line import write_config
from tests.experiments.sweeps import write_sweep

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def seen_on_a_terminal(command: list[str], environment: dict[str, str]) -> tuple[int, str]:
    """Exit code and everything that was written to a terminal of 140 columns, without control sequences."""
    ours, theirs = pty.openpty()
    running = subprocess.Popen(command, stdout=theirs, stderr=theirs, stdin=theirs, env=environment)
    os.close(theirs)
    seen = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        seen += part
    os.close(ours)
    return running.wait(), _CONTROL.sub("", seen.decode(errors="replace"))


@pytest.mark.long
def test_a_terminal_shows_what_is_done_running_and_left(tmp_path, tiny_bert, cola_folder):
    path = write_sweep(tmp_path, write_config(tmp_path, tiny_bert, cola_folder))
    cli = Path(__file__).resolve().parents[2] / "cli.py"
    command = [sys.executable, str(cli), "sweep", "--config", str(path), "--runs_dir", str(tmp_path)]
    code, seen = seen_on_a_terminal(command, {**os.environ, "TERM": "xterm", "COLUMNS": "140", "LINES": "40"})
    assert code == 0, seen
    tables = seen.split("small")  # each drawing of the table begins with the sweep's name
    running = [table for table in tables if re.search(r"│ running │ (epoch|[^│]*) *│ \d:\d\d", table)]
    assert running, seen
    assert any("0 of 2 done, 1 running, 1 left" in table for table in tables), seen
    assert re.search(
        r"1 of 2 done, 1 running, 0 left, best \w+ \w+ -?\d\.\d{4} \(learning_rate_\S+\), about \d:\d\d:\d\d left", seen
    )
    assert "2 of 2 done, 0 running, 0 left, best " in seen
    assert "Traceback" not in seen
