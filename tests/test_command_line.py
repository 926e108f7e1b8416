"""The verbs as a user calls them, and what bad input gets."""

import csv
import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import cli
from experiments import command_line
from experiments.run_folder import RunFolder
from tests.command_line import differences, outcome, run, write_config

ROOT = Path(__file__).parents[1]


def test_help_and_reports_of_results_import_nothing_heavy():
    heavy = "print(*(name for name in ('torch', 'lightning', 'pandas') if name in sys.modules))"
    code = f"import cli, sys; cli.main(['--help']); {heavy}; import experiments.report.command; {heavy}"
    output = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "usage: python cli.py" in output
    assert output.endswith("\n\npandas\n")


@pytest.mark.slow
def test_fit_leaves_the_promised_files(finished_run):
    folder = finished_run[1] / "tiny"
    names = {path.name for path in folder.iterdir()}
    assert {"config.yaml", "checkpoints", "metrics.csv", "ranks.json", "results.json", "rank_map.png"} <= names
    assert any(name.startswith("events.out.tfevents.") for name in names)
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt", "previous.ckpt"}
    assert not list(folder.rglob("*.partial"))


def test_results_agree_with_the_other_files(finished_run):
    folder = finished_run[1] / "tiny"
    results = json.loads((folder / "results.json").read_text())
    ranks = json.loads((folder / "ranks.json").read_text())
    rows = {"train": 40, "validation": 12, "test": 12}
    counted = {f"{split}_rows": count for split, count in rows.items()}
    assert results["data"] == {"name": "glue/cola", **counted, "truncated_rows": dict.fromkeys(rows, 0)}
    assert results["budget"]["used"] == sum(rank**2 for rank in ranks["layers"].values())
    assert results["budget"]["used"] <= results["budget"]["requested"] == 8 * 5**2
    assert results["average_rank"] == sum(ranks["layers"].values()) / 8
    assert results["trainable_parameters"] == {"adapter": 8 * 64, "allocation": 8, "head": 34, "total": 8 * 64 + 42}
    assert len(results["train_losses"]) == len(results["val_losses"]) == 3
    rows = list(csv.DictReader((folder / "metrics.csv").read_text().splitlines()))
    assert [row["step"] for row in rows] == [str(step) for step in range(16)]
    tested = {name: value for name, value in rows[-1].items() if value}  # after the last step: the test
    assert float(tested["test/matthews_correlation"]) == results["test"]["matthews_correlation"]
    values = [float(row["val/matthews_correlation"]) for row in rows if row["val/matthews_correlation"]]
    best = {"best": max(values), "best_epoch": values.index(max(values)), "last": values[-1]}
    assert results["metric"] == {"name": "matthews_correlation", "higher_is_better": True, **best}
    assert [entry["step"] for entry in ranks["history"]] == [0, 5, 10, 15]
    assert ranks["history"][0]["alpha"] == 0.5
    assert ranks["history"][-1]["alpha"] == 3.0
    assert ranks["history"][-1]["ranks"] == list(ranks["layers"].values())  # of the last, discrete epoch
    assert ranks["history"][-2]["ranks"] != [round(rank) for rank in ranks["history"][-2]["ranks"]]


def test_an_existing_run_is_refused_with_three_ways_out(finished_run, capsys):
    config, runs_dir = finished_run
    before = (runs_dir / "tiny" / "results.json").read_bytes()
    assert run("fit", config, runs_dir) == 2
    message = capsys.readouterr().err
    assert all(way in message for way in ("--ckpt_path last", "--run_name", "--overwrite"))
    assert (runs_dir / "tiny" / "results.json").read_bytes() == before


@pytest.mark.parametrize(
    "options",
    [["--data.data_dir", "/no/such"], ["--model.backbone", "./nowhere"], ["--budget_schedule.memory_start", "1e9"],
     ["--model.init_from", "/no/such"], ["--trainer.val_check_interval", "0.5"]],
)  # fmt: skip
def test_overwrite_costs_no_run_when_the_new_one_cannot_begin(finished_run, capsys, options):
    config, runs_dir = finished_run
    before = {path: path.stat().st_mtime_ns for path in (runs_dir / "tiny").rglob("*.*")}
    assert run("fit", config, runs_dir, "--overwrite", *options) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert before.items() <= {path: path.stat().st_mtime_ns for path in (runs_dir / "tiny").rglob("*.*")}.items()


