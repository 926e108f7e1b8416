"""Two data-parallel processes on the CPU come to what one process comes to."""

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.architectures import save_backbone
from tests.command_line import CrashError, outcome, run, start_fit, write_config, write_language_config
from tests.tiny import save_cola, save_tiny_bert, save_tiny_llama, save_wikitext

# 13 validation rows in batches of 4 and 37 training rows in batches of 8: the last ones are uneven
UNEVEN = ("--data.evaluation_batch_size", "4", "--data.train_rows", "37")


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("config")
    backbone = save_tiny_bert(folder / "bert", dropout=0.0)  # each process draws its own dropout
    return write_config(folder, str(backbone), str(save_cola(folder / "cola", train=40, dev=13)))


def two_processes(config: Path, runs_dir: Path, *options: str, strategy: str = "ddp") -> tuple[int, str]:
    """Exit code and all output of a fit in two processes."""
    settings = ("--trainer.devices", "2", "--trainer.strategy", strategy)
    with start_fit(config, runs_dir, *options, *settings, start_new_session=True) as process:
        try:
            output, _ = process.communicate(timeout=600)
        finally:
            with contextlib.suppress(ProcessLookupError):  # the other process, too
                os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, output


def run_two_processes(config: Path, runs_dir: Path, *options: str, strategy: str = "ddp") -> None:
    code, output = two_processes(config, runs_dir, *options, strategy=strategy)
    assert code == 0, output


def callback(name: str, **settings: object) -> str:
    """The option that adds a callback of `tests.command_line`."""
    return "--trainer.callbacks=" + json.dumps({"class_path": f"tests.command_line.{name}", "init_args": settings})


@pytest.fixture(scope="module")
def undisturbed(config, tmp_path_factory):
    """What one process comes to that nothing interrupts."""
    runs_dir = tmp_path_factory.mktemp("undisturbed")
    assert run("fit", config, runs_dir, *UNEVEN) == 0
    return outcome(runs_dir / "tiny")


def assert_agree(one: dict, other: dict) -> None:
    """The same ranks and metrics; losses up to 1e-5 and weights up to 1e-4, because sums have another order."""
    assert other["ranks"]["layers"] == one["ranks"]["layers"]
    for name in ("train_losses", "val_losses"):
        assert other["results"][name] == pytest.approx(one["results"][name], abs=1e-5)
    for figure in ("matthews_correlation", "accuracy", "loss"):
        assert other["results"]["test"][figure] == pytest.approx(one["results"]["test"][figure], abs=1e-5)
    weights = one["checkpoints"]["last.ckpt"]["state_dict"]
    for name, value in other["checkpoints"]["last.ckpt"]["state_dict"].items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(value, weights[name], atol=1e-4, rtol=0)


@pytest.mark.long
def test_parameters_that_no_answer_depends_on_stay_as_they_are(config, tmp_path):
    backbone = save_backbone("big_bird", tmp_path / "backbone")  # its pooler feeds no classifier
    about = json.loads((backbone / "config.json").read_text())
    about |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "classifier_dropout": 0.0}
    (backbone / "config.json").write_text(json.dumps(about))
    options = ("--model.backbone", str(backbone), "--model.adapter", "null", "--trainer.max_epochs", "1")
    options += ("--model.optimizer.learning_rate", "1e-3")
    assert run("fit", config, tmp_path / "one", *options) == 0
    run_two_processes(config, tmp_path / "two", *options)
    one, two = (outcome(tmp_path / name / "tiny") for name in ("one", "two"))
    assert two["results"]["train_losses"] == pytest.approx(one["results"]["train_losses"], abs=1e-5)
    before = load_file(backbone / "model.safetensors")
    for weights in (one["checkpoints"]["last.ckpt"]["state_dict"], two["checkpoints"]["last.ckpt"]["state_dict"]):
        assert torch.equal(weights["model.bert.pooler.weight"], before["pooler.weight"])
        assert not torch.equal(
            weights["model.bert.embeddings.word_embeddings.weight"], before["embeddings.word_embeddings.weight"]
        )


