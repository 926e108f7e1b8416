"""Two data-parallel processes on the CPU come to what one process comes to."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from tests.command_line import outcome, run, write_config
from tests.tiny import save_cola, save_tiny_bert, save_tiny_llama, save_wikitext

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


def test_two_processes_give_the_perplexity_of_one(tmp_path):
    backbone = save_tiny_llama(tmp_path / "llama")  # no dropout
    content = {
        "seed_everything": 1,
        "model": {
            "class_path": "lightning_modules.LanguageModellingModule",
            "init_args": {
                "backbone": str(backbone),
                "adapter": {"class_path": "lora.LoRA", "init_args": {"rank": 4, "lora_alpha": 8}},
                "optimizer": {"learning_rate": 0.02, "schedule": "constant"},
            },
        },
        "data": {
            "class_path": "datamodules.WikiTextDataModule",
            "init_args": {"data_dir": str(save_wikitext(tmp_path / "wikitext")), "batch_size": 8, "block_size": 16},
        },
        "trainer": {"max_epochs": 2, "accelerator": "cpu", "devices": 1},
    }
    config = tmp_path / "language.yaml"
    config.write_text(yaml.safe_dump(content))
    assert run("fit", config, tmp_path, "--run_name", "one", "--data.evaluation_batch_size", "2") == 0
    run_two_processes(config, tmp_path, "--run_name", "two", "--data.evaluation_batch_size", "2")
    one, two = outcome(tmp_path / "one")["results"], outcome(tmp_path / "two")["results"]
    assert two["processes"] == 2
    for name in ("train_losses", "val_losses"):
        assert two[name] == pytest.approx(one[name], abs=1e-5)
    assert two["test"]["perplexity"] == pytest.approx(one["test"]["perplexity"], rel=1e-5)
