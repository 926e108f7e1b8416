"""Two data-parallel processes on the CPU come to what one process comes to."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.command_line import outcome, run, write_config
from tests.tiny import save_cola, save_tiny_bert

PROJECT = Path(__file__).parents[1]
# 13 validation rows in batches of 4 and 37 training rows in batches of 8: the last ones are uneven
UNEVEN = ("--data.evaluation_batch_size", "4", "--data.train_rows", "37")


@pytest.fixture
def config(tmp_path):
    backbone = save_tiny_bert(tmp_path / "bert", dropout=0.0)  # each process draws its own dropout
    return write_config(tmp_path, str(backbone), str(save_cola(tmp_path / "cola", train=40, dev=13)))


def run_two_processes(config: Path, runs_dir: Path, *options: str) -> None:
    command = [sys.executable, "cli.py", "fit", "--config", str(config), "--runs_dir", str(runs_dir), *options]
    settings = ("--trainer.devices", "2", "--trainer.strategy", "ddp")
    with subprocess.Popen([*command, *settings], cwd=PROJECT, start_new_session=True) as process:
        try:
            assert process.wait(timeout=240) == 0
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def test_two_processes_agree_with_one(config, tmp_path):
    assert run("fit", config, tmp_path, "--run_name", "one", *UNEVEN) == 0
    run_two_processes(config, tmp_path, "--run_name", "two", *UNEVEN)
    one, two = outcome(tmp_path / "one"), outcome(tmp_path / "two")
    assert two["results"]["processes"] == 2
    assert two["ranks"]["layers"] == one["ranks"]["layers"]
    for name in ("train_losses", "val_losses"):
        assert two["results"][name] == pytest.approx(one["results"][name], abs=1e-5)
    for figure in ("matthews_correlation", "accuracy", "loss"):
        assert two["results"]["test"][figure] == pytest.approx(one["results"]["test"][figure], abs=1e-5)
    weights = one["checkpoints"]["last.ckpt"]["state_dict"]
    for name, value in two["checkpoints"]["last.ckpt"]["state_dict"].items():
        if isinstance(value, torch.Tensor) and name != "epoch_loss":  # kept as the mean over processes
            torch.testing.assert_close(value, weights[name], atol=1e-4, rtol=0)
