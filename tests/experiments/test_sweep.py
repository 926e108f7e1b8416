"""Sweeps as a user runs them: undisturbed, killed, failing, in worker processes, and given bad input."""

import importlib.util
import json
import shutil

import pytest
import torch
import yaml

import cli
from experiments.sweep.folder import SweepFolder
from tests.command_line import differences, outcome, write_config
from tests.experiments.sweeps import RATES, KilledError, end_run, sweep, trial_folders, write_sweep

FIRST, SECOND = (f"learning_rate_{rate}" for rate in RATES)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_bert, cola_folder):
    """A sweep's file and its runs folder, run without disturbance."""
    runs_dir = tmp_path_factory.mktemp("sweep")
    path = write_sweep(runs_dir, write_config(runs_dir, tiny_bert, cola_folder))
    assert sweep(path, runs_dir) == 0
    return path, runs_dir


@pytest.fixture
def copy(finished, tmp_path):
    """The same in a folder of the test's own."""
    shutil.copytree(finished[1] / "small", tmp_path / "small")
    return finished[0], tmp_path


def figures(sweep_folder):
    """results.json without times and memory."""
    trials = json.loads((sweep_folder / "results.json").read_text())["trials"]
    for trial in trials:
        for name in ("throughput", "wall_seconds", "peak_memory_bytes"):
            trial["results"].pop(name)
    return trials


@pytest.mark.slow
def test_each_trial_is_the_run_that_fit_would_be(finished, tmp_path):
    path, runs_dir = finished
    base = yaml.safe_load(path.read_text())["config"]
    options = ["--trainer.max_epochs", "2", f"--model.optimizer.learning_rate={RATES[1]}", "--run_name", SECOND]
    assert cli.main(["fit", "--config", base, "--runs_dir", str(tmp_path), *options]) == 0
    assert differences(outcome(tmp_path / SECOND), outcome(runs_dir / "small" / SECOND)) == []


def test_results_hold_every_trials_overrides_and_results(finished):
    folder = finished[1] / "small"
    trials = json.loads((folder / "results.json").read_text())["trials"]
    assert [trial["overrides"] for trial in trials] == [{"model.optimizer.learning_rate": rate} for rate in RATES]
    for trial, name in zip(trials, (FIRST, SECOND)):
        assert trial["results"] == json.loads((folder / name / "results.json").read_text())
    assert yaml.safe_load((folder / "sweep.yaml").read_text()) == yaml.safe_load(finished[0].read_text())
    assert "train loss" in (folder / FIRST / "log.txt").read_text()


def test_finished_trials_are_skipped_and_a_lost_summary_is_made_again(copy, capsys):
    path, runs_dir = copy
    before = {file: file.stat().st_mtime_ns for file in runs_dir.glob("small/*/results.json")}
    (runs_dir / "small" / "results.json").write_text('{"trials": [')
    assert sweep(path, runs_dir) == 0
    assert before == {file: file.stat().st_mtime_ns for file in runs_dir.glob("small/*/results.json")}
    assert len(figures(runs_dir / "small")) == 2


@pytest.mark.slow
def test_a_killed_sweep_goes_on_to_the_same_results(finished, tmp_path, monkeypatch):
    path, runs_dir = finished
    with monkeypatch.context() as patch, pytest.raises(KilledError):
        end_run(patch, SECOND, 7, KilledError())
        sweep(path, tmp_path)
    assert not (tmp_path / "small" / SECOND / "results.json").exists()
    assert sweep(path, tmp_path) == 0
    assert figures(tmp_path / "small") == figures(runs_dir / "small")
    for trial in (FIRST, SECOND):
        assert differences(outcome(runs_dir / "small" / trial), outcome(tmp_path / "small" / trial)) == []


