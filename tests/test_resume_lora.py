"""Runs of the LoRA family through the command line: resumed ones end like undisturbed ones, bit by bit."""

import json

import pytest

from tests.command_line import CrashError, differences, outcome, run, write_config

ADAPTERS = {
    "dropout": ("LoRA", {"rank": 4, "lora_alpha": 8, "dropout": 0.2}),
    "wrapped": ("LoRA", {"rank": 4, "alpha_per_rank": 2, "targets": "attention", "wrap_head": True}),
    "adaptive": ("AdaptiveLoRA", {"rank_min": 1, "rank_max": 6, "rank_average": 3, "lora_alpha": 8, "tau": 0.2}),
    "nested": ("NestedLoRA", {"rank_min": 1, "rank_max": 4, "evaluated_ranks": [1, 4], "lora_alpha": 8}),
}


def settings(name):
    kind, arguments = ADAPTERS[name]
    return {"class_path": f"lora.{kind}", "init_args": arguments}


@pytest.mark.parametrize(
    ("name", "step"), [("dropout", 7), ("wrapped", 3), ("adaptive", 7), ("adaptive", 11), ("nested", 6)]
)
def test_a_resumed_run_ends_like_an_undisturbed_one(tmp_path, tiny_bert, cola_folder, name, step):
    config = write_config(tmp_path, tiny_bert, cola_folder, settings(name))
    assert run("fit", config, tmp_path, "--run_name", "undisturbed") == 0
    crash = json.dumps({"class_path": "tests.command_line.CrashAt", "init_args": {"hook": "batch_start", "step": step}})
    with pytest.raises(CrashError):
        run("fit", config, tmp_path, f"--trainer.callbacks={crash}", "--checkpoint_every_n_minutes=0")
    assert run("fit", config, tmp_path, "--ckpt_path", "last") == 0
    assert differences(outcome(tmp_path / "undisturbed"), outcome(tmp_path / "tiny")) == []


def test_results_of_adaptive_lora_count_its_budget_in_parameters(tmp_path, tiny_bert, cola_folder):
    config = write_config(tmp_path, tiny_bert, cola_folder, settings("adaptive"))
    assert run("fit", config, tmp_path) == 0
    results = json.loads((tmp_path / "tiny" / "results.json").read_text())
    ranks = json.loads((tmp_path / "tiny" / "ranks.json").read_text())["layers"]
    used = 0
    for name, rank in ranks.items():
        feed_forward = "intermediate" in name or ("output.dense" in name and "attention" not in name)
        used += rank * (16 + 32 if feed_forward else 16 + 16)
    assert results["budget"]["used"] == used
    norms = results["update_norms"]
    assert norms["initial"]["total"] == 0
    assert norms["final"]["total"] > 0
    assert list(norms["final"]["layers"]) == list(ranks)


def test_a_nested_run_leaves_a_curve_whose_end_is_its_main_figure(tmp_path, tiny_bert, cola_folder):
    config = write_config(tmp_path, tiny_bert, cola_folder, settings("nested"))
    assert run("fit", config, tmp_path) == 0
    results = json.loads((tmp_path / "tiny" / "results.json").read_text())
    assert [entry["rank"] for entry in results["rank_curve"]] == [1, 4]
    whole = results["rank_curve"][-1]
    assert whole["val/matthews_correlation"] == results["metric"]["best"]
    assert whole["test/loss"] == results["test"]["loss"]
    assert results["average_rank"] == 4
    assert len(results["validations"]) == 3
    header = (tmp_path / "tiny" / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"val/matthews_correlation/rank_1", "test/loss/rank_4", "update_norm/total"} <= set(header)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--model.adapter.alpha_per_rank", "2"], ["lora_alpha is 8.0 and alpha_per_rank is 2.0", "exactly one"]),
        (["--model.adapter.initialization", "unifrom"], ["unifrom", "'uniform'"]),
        (["--model.adapter.targets", "atention"], ["atention", "attention"]),
        (["--model.adapter.targets=[qery]"], ["'qery'", "query"]),
        (["--update_norms.every_n_steps", "0"], ["every_n_steps is 0"]),
    ],
)
def test_bad_input_gets_one_message_and_exit_code_2(tmp_path, tiny_bert, cola_folder, capsys, options, expected):
    config = write_config(tmp_path, tiny_bert, cola_folder, settings("dropout"))
    assert run("fit", config, tmp_path, *options) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert all(part in message for part in expected), message
