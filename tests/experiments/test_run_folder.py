import errno
import multiprocessing
import os
import time
from contextlib import contextmanager

import pytest
from lightning.pytorch.loggers import TensorBoardLogger

import cli
from common.errors import InputError
from experiments import run_folder
from experiments.run_folder import RunFolder


def test_overwriting_deletes_a_run_and_leaves_anything_else_alone(tmp_path):
    run = RunFolder.of(str(tmp_path), "run")
    (run.path / "checkpoints").mkdir(parents=True)
    run.clear()
    assert not run.path.exists()
    run.path.mkdir()
    (run.path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="holds files but no run"):
        run.clear()
    assert (run.path / "thesis.tex").exists()


def test_what_a_false_start_left_is_in_nobodys_way(tmp_path):
    run = RunFolder.of(str(tmp_path), "run")
    run.path.mkdir()
    (run.path / "events.out.tfevents.1.host").write_text("")
    run.refuse_if_occupied("command")
    run.clear()
    assert list(run.path.iterdir()) == []


def test_only_half_written_files_are_cleaned_up(tmp_path):
    run = RunFolder.of(str(tmp_path), "run")
    export = run.path / "exports" / ".peft.abc.partial"  # of an export that was killed, or is under way
    export.mkdir(parents=True)
    run.checkpoints.mkdir()
    halves = [run.path / ".config.yaml.abc.partial", run.checkpoints / ".last.ckpt.abc.partial"]
    for path in (*halves, run.path / "notes.partial", export / ".weights.partial"):
        path.touch()
    run.clean_up()
    assert not any(path.exists() for path in halves)
    assert (run.path / "notes.partial").exists() and (export / ".weights.partial").exists()


def test_a_refused_start_touches_nothing_of_the_run_that_may_be_writing(tmp_path, capsys):
    folder = RunFolder.of(str(tmp_path), "debug")
    folder.checkpoints.mkdir(parents=True)
    half = folder.checkpoints / ".last.ckpt.abc.partial"
    half.touch()
    assert cli.main(["fit", "--config", "debug.yaml", "--runs_dir", str(tmp_path)]) == 2
    assert "already holds a run" in capsys.readouterr().err
    assert half.exists()


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc"])
def test_a_run_name_can_not_leave_the_runs_folder(tmp_path, name):
    with pytest.raises(InputError, match="run_name"):
        RunFolder.of(str(tmp_path), name)


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(run_folder, "_PATIENCE_SECONDS", 0.0)


@pytest.mark.parametrize("way", [["--overwrite"], ["--ckpt_path", "last"]])
def test_a_run_that_is_under_way_is_neither_deleted_nor_gone_on_with(tmp_path, capsys, impatient, way):
    folder = RunFolder.of(str(tmp_path), "debug")
    folder.checkpoints.mkdir(parents=True)
    kept = [
        folder.checkpoints / "last.ckpt",
        folder.checkpoints / ".last.ckpt.abc.partial",
        folder.path / "metrics.csv",
    ]
    for path in kept:
        path.write_text("of the run under way")
    with folder.held():
        assert cli.main(["fit", "--config", "debug.yaml", "--runs_dir", str(tmp_path), *way]) == 2
        said = capsys.readouterr().err
        assert f"is being written by another run (process {os.getpid()} on " in said and "--run_name" in said
        assert [path.read_text() for path in kept] == ["of the run under way"] * 3
    assert not (folder.path / ".lock").exists()


def test_two_runs_can_not_begin_in_one_folder(tmp_path, impatient):
    folder = RunFolder.of(str(tmp_path), "run")
    with folder.held(), pytest.raises(InputError, match="written by another run"), folder.held():
        pass
    with folder.held(), RunFolder.of(str(tmp_path), "other").held():
        pass


def test_overwriting_keeps_the_lock_that_it_holds(tmp_path, impatient):
    folder = RunFolder.of(str(tmp_path), "run")
    with folder.held():
        folder.checkpoints.mkdir()
        folder.clear()
        assert [path.name for path in folder.path.iterdir()] == [".lock"]
        folder.refuse_to_clear_others()  # a lock is no foreign file
        with pytest.raises(InputError, match="written by another run"), folder.held():
            pass


