"""What a sweep's trials keep of their checkpoints once they have finished."""

import json
import shutil

import pytest

from common.locks import locked
from experiments import run_folder
from tests.command_line import write_config
from tests.experiments.sweeps import RATES, KilledError, end_run, sweep, write_sweep

FIRST, SECOND = (f"learning_rate_{rate}" for rate in RATES)
NAMES = ["best.ckpt", "last.ckpt", "previous.ckpt"]


@pytest.fixture(scope="module")
def begun(tmp_path_factory, tiny_bert, cola_folder):
    """A sweep that keeps all and was killed in its second trial: its file and its runs folder."""
    runs_dir = tmp_path_factory.mktemp("begun")
    path = write_sweep(runs_dir, write_config(runs_dir, tiny_bert, cola_folder))
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KilledError):
        end_run(patch, SECOND, 7, KilledError())
        sweep(path, runs_dir)
    return path, runs_dir


@pytest.fixture
def copy(begun, tmp_path):
    """The same in a folder of the test's own."""
    shutil.copytree(begun[1] / "small", tmp_path / "small")
    assert kept(tmp_path) == [NAMES, NAMES]
    return begun[0], tmp_path


def kept(runs_dir):
    folders = [runs_dir / "small" / trial / "checkpoints" for trial in (FIRST, SECOND)]
    return [sorted(path.name for path in folder.glob("*")) for folder in folders]


@pytest.mark.parametrize(("option", "left"), [("all", NAMES), ("best", ["best.ckpt"]), ("none", [])])
def test_finished_trials_drop_theirs_and_a_begun_one_goes_on_from_its_own(copy, option, left):
    path, runs_dir = copy
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KilledError):
        end_run(patch, SECOND, 8, KilledError())
        sweep(path, runs_dir, "--keep_checkpoints", option)
    assert kept(runs_dir) == [left, NAMES]
    assert sweep(path, runs_dir, "--keep_checkpoints", option) == 0
    assert kept(runs_dir) == [left, left]
    assert "last.ckpt: epoch 1, step 8." in (runs_dir / "small" / SECOND / "log.txt").read_text()
    trials = json.loads((runs_dir / "small" / "results.json").read_text())["trials"]
    assert [trial["name"] for trial in trials if trial["results"] is not None] == [FIRST, SECOND]


def test_the_last_checkpoint_counts_as_best_where_no_validation_chose_one(copy):
    path, runs_dir = copy
    (runs_dir / "small" / FIRST / "checkpoints" / "best.ckpt").unlink()
    assert sweep(path, runs_dir, "--keep_checkpoints", "best") == 0
    assert kept(runs_dir) == [["last.ckpt"], ["best.ckpt"]]


@pytest.mark.parametrize("lock", [f".locks/{FIRST}", f"{FIRST}/.lock"])  # of another sweep's process, of a fit by hand
def test_a_trial_that_another_process_holds_is_left_alone(copy, monkeypatch, lock):
    monkeypatch.setattr(run_folder, "_PATIENCE_SECONDS", 0.2)
    path, runs_dir = copy
    with locked(runs_dir / "small" / lock):
        assert sweep(path, runs_dir, "--keep_checkpoints", "none") == 0
    assert kept(runs_dir) == [NAMES, []]


def test_another_value_is_refused(copy, capsys):
    path, runs_dir = copy
    assert sweep(path, runs_dir, "--keep_checkpoints", "last") == 2
    assert "'last'" in capsys.readouterr().err
    assert kept(runs_dir) == [NAMES, NAMES]


def test_a_finished_trial_whose_results_are_lost_keeps_its_checkpoint(copy, capsys):
    path, runs_dir = copy
    assert sweep(path, runs_dir, "--keep_checkpoints", "best") == 0
    trial = runs_dir / "small" / FIRST
    whole = (trial / "results.json").read_text()
    (trial / "results.json").write_text(whole[:40])
    assert sweep(path, runs_dir) == 2
    message = capsys.readouterr().err
    assert "Put back a copy" in message and "is kept" not in message
    (trial / "results.json").unlink()
    assert sweep(path, runs_dir) == 1
    assert "its results.json is gone" in json.loads((trial / "failure.json").read_text())["error"]
    assert kept(runs_dir) == [["best.ckpt"], ["best.ckpt"]]
    (trial / "results.json").write_text(whole)
    assert sweep(path, runs_dir) == 0
