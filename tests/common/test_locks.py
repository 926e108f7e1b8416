"""Lock files between processes, and the cores a process may use."""

import multiprocessing
import os
import time

import pytest

from common import cores
from common.cores import usable_cores
from common.locks import locked, one_maker


def _make(path, made):
    with one_maker(path):
        if not path.exists():
            time.sleep(0.1)
            made.put(os.getpid())
            path.write_text("made")


def test_one_process_makes_what_several_want_and_nothing_else_is_left(tmp_path):
    context = multiprocessing.get_context("fork")
    made, path = context.Queue(), tmp_path / "factors"
    processes = [context.Process(target=_make, args=(path, made)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(20)
        assert process.exitcode == 0
    made.get(timeout=5)
    assert made.empty()
    assert [file.name for file in tmp_path.iterdir()] == ["factors"]


def test_where_no_lock_can_be_had_the_work_is_done_all_the_same(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with one_maker(tmp_path / "file" / "factors"):
        done = True
    assert done


def test_a_lock_that_is_held_is_refused(tmp_path):
    with locked(tmp_path / "lock"), pytest.raises(BlockingIOError), locked(tmp_path / "lock"):
        pass
    with locked(tmp_path / "lock", shared=True), locked(tmp_path / "lock", shared=True):
        pass


@pytest.mark.parametrize(
    ("quota", "expected"), [("150000 100000", 1), ("300000 100000", 3), ("50000 100000", 1), ("max 100000", 8)]
)
def test_a_containers_share_limits_the_cores(tmp_path, monkeypatch, quota, expected):
    (tmp_path / "cpu.max").write_text(f"{quota}\n")
    monkeypatch.setattr(cores, "_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    assert usable_cores() == expected
