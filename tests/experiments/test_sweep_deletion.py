"""What a sweep deletes, with --overwrite and before it begins a trial anew, and what it must not."""

import json
import shutil

import pytest
import yaml

from callbacks.checkpoints import WholeFileCheckpoints, read_checkpoint
from common.locks import locked
from experiments import run_folder
from experiments.sweep.deletion import clear
from experiments.sweep.folder import SweepFolder
from tests.command_line import write_config
from tests.experiments.sweeps import RATES, KilledError, end_run, sweep, trial_folders, write_sweep

FIRST, SECOND = (f"learning_rate_{rate}" for rate in RATES)


def files(folder):
    """Content of all files, and targets of links, but for locks."""
    found = [path for path in folder.rglob("*") if ".locks" not in path.parts and path.name != ".lock"]
    return {path: path.readlink() if path.is_symlink() else path.is_file() and path.read_bytes() for path in found}


@pytest.fixture
def made(tmp_path, tiny_bert, cola_folder):
    """The file of a sweep and its runs folder, where both trials look finished and there is a report."""
    path = write_sweep(tmp_path, write_config(tmp_path, tiny_bert, cola_folder))
    folder = tmp_path / "small"
    for name in (f"{FIRST}/checkpoints/best.ckpt", f"{SECOND}/events.out.tfevents.1.host", "figures/a.png"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).touch()
    for name in ("config.yaml", "results.json", "log.txt"):
        for trial in (FIRST, SECOND):
            (folder / trial / name).write_text("{}")
    (folder / "sweep.yaml").write_text(path.read_text())
    (folder / "report.html").touch()
    return path, tmp_path


@pytest.mark.parametrize("lost", [None, "sweep.yaml"])
def test_overwrite_deletes_a_sweep_with_its_report(made, lost):
    if lost:
        (made[1] / "small" / lost).unlink()
    clear(SweepFolder(made[1] / "small"))
    assert not (made[1] / "small").exists()


@pytest.mark.parametrize(
    "name", ["thesis.tex", f"{FIRST}/notes.md", f"{FIRST}/checkpoints/mine/a.pt", ".git/HEAD", "mine/config.yaml"]
)
def test_overwrite_deletes_nothing_where_there_is_a_file_of_the_users(made, name, capsys):
    path, runs_dir = made
    (runs_dir / "small" / name).parent.mkdir(exist_ok=True, parents=True)
    (runs_dir / "small" / name).write_text("years of work")
    before = files(runs_dir)
    assert sweep(path, runs_dir, "--overwrite") == 2
    assert f"{name} isn't known to be written by a sweep" in capsys.readouterr().err
    assert files(runs_dir) == before


@pytest.mark.parametrize("dry", [["--dry_run"], []])
def test_overwrite_deletes_no_folder_that_no_sweep_wrote(made, dry, capsys):
    path, runs_dir = made
    (runs_dir / "mine").mkdir()
    (runs_dir / "mine" / "results.json").write_text("years of work")
    assert sweep(path, runs_dir, "--run_name", "mine", "--overwrite", *dry) == 2
    assert "holds no sweep" in capsys.readouterr().err
    assert (runs_dir / "mine" / "results.json").exists()


def test_a_trial_that_somebody_runs_by_hand_is_not_deleted(made, capsys, monkeypatch):
    monkeypatch.setattr(run_folder, "_PATIENCE_SECONDS", 0.0)
    path, runs_dir = made
    before = files(runs_dir)
    with locked(runs_dir / "small" / SECOND / ".lock"):
        assert sweep(path, runs_dir, "--overwrite") == 2
    assert "being written by another run" in capsys.readouterr().err
    assert files(runs_dir) == before


@pytest.mark.parametrize(("restarts", "state"), [("0", "waiting"), ("1", "begun")])
def test_a_dry_run_tells_what_would_run(begun, capsys, monkeypatch, restarts, state):
    """All of them, but not once SLURM has started the job again: it goes on with its own trials then."""
    monkeypatch.setenv("SLURM_RESTART_COUNT", restarts)
    path, runs_dir = begun
    assert sweep(path, runs_dir, "--overwrite", "--dry_run") == 0
    told = capsys.readouterr().out
    assert f"│ {state} " in told and ("1 of 2 done" in told) == (state == "begun")
    assert len(trial_folders(runs_dir / "small")) == 2


@pytest.fixture(scope="module")
def killed(tmp_path_factory, tiny_bert, cola_folder):
    """A sweep that was killed in its second trial: its file and its runs folder."""
    runs_dir = tmp_path_factory.mktemp("begun")
    path = write_sweep(runs_dir, write_config(runs_dir, tiny_bert, cola_folder))
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KilledError):
        end_run(patch, SECOND, 7, KilledError())
        sweep(path, runs_dir)
    return path, runs_dir


@pytest.fixture
def begun(killed, tmp_path):
    """The same in a folder of the test's own."""
    shutil.copytree(killed[1] / "small", tmp_path / "small")
    return killed[0], tmp_path


def damage(path):
    path.write_bytes(path.read_bytes()[:-200])


def make_newer(path):
    content = read_checkpoint(path)
    content["rankwise"]["format"] = 99
    WholeFileCheckpoints().save_checkpoint(content, path)