@pytest.mark.long
def test_shards_of_a_quantised_backbone_agree_with_one_process(config, tmp_path):
    pytest.importorskip("bitsandbytes")
    options = (*UNEVEN, "--model.quantization", "nf4", "--trainer.accumulate_grad_batches", "2")
    assert run("fit", config, tmp_path / "one", *options) == 0
    noted = tmp_path / "bytes"
    watch = callback("LocalBytes", path=str(noted))
    run_two_processes(config, tmp_path / "two", *options, watch, strategy="fsdp")
    one, two = (outcome(tmp_path / name / "tiny") for name in ("one", "two"))
    assert two["results"]["processes"] == 2
    assert_agree(one, two)
    whole, local = map(int, noted.read_text().split())
    assert local < 0.55 * whole  # rounded up by blocks of the packed weights


@pytest.mark.long
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_sigterm_to_one_process_stops_both_and_one_goes_on(config, undisturbed, tmp_path, strategy):
    # in the middle of the second epoch
    stop = callback("SignalAt", step=7, number=signal.SIGTERM)
    code, output = two_processes(config, tmp_path, *UNEVEN, stop, strategy=strategy)
    assert code == 1, output
    assert output.count("--ckpt_path last") == 1
    assert "Traceback" not in output
    checkpoint = torch.load(tmp_path / "tiny" / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 8
    assert run("fit", config, tmp_path, *UNEVEN, "--ckpt_path", "last") == 0
    assert_agree(undisturbed, outcome(tmp_path / "tiny"))


@pytest.mark.long
def test_ctrl_c_twice_ends_both_processes_with_one_word(config, tmp_path):
    """As a terminal sends it: to the whole group, the second time before the first step after it has ended."""
    options = (callback("SlowSteps"), "--trainer.max_epochs=50", "--trainer.devices=2", "--trainer.strategy=ddp")
    output = tmp_path / "output.txt"
    with output.open("w") as file:
        process = start_fit(config, tmp_path, *options, stdout=file, start_new_session=True)
        try:
            _wait_for(lambda: (tmp_path / "tiny" / "metrics.csv").exists())
            os.killpg(process.pid, signal.SIGINT)
            _wait_for(lambda: "press Ctrl-C again" in output.read_text())
            os.killpg(process.pid, signal.SIGINT)
            assert process.wait(timeout=120) == 1
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    said = output.read_text()
    assert said.count("Stopped by ") == 1 and "Traceback" not in said, said


def _wait_for(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_what_one_process_began_two_finish_with_accumulation_and_agree_with_one(config, undisturbed, tmp_path):
    with pytest.raises(CrashError):  # right after the second epoch
        run("fit", config, tmp_path, *UNEVEN, callback("CrashAt", hook="batch_start", step=10))
    accumulation = ("--trainer.accumulate_grad_batches", "2")
    run_two_processes(config, tmp_path, *UNEVEN, *accumulation, "--ckpt_path", "last")
    two = outcome(tmp_path / "tiny")
    assert two["results"]["processes"] == 2
    assert_agree(undisturbed, two)
    steps = [line.partition(",")[0] for line in two["metrics"].splitlines()]
    assert steps == [line.partition(",")[0] for line in undisturbed["metrics"].splitlines()]
    boards = {path.name.split(".")[-2] for path in (tmp_path / "tiny").glob("events.out.tfevents.*")}
    assert len(boards) == 2  # process ids of who wrote: the one that began, and the first of the two


@pytest.mark.long
def test_a_killed_process_ends_the_other_with_a_message(config, tmp_path):
    code, output = two_processes(config, tmp_path, callback("SignalAt", step=2, number=signal.SIGKILL))
    assert code == 1, output
    assert "process 1 of 2 was ended by SIGKILL" in output
    assert "--ckpt_path last" in output
    assert "Traceback" not in output


@pytest.mark.long
def test_two_processes_give_the_perplexity_of_one(tmp_path):
    backbone = save_tiny_llama(tmp_path / "llama")  # no dropout
    adapter = {"class_path": "lora.LoRA", "init_args": {"rank": 4, "lora_alpha": 8}}
    config = write_language_config(tmp_path, str(backbone), str(save_wikitext(tmp_path / "wikitext")), adapter)
    assert run("fit", config, tmp_path, "--run_name", "one", "--data.evaluation_batch_size", "2") == 0
    run_two_processes(config, tmp_path, "--run_name", "two", "--data.evaluation_batch_size", "2")
    one, two = outcome(tmp_path / "one")["results"], outcome(tmp_path / "two")["results"]
    assert two["processes"] == 2
    for name in ("train_losses", "val_losses"):
        assert two[name] == pytest.approx(one[name], abs=1e-5)
    assert two["test"]["perplexity"] == pytest.approx(one["test"]["perplexity"], rel=1e-5)