def test_the_ways_out_can_be_pasted_into_a_shell(tmp_path, capsys):
    runs_dir = tmp_path / "my runs"
    (runs_dir / "tiny" / "checkpoints").mkdir(parents=True)
    config = write_config(tmp_path, "none", "none")
    assert run("fit", config, runs_dir, "--data.task=cola") == 2
    line = next(line for line in capsys.readouterr().err.splitlines() if "start another" in line)
    told = shlex.split(line.partition("python cli.py ")[2])
    asked = ["--config", str(config), "--runs_dir", str(runs_dir), "--data.task=cola"]
    assert told == ["fit", *asked, "--run_name", "NAME"]


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (["--overwrite"], ["--ckpt_path", "last"]),
        (["--ckpt_path", "last"], ["--ckpt_path", "last"]),
        (["--ckpt_path=last"], ["--ckpt_path=last"]),
        (["--ckpt_path", "best"], ["--ckpt_path", "best", "--ckpt_path", "last"]),
        (["--runs_dir", "a b"], ["--runs_dir", "a b", "--ckpt_path", "last"]),
    ],
)
def test_a_stopped_run_goes_on_from_its_own_last_checkpoint(tmp_path, typed, expected):
    folder = RunFolder(tmp_path)
    folder.checkpoints.mkdir()
    (folder.checkpoints / "last.ckpt").touch()
    line = command_line._how_to_go_on(["fit", "--config", "x.yaml", *typed], folder).splitlines()[-1]
    assert shlex.split(line) == ["python", "cli.py", "fit", "--config", "x.yaml", *expected]


@pytest.mark.slow
def test_overwrite_starts_anew_and_more_callbacks_keep_ours(tmp_path, tiny_bert, cola_folder):
    config = write_config(tmp_path, tiny_bert, cola_folder)
    short = ("--trainer.max_epochs", "1", "--rank_discretisation.epochs_rank_discrete", "0")
    assert run("fit", config, tmp_path, *short) == 0
    board = len(list((tmp_path / "tiny").glob("events.out.tfevents.*")))
    more = "--trainer.callbacks+=lightning.pytorch.callbacks.ModelSummary"
    assert run("fit", config, tmp_path, "--overwrite", *short, more) == 0
    boards = list((tmp_path / "tiny").glob("events.out.tfevents.*"))
    assert len(boards) == board  # none of the old run, all of the new
    assert all(b"brain.Event:2" in path.read_bytes()[:64] for path in boards)  # the record each file begins with
    history = json.loads((tmp_path / "tiny" / "ranks.json").read_text())["history"]
    assert history[-1]["alpha"] == 3.0  # alpha grew although the list of callbacks was given


def test_a_run_that_diverges_exits_with_1_and_what_it_came_to_is_written(tmp_path, tiny_bert, cola_folder, capsys):
    config = write_config(tmp_path, tiny_bert, cola_folder)
    rates = ("--model.optimizer.learning_rate", "1e30", "--model.optimizer.head_learning_rate", "1e30")
    assert run("fit", config, tmp_path, *rates) == 1
    said = capsys.readouterr()
    assert json.loads((tmp_path / "tiny" / "results.json").read_text())["status"] == "diverged"
    assert "error: the run diverged" in said.err and "learning_rate" in said.err
    there = (tmp_path / "tiny" / "checkpoints" / "last.ckpt").exists()
    assert there == ("--ckpt_path last" in said.err + said.out) != ("Start again with --overwrite" in said.err)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--data.batchsize", "4"], ["no option 'batchsize'", "Did you mean", "batch_size"]),
        (["--model.backbone", "./no_such_model"], ["no_such_model"]),
        (["--ckpt_path", "last"], ["last.ckpt", "no run was begun"]),
    ],
)
def test_bad_input_gets_one_message_and_exit_code_2(tmp_path, tiny_bert, cola_folder, capsys, options, expected):
    config = write_config(tmp_path, tiny_bert, cola_folder)
    assert run("fit", config, tmp_path, *options) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert "Traceback" not in message
    assert all(part in message for part in expected), message
    assert not (tmp_path / "tiny" / "config.yaml").exists()