@pytest.mark.slow
def test_a_failed_trial_is_recorded_the_rest_go_on_and_it_is_tried_again(finished, tmp_path, monkeypatch, capsys):
    path, runs_dir = finished
    with monkeypatch.context() as patch:
        end_run(patch, FIRST, 3, RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"))
        assert sweep(path, tmp_path) == 1
    first, second = json.loads((tmp_path / "small" / "results.json").read_text())["trials"]
    assert (first["status"], first["results"]) == ("failed", None)
    assert first["error"].startswith("out of memory")
    assert second["results"]["status"] in ("finished", "collapsed")
    assert "Traceback" in (tmp_path / "small" / FIRST / "log.txt").read_text()
    assert sweep(path, tmp_path) == 0
    assert figures(tmp_path / "small") == figures(runs_dir / "small")
    assert not (tmp_path / "small" / FIRST / "failure.json").exists()


RAY = ("--engine", "ray")


@pytest.mark.slow
@pytest.mark.parametrize("options", [("--jobs", "2"), (*RAY, "--cpus_per_trial", "1")], ids=["workers", "ray"])
def test_worker_processes_give_the_same_folder(finished, tmp_path, options):
    path, runs_dir = finished
    if RAY[0] in options:
        pytest.importorskip("ray")
    else:  # one worker is enough: test_sweep_workers.py has two at once
        shutil.copytree(runs_dir / "small", tmp_path / "small", ignore=shutil.ignore_patterns(SECOND))
    torch.set_num_threads(1)
    assert sweep(path, tmp_path, *options) == 0
    assert [folder.name for folder in trial_folders(tmp_path / "small")] == [FIRST, SECOND]
    ours, theirs = figures(tmp_path / "small"), figures(runs_dir / "small")
    for mine, other in zip(ours, theirs):
        assert mine["results"]["val_losses"] == pytest.approx(other["results"]["val_losses"], rel=1e-4)
        assert mine["overrides"] == other["overrides"]


@pytest.mark.slow
def test_parts_together_make_the_sweep(finished, tmp_path):
    path, runs_dir = finished
    assert sweep(path, tmp_path, "--part", "2/2") == 0
    first, _ = json.loads((tmp_path / "small" / "results.json").read_text())["trials"]
    assert first["status"] == "waiting"
    assert sweep(path, tmp_path, "--part", "1/2") == 0
    assert figures(tmp_path / "small") == figures(runs_dir / "small")


def test_a_dry_run_lists_trials_and_writes_nothing(finished, tmp_path, capsys):
    assert sweep(finished[0], tmp_path, "--dry_run") == 0
    output = capsys.readouterr().out
    assert FIRST in output and SECOND in output and "0 of 2 done, 0 running, 2 left." in output
    assert f"--runs_dir {tmp_path}\n" in output.partition("One trial by hand:")[2]
    assert not (tmp_path / "small").exists()
    assert sweep(finished[0], finished[1], "--dry_run") == 0
    assert "2 of 2 done, 0 running, 0 left, best" in capsys.readouterr().out
    assert sweep(finished[0], finished[1], "--dry_run", "--part", "3/3") == 0
    assert "This part has no trial" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"grid": {"model.optimizer.learning_rte": [1]}}, ["learning_rte"]),
        ({"grid": {"model.adapter.rank_min": [2, 9]}}, ["rank_min_9", "rank_min is 9", "none was started"]),
        ({"grid": {"seed_everything": [0, 1], "trainer.max_epochs": [1, 1.5]}}, ["max_epochs_1.5", "1.5", "number"]),
        ({"zip": {f"budget_schedule.memory_{end}": [40, 4e6] for end in ("start", "end")}}, ["4,000,000", "allowed"]),
        ({"grid": {"data.data_dir": ["/no/such/folder"]}}, ["/no/such/folder"]),
        ({"config": "no_such.yaml"}, ["no_such.yaml"]),
    ],
)
def test_bad_grids_are_refused_before_any_trial_starts(finished, tmp_path, capsys, changes, expected):
    content = {**yaml.safe_load(finished[0].read_text()), **changes}
    path = tmp_path / "bad.yaml"
    path.write_text(yaml.safe_dump(content))
    code = sweep(path, tmp_path)
    message = capsys.readouterr().err
    assert code == 2 and message.startswith("error: ") and "Traceback" not in message
    assert all(part in message for part in expected), message
    assert not trial_folders(tmp_path / "bad")


