"""SLURM's warning stops a run like Ctrl-C does, the job is queued again, and the run goes on by itself."""

import os
import signal

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException

from experiments.run_folder import RunFolder
from experiments.stop_signals import StopSignals
from lightning_modules import TextClassificationModule
from tests.command_line import differences, outcome, run, run_until_signalled, write_config


@pytest.fixture
def requeued(tmp_path, monkeypatch):
    """A scontrol that notes what it is asked."""
    asked = tmp_path / "asked"
    program = tmp_path / "bin" / "scontrol"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >> {asked}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return asked


@pytest.mark.long
def test_a_warned_job_writes_last_is_queued_again_and_goes_on(tmp_path, tiny_bert, cola_folder, requeued, monkeypatch):
    config = write_config(tmp_path, tiny_bert, cola_folder)
    assert run("fit", config, tmp_path, "--run_name", "undisturbed") == 0
    slurm = {"SLURM_JOB_ID": "4711", "SLURM_JOB_NAME": "bash"}  # by this name Lightning stays out
    code, output = run_until_signalled(config, tmp_path, signal.SIGUSR1, **slurm)
    assert code == 1, output
    assert requeued.read_text().split() == ["requeue", "4711"]
    assert "SLURM job 4711 will run again and go on from last.ckpt" in output
    assert [path.name for path in (tmp_path / "tiny").rglob("*.ckpt") if path.name.startswith("hpc")] == []
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert run("fit", config, tmp_path, "--overwrite") == 0  # the job's command is the same as before
    assert differences(outcome(tmp_path / "undisturbed"), outcome(tmp_path / "tiny")) == []


@pytest.fixture
def signals():
    """Our handlers, installed until the test ends."""
    installed = StopSignals()
    installed.install()
    yield installed
    installed.restore()


@pytest.fixture
def stopped(monkeypatch) -> list[int]:
    """The signals that this process would have sent itself."""
    sent: list[int] = []
    monkeypatch.setattr("experiments.stop_signals.os.kill", lambda process, number: sent.append(number))
    return sent


def test_outside_slurm_nothing_is_queued(monkeypatch, requeued, signals, stopped):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    signal.raise_signal(signal.SIGUSR1)
    assert stopped == [signal.SIGTERM]
    assert not signals.requeue()
    assert not requeued.exists()


@pytest.mark.parametrize(
    ("array", "job"), [({}, "12"), ({"SLURM_ARRAY_JOB_ID": "9", "SLURM_ARRAY_TASK_ID": "3"}, "9_3")]
)
def test_the_job_is_named_as_slurm_does(monkeypatch, requeued, capsys, array, job):
    for name, value in {"SLURM_JOB_ID": "12", **array}.items():
        monkeypatch.setenv(name, value)
    signals = StopSignals()
    signals.warned_by_slurm = True
    assert signals.requeue()
    assert requeued.read_text().split() == ["requeue", job]


def test_a_second_interrupt_stops_at_once(signals, stopped):
    signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert stopped == [signal.SIGTERM]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_outside_lightnings_loops_a_signal_ends_the_run_with_words(signals, number):
    signals.stop_outside_loops()
    with pytest.raises(SIGTERMException):  # the default would kill this process
        signal.raise_signal(number)
    signals.restore()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_within_lightnings_loops_its_own_handler_decides():
    trainer, signals = Trainer(accelerator="cpu", logger=False), StopSignals()
    signals.stop_outside_loops()
    connector = trainer._signal_connector
    connector.register_signal_handlers()
    try:
        signal.raise_signal(signal.SIGTERM)
        assert trainer.received_sigterm
    finally:
        connector.teardown()
    with pytest.raises(SIGTERMException):
        signal.raise_signal(signal.SIGTERM)
    signals.restore()


def test_a_signal_while_factors_are_made_says_how_to_go_on(tmp_path, tiny_bert, cola_folder, monkeypatch, capsys):
    def signalled(module):
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(TextClassificationModule, "configure_model", signalled)
    assert run("fit", write_config(tmp_path, tiny_bert, cola_folder), tmp_path) == 1
    assert "Stopped by a signal before the first checkpoint. Start again: " in capsys.readouterr().out


@pytest.mark.parametrize("count", ["0", "", "x"])
def test_only_a_job_that_ran_before_goes_on_by_itself(tmp_path, monkeypatch, count):
    from experiments.resumption import was_requeued

    folder = RunFolder(tmp_path)
    folder.checkpoints.mkdir()
    (folder.checkpoints / "last.ckpt").touch()
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    assert was_requeued(folder)
    monkeypatch.setenv("SLURM_RESTART_COUNT", count)
    assert not was_requeued(folder)
