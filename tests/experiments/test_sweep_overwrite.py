"""sweep --overwrite: what it deletes, and what it must not."""

import pytest

from common.locks import locked
from experiments import run_folder
from experiments.sweep.folder import SweepFolder
from tests.command_line import write_config
from tests.experiments.sweeps import RATES, sweep, trial_folders, write_sweep


@pytest.fixture
def made(tmp_path, tiny_bert, cola_folder):
    """The file of a sweep and its runs folder, where both trials look finished."""
    path = write_sweep(tmp_path, write_config(tmp_path, tiny_bert, cola_folder))
    folder = tmp_path / "small"
    for rate in RATES:
        trial = folder / f"learning_rate_{rate}"
        trial.mkdir(parents=True)
        (trial / "config.yaml").write_text("{}")
        (trial / "results.json").write_text("{}")
    (folder / "sweep.yaml").write_text(path.read_text())
    return path, tmp_path


def test_it_deletes_a_sweep_and_nothing_else(made, capsys):
    path, runs_dir = made
    (runs_dir / "mine").mkdir()
    (runs_dir / "mine" / "thesis.tex").write_text("years of work")
    for dry in ([], ["--dry_run"]):
        assert sweep(path, runs_dir, "--run_name", "mine", "--overwrite", *dry) == 2
        assert "holds no sweep" in capsys.readouterr().err
    assert (runs_dir / "mine" / "thesis.tex").exists()
    SweepFolder(runs_dir / "small").clear()
    assert not list((runs_dir / "small").glob("*.yaml")) and not trial_folders(runs_dir / "small")


def test_a_part_deletes_nothing_of_the_others(made, capsys):
    path, runs_dir = made
    assert sweep(path, runs_dir, "--overwrite", "--part", "2/2") == 2
    assert "delete what the other parts are doing" in capsys.readouterr().err
    assert len(trial_folders(runs_dir / "small")) == 2


def test_a_trial_that_somebody_runs_by_hand_is_not_deleted(made, capsys, monkeypatch):
    monkeypatch.setattr(run_folder, "_PATIENCE_SECONDS", 0.2)
    path, runs_dir = made
    with locked(runs_dir / "small" / f"learning_rate_{RATES[1]}" / ".lock"):
        assert sweep(path, runs_dir, "--overwrite") == 2
    assert "being written by another run" in capsys.readouterr().err
    assert len(trial_folders(runs_dir / "small")) == 2


@pytest.mark.parametrize(("restarts", "state"), [("0", "waiting"), ("1", "finished")])
def test_a_dry_run_tells_what_would_run(made, capsys, monkeypatch, restarts, state):
    """All of them, but not once SLURM has started the job again: it goes on with its own trials then."""
    monkeypatch.setenv("SLURM_RESTART_COUNT", restarts)
    path, runs_dir = made
    sweep(path, runs_dir, "--overwrite", "--dry_run")
    told = capsys.readouterr().out
    assert told.count(f"│ {state} ") == 2 and ("0 still to run" in told) == (state == "finished")
    assert len(trial_folders(runs_dir / "small")) == 2
