"""Read-only and full file systems, mounted for the test: one message, nothing lost, and the same end afterwards."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command_line import differences, outcome
from tests.hostile.real_disks import SIZES

PROJECT = Path(__file__).parents[2]
OWN_MOUNTS = ["unshare", "-rm"]


def may_mount(folder: Path) -> bool:
    """Whether this system lets a process mount something in namespaces of its own."""
    if shutil.which("unshare") is None:
        return False
    command = [*OWN_MOUNTS, "mount", "-t", "tmpfs", "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True).returncode == 0


@pytest.mark.long
def test_read_only_and_full_file_systems_cost_one_message(finished_run, tmp_path):
    if not may_mount(tmp_path):
        pytest.skip("mounts need unshare, and a system that lets users have namespaces")
    config, runs = finished_run
    shutil.copytree(runs / "tiny", tmp_path / "runs" / "tiny")
    shutil.copy(config, tmp_path / "tiny.yaml")
    command = [*OWN_MOUNTS, sys.executable, "-m", "tests.hostile.real_disks", str(tmp_path)]
    done = subprocess.run(command, cwd=PROJECT, env=dict(os.environ), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    cases = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"case"')]
    assert [case["case"] for case in cases] == ["begin", "resume", "overwrite", *(f"full {size}" for size in SIZES)]
    for case in cases:
        assert case["code"] == 2 and case["said"].startswith("error: "), case
        assert "Traceback" not in case["said"] and len(case["said"].splitlines()) <= 10, case
    for case in cases[:3]:
        assert case["kept"] and "Read-only file system" in case["said"], case
    for case, size in zip(cases[3:], SIZES, strict=True):
        assert "No space left" in case["said"] and case["again"] == 0, case
        assert differences(outcome(runs / "tiny"), outcome(tmp_path / f"after_{size}")) == []
    assert any(case["resumed"] for case in cases[3:])
