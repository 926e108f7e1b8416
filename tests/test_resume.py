"""A run that was ended at any moment and resumed ends as one that never was, bit by bit."""

import json
import signal

import pytest

from tests.command_line import CrashError, crash_at, differences, outcome, run, run_until_signalled, write_config


def lora(kind: str, **settings: object) -> tuple[str]:
    return (f"--model.adapter={json.dumps({'class_path': f'lora.{kind}', 'init_args': settings})}",)


NOISE = ("--model.adapter.tau=0.3", "--model.adapter.allocation=bounded")
BUDGET = {"memory_start": 100, "memory_end": 300, "epochs_memory_start": 1, "epochs_memory_start_to_end": 1}
MOVING = tuple(f"--budget_schedule.{name}={value}" for name, value in BUDGET.items())
VARIANTS = {
    "plain": (),
    "everything": (*NOISE, *MOVING, "--trainer.accumulate_grad_batches=2"),
    "max_steps": ("--trainer.max_steps", "12"),
    "float64": ("--trainer.precision", "64-true"),
    "lora_wrapped": lora("LoRA", rank=4, alpha_per_rank=2, targets="attention", wrap_head=True, dropout=0.2),
    "lora_adaptive": lora("AdaptiveLoRA", rank_min=1, rank_max=6, rank_average=3, lora_alpha=8, tau=0.2),
    "lora_nested": lora("NestedLoRA", rank_min=1, rank_max=4, evaluated_ranks=[1, 4], lora_alpha=8),
}
GRADIENT = {"factors": "gradient", "gradient_batches": 4, "head_warmup_steps": 2}
VARIANTS["gradient"] = lora(
    "AdaptiveLoRAXS", rank_min=0, rank_max=4, rank_average=2, initial_weights="gradient_energy", **GRADIENT
)
SLOW_MOMENTS = [
    ("plain", "validation", 10),
    ("plain", "epoch_end", 5),
    # before, at the boundary to and in the discrete phase
    *(("everything", "batch_start", step) for step in (8, 10, 13)),
    ("max_steps", "batch_start", 11),
    ("max_steps", "validation", 12),  # the validation that the limit asks for, in mid-epoch
    *((variant, "batch_start", 3) for variant in ("float64", "lora_wrapped")),
    *((variant, "batch_start", 7) for variant in ("lora_adaptive", "lora_nested", "gradient")),
]
MOMENTS = [("plain", "batch_start", 8), *(pytest.param(*moment, marks=pytest.mark.slow) for moment in SLOW_MOMENTS)]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, tiny_bert, cola_folder):
    """The config, and the outcomes of runs that nothing interrupts, by variant, each run once."""
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
    with pytest.raises(CrashError):
        run("fit", config, tmp_path, *VARIANTS[variant], *crash_at(step, hook))
    assert not (tmp_path / "tiny" / "results.json").exists()
    assert run("fit", config, tmp_path, *VARIANTS[variant], "--ckpt_path", "last") == 0
    assert differences(outcome_of(variant), outcome(tmp_path / "tiny")) == []


@pytest.mark.slow
def test_ctrl_c_writes_last_and_says_how_to_go_on(undisturbed, tmp_path):
    """SIGTERM, which the warning of a job's end becomes: tests/experiments/test_stop_signals.py."""
    config, outcome_of = undisturbed
    code, output = run_until_signalled(config, tmp_path, signal.SIGINT)
    assert code == 1, output
    assert "--ckpt_path last" in output
    assert "Traceback" not in output
    assert (tmp_path / "tiny" / "checkpoints" / "last.ckpt").exists()
    assert run("fit", config, tmp_path, "--ckpt_path", "last") == 0
    assert differences(outcome_of("plain"), outcome(tmp_path / "tiny")) == []


@pytest.mark.slow
def test_a_finished_run_that_goes_on_keeps_its_figures_apart(undisturbed, tmp_path):
    """config.yaml is of the longer run from its first step on: results.json of the shorter one would pass for its."""
    config, _ = undisturbed
    assert run("fit", config, tmp_path, "--trainer.max_epochs", "2") == 0
    before = {name: (tmp_path / "tiny" / f"{name}.json").read_bytes() for name in ("results", "ranks")}
    with pytest.raises(CrashError):
        run("fit", config, tmp_path, "--ckpt_path", "last", *crash_at(12))
    for name, content in before.items():
        assert not (tmp_path / "tiny" / f"{name}.json").exists()
        assert (tmp_path / "tiny" / f"{name}.previous.json").read_bytes() == content
    assert run("fit", config, tmp_path, "--ckpt_path", "last") == 0
    assert len(json.loads((tmp_path / "tiny" / "results.json").read_text())["train_losses"]) == 3


@pytest.mark.slow
def test_results_of_adaptive_lora_count_its_budget_in_parameters(undisturbed):
    done = undisturbed[1]("lora_adaptive")
    results, ranks = done["results"], done["ranks"]["layers"]
    used = 0
    for name, rank in ranks.items():
        feed_forward = "intermediate" in name or ("output.dense" in name and "attention" not in name)
        used += rank * (16 + 32 if feed_forward else 16 + 16)
    assert results["budget"]["used"] == used
    norms = results["update_norms"]
    assert norms["initial"]["total"] == 0
    assert norms["final"]["total"] > 0
    assert list(norms["final"]["layers"]) == list(ranks)


def test_a_nested_run_leaves_a_curve_whose_end_is_its_main_figure(undisturbed):
    done = undisturbed[1]("lora_nested")
    results = done["results"]
    assert [entry["rank"] for entry in results["rank_curve"]] == [1, 4]
    whole = results["rank_curve"][-1]
    assert whole["val/matthews_correlation"] == results["metric"]["best"]
    assert whole["test/loss"] == results["test"]["loss"]
    assert results["average_rank"] == 4
    assert len(results["validations"]) == 3
    header = done["metrics"].splitlines()[0].split(",")
    assert {"val/matthews_correlation/rank_1", "test/loss/rank_4", "update_norm/total"} <= set(header)
