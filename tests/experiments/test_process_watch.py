"""What a watch makes of children that end, of a launcher that is gone, and of repeated wishes to stop."""

import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from common.errors import IncompleteRunError
from experiments import process_watch, watched_ddp
from experiments.process_watch import IMPATIENT_STOP_SECONDS, STOP_SECONDS, ProcessWatch
from experiments.watched_ddp import WatchedLauncher


class Ended(BaseException):
    """Stands for the end of this process."""


@pytest.fixture(autouse=True)
def ends(monkeypatch):
    """Ending the process raises `Ended` with the exit code instead."""

    def end(code):
        raise Ended(code)

    monkeypatch.setattr(os, "_exit", end)
    monkeypatch.setattr(process_watch, "_POLL_SECONDS", 0.0)


def child(code: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-S", "-c", code])


def make_watch(*children, launcher=None, agreed=False):
    trainer = SimpleNamespace(training=True, global_rank=0, received_sigterm=agreed)
    return ProcessWatch(trainer, list(children), launcher)


@pytest.mark.parametrize(
    ("code", "exit_code", "words"),
    [
        ("raise SystemExit(1)", 1, "process 2 of 3 ended with exit code 1"),
        ("raise SystemExit(2)", 2, "process 2 of 3 ended with exit code 2"),
        ("import os; os.kill(os.getpid(), 9)", 1, "process 2 of 3 was ended by SIGKILL; the system does this"),
    ],
)
def test_a_failed_child_ends_all(capsys, code, exit_code, words):
    waiting, failed = child("import time; time.sleep(600)"), child(code)
    failed.wait()
    with pytest.raises(Ended) as ended:
        make_watch(waiting, failed).run()
    assert ended.value.args == (exit_code,)
    assert words in (message := capsys.readouterr().err)
    assert ("--ckpt_path last" in message) == (exit_code == 1)  # a wrong input stays wrong
    assert waiting.wait(timeout=10) == -signal.SIGKILL


def test_children_that_finish_or_stop_as_agreed_end_nothing():
    finished, stopped = child(""), child("raise SystemExit(1)")
    for process in (finished, stopped):
        process.wait()
    make_watch(finished).report_lost_child()
    make_watch(finished, stopped, agreed=True).report_lost_child()
    with pytest.raises(Ended):
        make_watch(finished, stopped).report_lost_child()


def test_a_process_does_not_outlive_its_launcher(capsys):
    with pytest.raises(Ended):
        make_watch(launcher=os.getppid() + 1).run()
    assert "the process that started this one is gone" in capsys.readouterr().err


def test_a_stop_takes_no_longer_than_allowed_and_less_when_asked_again(monkeypatch, capsys):
    now = 1000.0
    monkeypatch.setattr(process_watch.time, "monotonic", lambda: now)
    watch = make_watch()
    for later, deadline in [(0, STOP_SECONDS), (1, STOP_SECONDS), (30, 30 + IMPATIENT_STOP_SECONDS)]:
        now = 1000.0 + later
        os.write(watch._writer, bytes([signal.SIGTERM]))  # as the interpreter does
        watch._look_at_signals()
        assert watch._deadline == 1000.0 + deadline
    now = 1036.0
    with pytest.raises(Ended):
        watch.run()
    assert "told to stop" in capsys.readouterr().err


def test_other_signals_are_no_wish_to_stop():
    watch = make_watch()
    os.write(watch._writer, bytes([signal.SIGCHLD]))
    watch._look_at_signals()
    assert watch._deadline == float("inf")


def test_a_lost_connection_is_one_message_and_other_errors_stay(monkeypatch):
    monkeypatch.setattr(watched_ddp, "COURTESY_SECONDS", 0.0)
    environment = SimpleNamespace(validate_settings=lambda **_: None, creates_processes_externally=True)
    launcher = WatchedLauncher(environment, 1, 1)
    monkeypatch.setattr(launcher, "_start_watch", lambda *_: None)

    def raised(error):
        def train():
            raise error

        return lambda: launcher.launch(train, trainer=SimpleNamespace(global_rank=1))

    for lost in (RuntimeError("gloo/pair.cc: Connection closed by peer"), torch.distributed.DistBackendError("NCCL")):
        with pytest.raises(IncompleteRunError, match="process 1 lost the connection"):
            raised(lost)()
    with pytest.raises(RuntimeError, match="shapes differ"):
        raised(RuntimeError("shapes differ"))()
