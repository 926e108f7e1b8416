"""Worker processes of `sweep --jobs N`: what a failure or a signal costs, with scripted workers."""

import subprocess
import sys

import pytest
import torch

from common.errors import InputError
from common.machine import keep_to_gpu_share
from experiments.sweep import engines
from experiments.sweep.engines import WorkerProcesses, start_worker
from experiments.sweep.folder import State, SweepFolder
from experiments.sweep.grid import Trial
from experiments.sweep.progress import Progress

ANSWER = "import os, sys\nfor line in sys.stdin:\n    open({log!r}, 'a').write(f'{{os.getpid()}}\\n')\n    {answer}\n"
TRIALS = [Trial(f"trial_{number}", "", (), {}) for number in range(3)]


@pytest.fixture
def scripted(tmp_path, monkeypatch):
    """Runs three trials with workers that do as told; returns their process ids, trial by trial."""

    def run(answer, at_start=lambda engine: None, write=lambda: None, jobs=1):
        log, engine, folder = tmp_path / "log", WorkerProcesses(jobs), SweepFolder(tmp_path / "sweep")

        def start(place, jobs):
            command = [sys.executable, "-S", "-uc", ANSWER.format(log=str(log), answer=answer)]
            worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            at_start(engine)
            return worker

        monkeypatch.setattr(engines, "start_worker", start)
        complete = engine(folder, [TRIALS[:2], TRIALS[2:]], Progress(folder, TRIALS, after_each=write))
        return complete, log.read_text().split() if log.exists() else [], folder

    return run


def test_one_worker_serves_round_after_round(scripted):
    complete, processes, _ = scripted("print('finished')")
    assert complete and len(processes) == 3 and len(set(processes)) == 1


def test_two_trials_at_once_have_a_process_each(scripted):
    complete, processes, _ = scripted("import time; time.sleep(0.5); print('finished')", jobs=2)
    assert complete and len(processes) == 3 and len(set(processes)) == 2


def test_a_trial_is_one_line_whatever_its_settings_hold(scripted, monkeypatch):
    settings = {"data.label_names": ["first\nsecond", "é\u2028"], "model.optimizer.learning_rate": 1e-5}
    monkeypatch.setattr(sys.modules[__name__], "TRIALS", [Trial("trial_0", "", ("a.yaml",), {}, settings)])
    complete, processes, folder = scripted("import json; json.loads(line)[1]['settings']; print('finished')")
    assert complete and len(processes) == 1
    assert folder.state(TRIALS[0]) is State.WAITING  # not failed: the scripted worker wrote nothing


def test_after_a_failure_the_next_trial_gets_a_fresh_process(scripted):
    complete, processes, _ = scripted("print('failed')")
    assert complete and len(set(processes)) == 3


def test_a_worker_that_dies_costs_its_trial_one_try_and_the_rest_go_on(scripted):
    complete, processes, folder = scripted("os.kill(os.getpid(), 9)")
    assert complete and len(set(processes)) == 3
    assert [folder.state(trial) for trial in TRIALS] == [State.FAILED] * 3


def test_a_signal_while_a_worker_starts_begins_no_trial(scripted, capsys):
    complete, processes, _ = scripted("print('finished')", at_start=lambda engine: engine._stop(15, None))
    assert not complete and processes == []
    assert "Stopping" in capsys.readouterr().out


def test_an_error_of_the_sweep_itself_stops_it_and_is_not_lost_in_a_thread(scripted, tmp_path):
    def write():
        raise InputError("no space left to write results.json")

    with pytest.raises(InputError, match="no space left"):
        scripted("print('finished')", write=write)
    assert len((tmp_path / "log").read_text().split()) == 1  # no trial was begun after it


def test_workers_share_the_cores_unless_the_user_says_otherwise(monkeypatch):
    seen = []
    monkeypatch.setattr(engines, "usable_cores", lambda: 16)
    monkeypatch.setattr(subprocess, "Popen", lambda command, **options: seen.append(options["env"]["OMP_NUM_THREADS"]))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for jobs in (1, 3, 12, 40):
        start_worker(0, jobs)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    start_worker(0, 12)
    assert seen == ["16", "5", "1", "1", "2"]


@pytest.mark.parametrize(
    ("gpus", "jobs", "expected"),
    [
        (None, 3, [("4", 0.5), ("7", 1.0), ("4", 0.5)]),
        ("", 3, [(None, None)] * 3),  # none
    ],
)
def test_each_worker_gets_a_gpu_and_its_share_of_the_memory(monkeypatch, gpus, jobs, expected):
    seen, limits = [], []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0 if gpus == "" else 2)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", limits.append)
    monkeypatch.setattr(subprocess, "Popen", lambda command, **options: seen.append(options["env"]))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if gpus is None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    for place in range(jobs):
        start_worker(place, jobs)
    shares = [environment.get("RANKWISE_GPU_SHARE") for environment in seen]
    found = [environment.get("CUDA_VISIBLE_DEVICES") for environment in seen]
    assert list(zip(found, [share and float(share) for share in shares])) == expected
    for share in shares:
        monkeypatch.setenv("RANKWISE_GPU_SHARE", share or "1")
        keep_to_gpu_share()
    assert limits == [0.475, 0.475] * (gpus is None)  # one alone isn't limited
