"""Runs whose adapter takes its directions from the gradient: killed, exported, started from, in two processes."""

import json

import pytest
import torch

import cli
from lora import gradient
from tests.command_line import CrashError, differences, outcome, run, write_config
from tests.test_processes import assert_agree, run_two_processes
from tests.tiny import save_cola, save_tiny_bert

SHORT = "--trainer.max_epochs=1"
STILL = ("--model.optimizer.learning_rate=0", "--model.optimizer.head_learning_rate=0", SHORT)
PASS = {"gradient_batches": 4, "head_warmup_steps": 3}
ENERGY = {"rank_min": 0, "allocation": "fixed_by_energy"}
ADAPTERS = {
    "fixed": {"class_path": "lora.LoRAXS", "init_args": {"rank": 3, "factors": "gradient", **PASS}},
    "by_energy": {
        "class_path": "lora.AdaptiveLoRAXS",
        "init_args": ENERGY | {"rank_max": 6, "rank_average": 1.0, "factors": "gradient", **PASS},
    },
    "lora": {
        "class_path": "lora.LoRA",
        "init_args": {"rank": 2, "lora_alpha": 4, "initialization": "gradient", **PASS},
    },
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_bert, cola_folder):
    """The config and the runs folder of a finished run, by name of the adapter, each run once."""
    known = {}

    def of(kind):
        if kind not in known:
            runs_dir = tmp_path_factory.mktemp(kind)
            known[kind] = write_config(runs_dir, tiny_bert, cola_folder, ADAPTERS[kind]), runs_dir
            assert run("fit", *known[kind], SHORT) == 0
        return known[kind]

    return of


def results_of(runs_dir):
    return json.loads((runs_dir / "tiny" / "results.json").read_text())


@pytest.mark.parametrize("kind", ADAPTERS)
def test_what_the_pass_cost_is_told_and_directions_are_in_the_checkpoint(finished, kind):
    _, runs_dir = finished(kind)
    cost = results_of(runs_dir)["factors"]
    assert cost["rule"] == "gradient"
    assert cost["rows"] == (3 + 4 + 2) * 8  # the first half twice
    assert cost["seconds"] > 0
    state = torch.load(runs_dir / "tiny" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert state["adapter.has_directions"]
    if kind != "lora":
        factors = [value for name, value in state.items() if name.endswith((".A", ".B"))]
        assert len(factors) == 2 * len(json.loads((runs_dir / "tiny" / "ranks.json").read_text())["layers"])
        assert all(bool(factor.any()) for factor in factors)


def test_a_run_killed_within_the_pass_begins_again_and_ends_the_same(finished, tmp_path, monkeypatch):
    config, runs_dir = finished("by_energy")
    with monkeypatch.context() as patched:

        def crash(*_):
            raise CrashError

        patched.setattr(gradient, "_take_basis", crash)
        with pytest.raises(CrashError):
            run("fit", config, tmp_path, SHORT)
    assert not (tmp_path / "tiny" / "checkpoints" / "last.ckpt").exists()
    assert run("fit", config, tmp_path, SHORT, "--overwrite") == 0
    assert differences(outcome(runs_dir / "tiny"), outcome(tmp_path / "tiny")) == []


@pytest.mark.parametrize(("adapter", "kind"), [("fixed", "native"), ("by_energy", "peft"), ("lora", "merged")])
def test_exports_repeat_the_metric(finished, adapter, kind, capsys, tmp_path):
    _, runs_dir = finished(adapter)
    folder = tmp_path / kind
    assert cli.main(["export", str(runs_dir / "tiny"), "--format", kind, "--output", str(folder)]) == 0
    capsys.readouterr()
    assert cli.main(["validate", f"--export={folder}"]) == 0
    assert f"{results_of(runs_dir)['metric']['best']:.4f}" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["by_energy", "lora"])
def test_a_native_export_can_be_started_from_without_another_pass(finished, kind, tmp_path):
    config, runs_dir = finished(kind)
    folder = native_export(runs_dir, tmp_path)
    assert run("fit", config, tmp_path, f"--model.init_from={folder}", *STILL) == 0
    continued, before = results_of(tmp_path), results_of(runs_dir)
    exported = before["val_losses"][before["metric"]["best_epoch"]]
    assert continued["val_losses"][0] == pytest.approx(exported, abs=1e-5)
    assert continued["factors"] is None


@pytest.mark.parametrize("kind", ["by_energy", "lora"])
def test_an_export_is_cut_to_a_smaller_budget(finished, kind, tmp_path, capfd):
    _, runs_dir = finished(kind)
    layers = json.loads((runs_dir / "tiny" / "ranks.json").read_text())["layers"]
    sides = 32 + 16  # of a tiny layer at least: query has (16, 16)
    export = ["export", str(runs_dir / "tiny"), "--format", "peft", f"--output={tmp_path / 'cut'}"]
    budget = sides * 4 if kind == "lora" else 3
    assert cli.main([*export, f"--budget={budget}"]) == 0
    config = json.loads((tmp_path / "cut" / "adapter_config.json").read_text())
    ranks = config["rank_pattern"].values()
    assert 0 < sum(rank**2 for rank in ranks) <= budget if kind != "lora" else len(ranks) <= len(layers)
    export[-1] += "_more"
    assert cli.main([*export, "--budget=1000000"]) == 2
    assert "which the run has used" in capfd.readouterr().err


def native_export(runs_dir, folder):
    """A run's export in this folder."""
    output = folder / "native"
    assert cli.main(["export", str(runs_dir / "tiny"), "--format", "native", "--output", str(output)]) == 0
    return output