def test_a_refused_command_leaves_no_folder(tmp_path):
    runs = tmp_path / "new" / "runs"
    assert cli.main(["fit", "--config", "debug.yaml", "--runs_dir", str(runs), "--ckpt_path", "last"]) == 2
    assert list(tmp_path.iterdir()) == []


def _hold(path):
    with RunFolder(path).held():
        time.sleep(60)


def test_a_killed_run_holds_nothing(tmp_path):
    process = multiprocessing.get_context("fork").Process(target=_hold, args=(tmp_path / "run",))
    process.start()
    lock = tmp_path / "run" / ".lock"
    while not (lock.exists() and lock.read_text()):
        time.sleep(0.01)
    process.kill()
    with RunFolder(tmp_path / "run").held():  # waits, should the system be slow to free it
        assert lock.read_text().startswith(f"process {os.getpid()} ")
    process.join(10)


def test_where_no_lock_can_be_had_the_run_goes_on(tmp_path, monkeypatch):
    def unsupported(path):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(run_folder, "locked", unsupported)
    with RunFolder(tmp_path / "run").held():
        done = True
    assert done


def test_a_run_that_ended_while_another_waited_for_its_folder_is_kept(tmp_path, capsys, monkeypatch):
    folder = RunFolder.of(str(tmp_path), "debug")
    waits = RunFolder.held

    @contextmanager
    def after_the_other_run(self):
        with waits(self):
            (self.path / "events.out.tfevents.1").write_text("of the run that ended")
            (self.path / "config.yaml").write_text("of the run that ended")
            yield

    monkeypatch.setattr(RunFolder, "held", after_the_other_run)
    assert cli.main(["fit", "--config", "debug.yaml", "--runs_dir", str(tmp_path)]) == 2
    assert "already holds a run" in capsys.readouterr().err
    names = ("config.yaml", "events.out.tfevents.1")
    assert [(folder.path / name).read_text() for name in names] == ["of the run that ended"] * 2


@pytest.mark.parametrize("way", [[], ["--overwrite"]])
def test_a_sweep_is_neither_deleted_nor_run_into(tmp_path, capsys, way):
    folder = tmp_path / "debug"
    for path in (folder / "sweep.yaml", folder / "results.json", folder / "trial" / "checkpoints" / "best.ckpt"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    assert cli.main(["fit", "--config", "debug.yaml", "--runs_dir", str(tmp_path), *way]) == 2
    message = capsys.readouterr().err
    assert "holds a sweep with its trials" in message and "--overwrite" not in message
    assert (folder / "trial" / "checkpoints" / "best.ckpt").exists() and (folder / "sweep.yaml").exists()


@pytest.mark.slow
def test_a_sweep_that_was_refused_in_a_runs_folder_leaves_the_run_as_it_was(tmp_path, capsys):
    run = RunFolder.of(str(tmp_path), "quickstart_sweep")
    run.checkpoints.mkdir(parents=True)
    assert cli.main(["sweep", "--config", "sweeps/quickstart_sweep.yaml", "--runs_dir", str(tmp_path)]) == 2
    assert "holds a run that isn't a sweep" in capsys.readouterr().err
    run.clear()
    assert not run.path.exists()


def test_figures_of_another_program_stay(tmp_path):
    run = RunFolder.of(str(tmp_path), "run")
    run.path.mkdir()
    theirs = [run.path / name for name in ("events.out.tfevents.1.host", "hparams.yaml")]
    for path in theirs:
        path.write_bytes(b"x" * 10_000)
    run.forget_false_start()
    with pytest.raises(InputError, match="holds files but no run"):
        run.clear()
    assert all(path.exists() for path in theirs)


def test_a_real_false_start_leaves_less_than_figures_would(tmp_path):
    run = RunFolder.of(str(tmp_path), "run")
    logger = TensorBoardLogger(str(run.path), name="", version="")
    logger.experiment.flush()
    logger.save()
    assert len(list(run.path.glob("events*"))) == 1
    run.forget_false_start()
    assert list(run.path.iterdir()) == []
