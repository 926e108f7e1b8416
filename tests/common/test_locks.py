"""Lock files between processes, and the cores a process may use."""

import math
import multiprocessing
import os
import time
from contextlib import ExitStack

import pytest

from common import machine
from common.errors import InputError
from common.locks import cache_lock, locked
from common.machine import usable_cores


def _make(path, made):
    with cache_lock(path):
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


@pytest.mark.parametrize("linked", [False, True])
def test_where_no_lock_can_be_had_the_work_is_done_all_the_same(tmp_path, linked):
    (tmp_path / "file").write_text("no folder")
    (tmp_path / ".factors.lock").symlink_to(tmp_path / "file")
    with cache_lock(tmp_path / ("factors" if linked else "file/factors")):
        done = True
    assert done and (tmp_path / "file").read_text() == "no folder"


def test_a_lock_that_is_held_is_refused_and_names_its_holder(tmp_path):
    path = tmp_path / "lock"
    with locked(path):
        assert path.read_text().startswith(f"process {os.getpid()} on ")
        with pytest.raises(BlockingIOError), locked(path):
            pass
    with locked(path), locked(tmp_path / "other", discard=True):
        pass
    assert [file.name for file in tmp_path.iterdir()] == ["lock"]


def test_a_file_deleted_between_opening_and_locking_is_no_lock(tmp_path, monkeypatch):
    """One process ends and deletes the file that a second has just opened; a third one makes it anew and holds it."""
    path, first, third, opening = tmp_path / "lock", ExitStack(), ExitStack(), os.open
    first.enter_context(locked(path, discard=True))

    def open_then_lose(place, *options):
        descriptor = opening(place, *options)
        if os.fspath(place) == str(path):
            monkeypatch.undo()
            first.close()
            third.enter_context(locked(path))
        return descriptor

    monkeypatch.setattr(os, "open", open_then_lose)
    with third, pytest.raises(BlockingIOError), locked(path):
        pass


def _hold_until_killed(path, held):
    with locked(path, discard=True):
        held.set()
        time.sleep(60)


def test_a_killed_holder_holds_no_longer(tmp_path):
    held = multiprocessing.get_context("fork").Event()
    process = multiprocessing.get_context("fork").Process(target=_hold_until_killed, args=(tmp_path / "lock", held))
    process.start()
    assert held.wait(10)
    with pytest.raises(BlockingIOError), locked(tmp_path / "lock"):
        pass
    process.kill()
    process.join(10)
    with locked(tmp_path / "lock", wait=math.inf):
        assert (tmp_path / "lock").read_text().startswith(f"process {os.getpid()} on ")


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_lock_that_is_a_link_costs_its_target_nothing(tmp_path, link):
    (tmp_path / "thesis.tex").write_text("years of work")
    link(tmp_path / "thesis.tex", tmp_path / "lock")
    with pytest.raises(InputError, match="is a link"), locked(tmp_path / "lock", discard=True):
        pass
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_lock_made_anew_by_somebody_else_is_left_to_them(tmp_path):
    path = tmp_path / "lock"
    with locked(path, discard=True):
        path.unlink()
        path.write_text("theirs")
    assert path.read_text() == "theirs"


@pytest.mark.parametrize(
    ("quota", "expected"), [("150000 100000", 1), ("300000 100000", 3), ("50000 100000", 1), ("max 100000", 8)]
)
def test_a_containers_share_limits_the_cores(tmp_path, monkeypatch, quota, expected):
    (tmp_path / "cpu.max").write_text(f"{quota}\n")
    monkeypatch.setattr(machine, "_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    assert usable_cores() == expected
