"""The live table of a sweep, on a terminal."""

import re
import sys
from pathlib import Path

import pytest

from tests.command_line import write_config
from tests.docs.screenshots import terminal
from tests.experiments.sweeps import write_sweep

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.mark.long
def test_a_terminal_shows_what_is_done_running_and_left(tmp_path, tiny_bert, cola_folder):
    path = write_sweep(tmp_path, write_config(tmp_path, tiny_bert, cola_folder))
    cli = Path(__file__).resolve().parents[2] / "cli.py"
    command = [sys.executable, str(cli), "sweep", "--config", str(path), "--runs_dir", str(tmp_path)]
    seen = _CONTROL.sub("", terminal(command, columns=140, lines=40))
    tables = seen.split("small")  # each drawing of the table begins with the sweep's name
    running = [table for table in tables if re.search(r"│ running │ (epoch|[^│]*) *│ \d:\d\d", table)]
    assert running, seen
    assert any("0 of 2 done, 1 running, 1 left" in table for table in tables), seen
    assert re.search(
        r"1 of 2 done, 1 running, 0 left, best \w+ \w+ -?\d\.\d{4} \(learning_rate_\S+\), about \d:\d\d:\d\d left", seen
    )
    assert "2 of 2 done, 0 running, 0 left, best " in seen
    assert "Traceback" not in seen