def test_learned_ranks_can_grow_when_started_from(tiny_bert, cola_folder, tmp_path):
    settings = {"rank_min": 0, "rank_max": 4, "rank_average": 1.5, "factors": "gradient", **PASS}
    config = write_config(
        tmp_path, tiny_bert, cola_folder, {"class_path": "lora.AdaptiveLoRAXS", "init_args": settings}
    )
    assert run("fit", config, tmp_path, "--trainer.max_epochs=2") == 0
    folder, losses = native_export(tmp_path, tmp_path), results_of(tmp_path)["val_losses"]
    ranks = json.loads((tmp_path / "tiny" / "ranks.json").read_text())["layers"].values()
    assert max(ranks) < 4
    best = results_of(tmp_path)["metric"]["best_epoch"]
    more = ("--model.adapter.rank_average=2", "--model.optimizer.allocation_learning_rate=0")
    assert run("fit", config, tmp_path / "more", f"--model.init_from={folder}", *STILL, *more) == 0
    assert results_of(tmp_path / "more")["val_losses"] == pytest.approx([losses[best]], abs=1e-5)
    state = torch.load(tmp_path / "more" / "tiny" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert all(bool(A.any(dim=1).all()) for name, A in state.items() if name.endswith(".A"))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"rank": 3, "factors": "svd"}, "belongs to other frozen factors"),
        ({"rank": 4, "factors": "gradient", **PASS}, "has 3 directions in"),
    ],
)
def test_an_export_is_not_put_between_other_directions(
    finished, tiny_bert, cola_folder, tmp_path, capfd, other, message
):
    folder = native_export(finished("fixed")[1], tmp_path)
    config = write_config(tmp_path, tiny_bert, cola_folder, {"class_path": "lora.LoRAXS", "init_args": other})
    assert run("fit", config, tmp_path / "other", f"--model.init_from={folder}") == 2
    assert message in capfd.readouterr().err


@pytest.fixture(scope="module")
def still(tmp_path_factory, cola_folder):
    """A config without dropout, and the validation losses of its first epoch."""
    folder = tmp_path_factory.mktemp("still")
    backbone = save_tiny_bert(folder / "bert", layers=1, dropout=0.0)
    config = write_config(folder, str(backbone), cola_folder, ADAPTERS["by_energy"])
    assert run("fit", config, folder, SHORT) == 0
    return config, results_of(folder)["val_losses"]


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
@pytest.mark.parametrize(
    "option", ["--trainer.precision=64-true", pytest.param("--model.compile=true", marks=pytest.mark.long)]
)
def test_ranks_by_energy_train_in_double_precision_and_compiled(still, tmp_path, option):
    config, losses = still
    assert run("fit", config, tmp_path, option, SHORT) == 0
    assert results_of(tmp_path)["val_losses"] == pytest.approx(losses, abs=1e-5)


@pytest.mark.long
def test_two_processes_train_layers_of_rank_0_of_plain_lora(tmp_path):
    backbone = str(save_tiny_bert(tmp_path / "bert", dropout=0.0))
    settings = ENERGY | {"rank_max": 4, "rank_average": 1.0, "lora_alpha": 4, "initialization": "gradient", **PASS}
    adapter = {"class_path": "lora.AdaptiveLoRA", "init_args": settings}
    config = write_config(tmp_path, backbone, str(save_cola(tmp_path / "cola", train=40, dev=13)), adapter)
    assert run("fit", config, tmp_path / "one") == 0
    run_two_processes(config, tmp_path / "two")
    one, two = (outcome(tmp_path / name / "tiny") for name in ("one", "two"))
    assert 0 in one["ranks"]["layers"].values()
    assert two["ranks"]["layers"] == one["ranks"]["layers"]
    assert two["results"]["val_losses"] == pytest.approx(one["results"]["val_losses"], abs=1e-5)


@pytest.mark.long
def test_two_processes_find_the_directions_of_one(tmp_path):
    backbone = save_tiny_bert(tmp_path / "bert", dropout=0.0)
    config = write_config(
        tmp_path, str(backbone), str(save_cola(tmp_path / "cola", train=40, dev=13)), ADAPTERS["by_energy"]
    )
    assert run("fit", config, tmp_path / "one") == 0
    run_two_processes(config, tmp_path / "two")
    one, two = (outcome(tmp_path / name / "tiny") for name in ("one", "two"))
    for name in [name for name in one["checkpoints"]["last.ckpt"]["state_dict"] if name.endswith((".A", ".B"))]:
        ours, theirs = (run["checkpoints"]["last.ckpt"]["state_dict"].pop(name) for run in (one, two))
        rank = one["ranks"]["layers"][name.removeprefix("model.")[:-2]]  # beyond it, values are close and vectors turn
        used = slice(rank) if name.endswith(".A") else (slice(None), slice(rank))
        torch.testing.assert_close(theirs[used], ours[used], atol=1e-3, rtol=0)
    assert_agree(one, two)


def test_a_pass_over_more_batches_than_there_are_is_refused(tiny_bert, cola_folder, tmp_path, capfd):
    config = write_config(tmp_path, tiny_bert, cola_folder, ADAPTERS["lora"])
    assert run("fit", config, tmp_path, "--model.adapter.gradient_batches=9") == 2
    assert "an epoch has 5 batches; allowed: 1 to 5" in capfd.readouterr().err


def test_a_fast_dev_run_takes_the_batches_that_it_has(tiny_bert, cola_folder, tmp_path, capfd):
    config = write_config(tmp_path, tiny_bert, cola_folder, ADAPTERS["fixed"])
    assert run("fit", config, tmp_path, "--trainer.fast_dev_run=2") == 0
    assert "3 steps of the head alone, 2 batches" in capfd.readouterr().out