@pytest.mark.parametrize(
    ("change", "names", "said"),
    [
        (damage, ["best.ckpt"], "best.ckpt is damaged"),
        (damage, ["best.ckpt", "last.ckpt", "previous.ckpt"], "last.ckpt can't be read"),
        (make_newer, ["best.ckpt", "last.ckpt", "previous.ckpt"], "format is 99"),
        (lambda path: path.unlink(), ["last.ckpt"], "no last.ckpt is left"),
    ],
)
def test_a_begun_trial_that_cannot_go_on_fails_and_is_kept(begun, change, names, said):
    path, runs_dir = begun
    trial = runs_dir / "small" / SECOND
    for name in names:
        change(trial / "checkpoints" / name)
    before = files(trial / "checkpoints")
    for attempt in (1, 2) if change is make_newer else (1,):
        assert sweep(path, runs_dir) == 1
        failure = json.loads((trial / "failure.json").read_text())
        assert said in failure["error"] and "Nothing was deleted" in failure["error"]
        assert failure["attempts"] == attempt
    assert files(trial / "checkpoints") == before


def test_a_trial_stopped_before_its_first_checkpoint_begins_anew_unless_a_users_file_is_there(begun):
    path, runs_dir = begun
    trial = runs_dir / "small" / SECOND
    shutil.rmtree(trial / "checkpoints")
    (trial / "notes.md").write_text("what I saw")
    before = {name: content for name, content in files(trial).items() if name.name != "log.txt"}
    assert sweep(path, runs_dir) == 1
    assert "notes.md isn't known to be written" in json.loads((trial / "failure.json").read_text())["error"]
    assert before.items() <= files(trial).items()
    (trial / "notes.md").unlink()
    assert sweep(path, runs_dir) == 0
    assert not (trial / "failure.json").exists()


@pytest.mark.slow
def test_a_trial_that_somebody_runs_by_hand_is_left_to_them(tmp_path, tiny_bert, cola_folder, monkeypatch, capsys):
    monkeypatch.setattr(run_folder, "_PATIENCE_SECONDS", 0.0)
    path = write_sweep(tmp_path, write_config(tmp_path, tiny_bert, cola_folder))
    theirs = tmp_path / "small" / FIRST
    theirs.mkdir(parents=True)
    (theirs / "mine.txt").write_text("just begun, no checkpoint yet")
    (tmp_path / "small" / "sweep.yaml").write_text(yaml.safe_dump(yaml.safe_load(path.read_text())))
    with locked(theirs / ".lock"):
        assert sweep(path, tmp_path) == 1
    assert sorted(file.name for file in theirs.iterdir()) == [".lock", "mine.txt"]
    first, second = json.loads((tmp_path / "small" / "results.json").read_text())["trials"]
    assert (first["status"], first["results"]) == ("waiting", None)
    assert second["results"] is not None
    assert f"elsewhere {FIRST}" in capsys.readouterr().out


# checkpoints of finished trials: --keep_checkpoints
NAMES = ["best.ckpt", "last.ckpt", "previous.ckpt"]


def kept(runs_dir):
    folders = [runs_dir / "small" / trial / "checkpoints" for trial in (FIRST, SECOND)]
    return [sorted(path.name for path in folder.glob("*")) for folder in folders]


@pytest.mark.parametrize(("option", "left"), [("best", ["best.ckpt"]), ("none", [])])
def test_finished_trials_drop_checkpoints_and_a_begun_one_goes_on_from_its_own(begun, option, left):
    path, runs_dir = begun
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KilledError):
        end_run(patch, SECOND, 8, KilledError())
        sweep(path, runs_dir, "--keep_checkpoints", option)
    assert kept(runs_dir) == [left, NAMES]
    assert sweep(path, runs_dir, "--keep_checkpoints", option) == 0
    assert kept(runs_dir) == [left, left]
    assert "last.ckpt: epoch 1, step 8." in (runs_dir / "small" / SECOND / "log.txt").read_text()
    trials = json.loads((runs_dir / "small" / "results.json").read_text())["trials"]
    assert [trial["name"] for trial in trials if trial["results"] is not None] == [FIRST, SECOND]


@pytest.mark.slow
def test_the_last_checkpoint_counts_as_best_where_no_validation_chose_one(begun):
    path, runs_dir = begun
    (runs_dir / "small" / FIRST / "checkpoints" / "best.ckpt").unlink()
    assert sweep(path, runs_dir, "--keep_checkpoints", "best") == 0
    assert kept(runs_dir) == [["last.ckpt"], ["best.ckpt"]]


@pytest.mark.parametrize("lock", [f".locks/{FIRST}", f"{FIRST}/.lock"])  # of another sweep's process, of a fit by hand
def test_a_trial_that_another_process_holds_keeps_its_checkpoints(begun, monkeypatch, lock):
    monkeypatch.setattr(run_folder, "_PATIENCE_SECONDS", 0.0)
    path, runs_dir = begun
    with locked(runs_dir / "small" / lock):
        assert sweep(path, runs_dir, "--keep_checkpoints", "none") == 0
    assert kept(runs_dir) == [NAMES, []]


@pytest.mark.slow
def test_a_finished_trial_whose_results_are_lost_keeps_its_checkpoint(begun, capsys):
    path, runs_dir = begun
    assert sweep(path, runs_dir, "--keep_checkpoints", "best") == 0
    trial = runs_dir / "small" / FIRST
    whole = (trial / "results.json").read_text()
    (trial / "results.json").write_text(whole[:40])
    assert sweep(path, runs_dir) == 2
    message = capsys.readouterr().err
    assert "Put back a copy" in message and "is kept" not in message
    (trial / "results.json").unlink()
    assert sweep(path, runs_dir) == 1
    assert "put a copy back" in json.loads((trial / "failure.json").read_text())["error"]
    assert kept(runs_dir) == [["best.ckpt"], ["best.ckpt"]]
    (trial / "results.json").write_text(whole)
    assert sweep(path, runs_dir) == 0
