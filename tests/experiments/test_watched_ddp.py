"""What a watch makes of children that end, and of a launcher that is gone."""

import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from common.errors import IncompleteRunError
from experiments import watched_ddp
from experiments.watched_ddp import ProcessWatch, WatchedLauncher


class Ended(BaseException):
    """Stands for the end of this process."""


@pytest.fixture(autouse=True)
def ends(monkeypatch):
    """Ending the process raises `Ended` with the exit code instead."""

    def end(code):
        raise Ended(code)

    monkeypatch.setattr(os, "_exit", end)
    monkeypatch.setattr(watched_ddp, "_POLL_SECONDS", 0.0)


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


def test_a_lost_connection_is_one_message_and_other_errors_stay(monkeypatch):
    monkeypatch.setattr(watched_ddp, "COURTESY_SECONDS", 0.0)
    environment = SimpleNamespace(validate_settings=lambda **_: None, creates_processes_externally=True)
    launcher = WatchedLauncher(environment, 1, 1)
    launcher._watch = "none is needed"

    def raised(error):
        def train():
            raise error

        return lambda: launcher.launch(train, trainer=SimpleNamespace(global_rank=1))

    for lost in (RuntimeError("gloo/pair.cc: Connection closed by peer"), torch.distributed.DistBackendError("NCCL")):
        with pytest.raises(IncompleteRunError, match="process 1 lost the connection"):
            raised(lost)()
    with pytest.raises(RuntimeError, match="shapes differ"):
        raised(RuntimeError("shapes differ"))()