@pytest.mark.parametrize("verb", ["validate", "test", "predict"])
def test_evaluating_without_trained_weights_is_refused(finished_run, capsys, verb):
    assert run(verb, *finished_run) == 2
    assert "ckpt_path isn't given" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a\nb" * 100, "\x1b[2J\u202e", "x" * 9000])
def test_a_message_is_ten_lines_that_a_terminal_shows_as_they_are(tmp_path, capsys, name):
    for words in (["report", f"--{name}", "x"], ["report", str(tmp_path / name)], ["export", "x", "--format", name]):
        assert cli.main(words) == 2
        message = capsys.readouterr().err
        assert len(message.splitlines()) <= 10 and len(message) < 2500
        assert all(line.isprintable() for line in message.splitlines())


def test_unknown_verbs_and_configs_are_named(capsys):
    assert cli.main(["fit"]) == 2
    assert "--config quickstart.yaml" in capsys.readouterr().err
    assert cli.main(["fitt"]) == 2
    assert "'fit'" in capsys.readouterr().err
    assert cli.main(["fit", "--config", "quikstart.yaml", "--debug"]) == 2
    assert "quickstart.yaml" in (message := capsys.readouterr().err) and "Traceback" in message


@pytest.mark.slow
def test_ranks_and_budget_of_the_best_epoch_are_its_own(tiny_bert, cola_folder, tmp_path):
    """With a rate of 0 the first epoch is best; the budget grows in the second."""
    config = write_config(tmp_path, tiny_bert, cola_folder)
    rates = [f"--model.optimizer.{name}=0" for name in ("learning_rate", "head_learning_rate")]
    budget = {"memory_start": 100, "memory_end": 300, "epochs_memory_start": 1, "epochs_memory_start_to_end": 1}
    assert run("fit", config, tmp_path, *rates, *(f"--budget_schedule.{name}={v}" for name, v in budget.items())) == 0
    results = json.loads((tmp_path / "tiny" / "results.json").read_text())
    best = results["at_best_epoch"]
    assert results["metric"]["best_epoch"] == 0
    assert best["budget"]["requested"] < 150 < results["budget"]["requested"]
    assert best["budget"]["used"] <= best["budget"]["requested"]
    layers = len(json.loads((tmp_path / "tiny" / "ranks.json").read_text())["layers"])
    for summary in (best, results):
        assert layers * summary["equal_area_rank"] ** 2 == pytest.approx(summary["budget"]["used"])
        assert summary["equal_area_rank"] >= summary["average_rank"]


@pytest.mark.parametrize("taken", [False, True])
def test_a_run_whose_folder_is_moved_ends_and_writes_into_no_other(finished_run, tmp_path, capsys, taken):
    config, other = finished_run[0], str(finished_run[1] / "tiny")
    moved = {"folder": str(tmp_path / "tiny"), "to": str(tmp_path / "moved"), "other": other if taken else None}
    move = json.dumps({"class_path": "tests.command_line.MoveAt", "init_args": moved})
    assert run("fit", config, tmp_path, f"--trainer.callbacks={move}", "--checkpoint_every_n_steps=1") == 2
    said = capsys.readouterr().err
    assert f"was moved or deleted, or its disk has gone, while this run wrote into it. It is {tmp_path}/moved" in said
    way_on = f"--runs_dir {tmp_path} --run_name moved --ckpt_path last"
    assert way_on in said and "Traceback" not in said
    there, expected = (
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (tmp_path / "tiny", Path(other))
    )
    for path in there.keys() - expected.keys():  # TensorBoard's thread may have opened a file of its own
        assert path.name.startswith("events.out.tfevents.")
    assert {path: there[path] for path in there.keys() & expected.keys()} == (expected if taken else {})
    assert run("fit", config, tmp_path, *way_on.split()[2:]) == 0
    assert differences(outcome(finished_run[1] / "tiny"), outcome(tmp_path / "moved")) == []
