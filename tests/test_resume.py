"""A run that was ended at any moment and resumed ends as one that never was, bit by bit."""

import json
import signal

import pytest

from tests.command_line import CrashError, differences, outcome, run, run_until_signalled, write_config

VARIANTS = {
    "plain": (),
    "noise": ("--model.adapter.tau", "0.3", "--model.adapter.allocation", "bounded"),
    "accumulation": ("--trainer.accumulate_grad_batches", "2"),
    "budget": (
        "--budget_schedule.memory_start=100",
        "--budget_schedule.memory_end=300",
        "--budget_schedule.epochs_memory_start=1",
        "--budget_schedule.epochs_memory_start_to_end=1",
    ),
    "max_steps": ("--trainer.max_steps", "12"),
}
MOMENTS = [
    ("plain", "batch_start", 3),
    ("plain", "validation", 10),
    ("plain", "epoch_end", 5),
    ("noise", "batch_start", 7),
    ("noise", "batch_start", 10),  # the boundary to the discrete phase
    ("accumulation", "batch_start", 6),
    ("budget", "batch_start", 8),
    ("budget", "batch_start", 13),  # in the discrete phase
    ("max_steps", "batch_start", 5),
    ("max_steps", "batch_start", 11),
    ("max_steps", "validation", 12),  # the validation that the limit asks for, in mid-epoch
]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, tiny_bert, cola_folder):
    """Outcomes of runs that nothing interrupts, by variant, each run once."""
    runs_dir = tmp_path_factory.mktemp("undisturbed")
    config = write_config(runs_dir, tiny_bert, cola_folder)
    known = {}

    def of(variant):
        if variant not in known:
            assert run("fit", config, runs_dir, "--run_name", variant, *VARIANTS[variant]) == 0
            known[variant] = outcome(runs_dir / variant)
        return known[variant]

    return config, of


@pytest.mark.parametrize(("variant", "hook", "step"), MOMENTS)
def test_a_resumed_run_ends_like_an_undisturbed_one(undisturbed, tmp_path, variant, hook, step):
    config, outcome_of = undisturbed
    crash = json.dumps({"class_path": "tests.command_line.CrashAt", "init_args": {"hook": hook, "step": step}})
    with pytest.raises(CrashError):
        run(
            "fit",
            config,
            tmp_path,
            *VARIANTS[variant],
            f"--trainer.callbacks={crash}",
            "--checkpoint_every_n_minutes=0",
        )
    assert not (tmp_path / "tiny" / "results.json").exists()
    assert run("fit", config, tmp_path, *VARIANTS[variant], "--ckpt_path", "last") == 0
    assert differences(outcome_of(variant), outcome(tmp_path / "tiny")) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_writes_last_and_says_how_to_go_on(undisturbed, tmp_path, number):
    config, outcome_of = undisturbed
    code, output = run_until_signalled(config, tmp_path, number)
    assert code == 1, output
    assert "--ckpt_path last" in output
    assert "Traceback" not in output
    assert (tmp_path / "tiny" / "checkpoints" / "last.ckpt").exists()
    assert run("fit", config, tmp_path, "--ckpt_path", "last") == 0
    assert differences(outcome_of("plain"), outcome(tmp_path / "tiny")) == []


def test_a_finished_run_that_goes_on_keeps_its_figures_apart(tiny_bert, cola_folder, tmp_path):
    """config.yaml is of the longer run from its first step on: results.json of the shorter one would pass for its."""
    config = write_config(tmp_path, tiny_bert, cola_folder)
    assert run("fit", config, tmp_path, "--trainer.max_epochs", "2") == 0
    before = {name: (tmp_path / "tiny" / f"{name}.json").read_bytes() for name in ("results", "ranks")}
    crash = json.dumps({"class_path": "tests.command_line.CrashAt", "init_args": {"hook": "batch_start", "step": 12}})
    with pytest.raises(CrashError):
        run("fit", config, tmp_path, "--ckpt_path", "last", f"--trainer.callbacks={crash}")
    for name, content in before.items():
        assert not (tmp_path / "tiny" / f"{name}.json").exists()
        assert (tmp_path / "tiny" / f"{name}.previous.json").read_bytes() == content
    assert run("fit", config, tmp_path, "--ckpt_path", "last") == 0
    assert len(json.loads((tmp_path / "tiny" / "results.json").read_text())["train_losses"]) == 3