def test_a_dry_run_lists_trials_that_do_not_fit_and_says_so(finished, tmp_path, capsys):
    path = write_sweep(
        tmp_path, yaml.safe_load(finished[0].read_text())["config"], grid={"model.adapter.rank_min": [9]}
    )
    assert sweep(path, tmp_path, "--dry_run") == 2
    shown = capsys.readouterr()
    assert "rank_min_9" in shown.out
    assert shown.err.startswith("error: trial rank_min_9 can't run")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--jobs", "0"], "jobs is 0; allowed: 1 or more"),
        (["--engine", "slurm"], "slurm"),
        (["--engine", "ray", "--jobs", "2"], "--jobs belongs to the local engine"),
        (["--engine", "ray", "--cpus_per_trial", "-1"], "cpus_per_trial is -1.0; allowed: 0 or more"),
        (["--engine", "ray", "--gpus_per_trial", "nan"], "gpus_per_trial is nan; allowed: 0 or more"),
        (["--ray_address", "auto"], "--ray_address is given without --engine ray"),
        (["--cpus_per_trial", "1"], "--cpus_per_trial is given without --engine ray"),
        (["--gpus_per_trial", "0"], "--gpus_per_trial is given without --engine ray"),
        (["--keep_checkpoints", "last"], "'last'"),
        (["--part", "3/2"], "part is '3/2'"),
        (["--part", "1/" + "9" * 5000], "part is '1/9999"),
        (["--extend", "--overwrite"], "--extend keeps the trials"),
        (["--extend", "--part=1/2"], "without --part"),
        (["--overwrite", "--part", "2/2"], "delete what the other parts are doing"),
        (["--stop_early", "--part", "1/2"], "--stop_early compares trials that --part leaves to others"),
        (["--run_name", "a/b"], "run_name is 'a/b'"),
        (["--data.batch_size"], "needs a value"),
        (["stray"], "'stray'"),
        (["--model.optimizer.learning_rate", "1"], "the sweep varies it"),
        (["--trainer.max_epox", "1"], "max_epox"),
    ],
)
def test_bad_options_are_refused_before_anything_is_done(finished, tmp_path, capsys, options, expected):
    assert sweep(finished[0], tmp_path, *options) == 2
    shown = capsys.readouterr()
    assert expected in shown.err and not shown.out
    assert list(tmp_path.iterdir()) == []


def test_another_grid_in_the_folder_is_refused_with_ways_out(copy, capsys):
    path, runs_dir = copy
    before = (runs_dir / "small" / "results.json").read_bytes()
    assert sweep(path, runs_dir, "--trainer.max_epochs", "3") == 2
    message = capsys.readouterr().err
    assert all(part in message for part in ("another grid", "max_epochs", "--run_name", "--overwrite"))
    assert (runs_dir / "small" / "results.json").read_bytes() == before


def test_a_changed_base_config_is_refused(copy, tmp_path, tiny_bert, cola_folder, capsys):
    path, runs_dir = copy
    config = write_config(tmp_path, tiny_bert, cola_folder)
    config.write_text(config.read_text().replace("batch_size: 8", "batch_size: 4"))
    definition = yaml.safe_load(path.read_text()) | {"config": str(config)}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(definition))
    (runs_dir / "small" / "sweep.yaml").write_text(yaml.safe_dump(definition))
    assert sweep(tmp_path / "small.yaml", runs_dir) == 2
    assert "batch_size: 8 -> 4" in capsys.readouterr().err


@pytest.mark.parametrize(("first", "second"), [("whole", "part"), ("part", "whole"), ("part", "part")])
def test_two_sweeps_keep_apart_but_for_parts_of_one(copy, capsys, first, second):
    path, runs_dir = copy
    refused = (first, second) != ("part", "part")
    with SweepFolder(runs_dir / "small").sweep_lock(is_part=first == "part"):
        assert sweep(path, runs_dir, *(["--part", "1/2"] if second == "part" else [])) == (2 if refused else 0)
    assert ("another sweep is at work" in capsys.readouterr().err) == refused
    assert sweep(path, runs_dir) == 0


def test_ray_that_is_not_installed_is_named(finished, tmp_path, capsys, monkeypatch):
    original = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "ray" else original(name, *rest)
    )
    assert sweep(finished[0], tmp_path, "--engine", "ray") == 2
    assert "Ray is not installed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--ray_address", "auto"], "no Ray can be reached at auto"),
        (["--cpus_per_trial", "100000"], "cpus_per_trial is 100000"),
    ],
)
def test_a_cluster_that_does_not_answer_or_has_too_little_is_named(finished, tmp_path, capsys, options, said):
    pytest.importorskip("ray")
    assert sweep(finished[0], tmp_path, *RAY, *options) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("options", [[], ["--run_name", "x" * 300]])
def test_a_folder_that_cannot_be_one_is_said(finished, tmp_path, capsys, options):
    (tmp_path / "file").touch()
    place = tmp_path if options else tmp_path / "file"
    assert sweep(finished[0], place, *options) == 2
    assert "as a path" in capsys.readouterr().err
