"""Short versions of the long commands of this folder, and what they would say if something were wrong."""

import copy
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from common.files import write_text
from tests.command_line import differences
from tests.soak import long_run
from tests.soak.kill_moments import WRITING, kill_while_writing
from tests.soak.kills import Kill

PROJECT = Path(__file__).parents[2]


@pytest.mark.long
def test_runs_that_are_killed_at_random_end_like_undisturbed_ones(tmp_path):
    command = [sys.executable, "-m", "tests.soak.kills", "--kills", "3", "--seed", "2"]
    output = ["--folder", str(tmp_path), "--output", str(tmp_path / "kills.json")]
    done = subprocess.run([*command, *output], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    content = json.loads((tmp_path / "kills.json").read_text())
    assert content["kills"] >= 3
    assert all(not run["different"] for run in content["runs"])


def test_outcomes_that_differ_are_told_apart():
    whole = {"metrics": "x", "checkpoints": {"R": torch.zeros(2)}, "losses": [1.0, 2.0]}
    assert differences(whole, copy.deepcopy(whole)) == []
    changed = {"metrics": "y", "checkpoints": {"R": torch.tensor([0.0, 1e-45])}, "losses": [1.0]}
    assert [line.split(":")[0] for line in differences(whole, changed)] == ["/metrics", "/checkpoints/R", "/losses"]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # from Python 3.12 on
@pytest.mark.parametrize("moment", WRITING)
def test_a_kill_while_writing_leaves_the_old_file_or_the_new_one(tmp_path, moment):
    (tmp_path / "second").write_text("old")
    process = os.fork()
    if process == 0:
        kill_while_writing(moment, 2)
        write_text(tmp_path / "first", "one")
        write_text(tmp_path / "second", "two")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL
    assert (tmp_path / "first").read_text() == "one"
    assert (tmp_path / "second").read_text() == ("two" if moment == "after_rename" else "old")
    left = {path.name: path.read_text() for path in tmp_path.glob("*.partial")}
    expected = {"half_written": ["t"], "before_rename": ["two"], "after_rename": []}
    assert list(left.values()) == expected[moment]


def test_every_moment_is_drawn():
    draw = random.Random(0)
    drawn = [Kill.drawn(draw) for _ in range(500)]
    assert len({(kill.where, kill.how) for kill in drawn}) == 6 * 4 + 3 + 3


@pytest.mark.long
def test_a_long_run_holds_no_more_files_threads_and_bytes(tmp_path):
    figures = long_run.measure(long_run.LEAST_STEPS, tmp_path)["figures"]
    del figures["memory_kib_per_100_steps"]  # so short a run is still warming up
    assert all(figure <= long_run.BUDGET[name] for name, figure in figures.items()), figures


def test_growth_of_memory_files_and_threads_is_seen():
    notes = [
        {"step": step, "memory": 2048 * step, "files": 7 + (step > 50), "threads": 2} for step in range(25, 200, 25)
    ]
    figures = long_run.summarise(notes, event_bytes=1024 * 175, epochs=3, picture_bytes=4096)
    assert list(figures.values()) == [pytest.approx(200.0), 1, 0, 1.0, 1.0]
