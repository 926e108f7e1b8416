import errno
import os
import shutil
from contextlib import contextmanager

import pytest
from lightning.pytorch.loggers import TensorBoardLogger

import cli
from common.errors import InputError
from experiments import run_folder
from experiments.own_files import delete
from experiments.run_folder import RunFolder

SETTINGS = "{run_name: debug, runs_dir: runs, model: {}, data: {}, trainer: {}}"
FILES = ("config.yaml", "metrics.csv", "results.json", "checkpoints/last.ckpt", "exports/peft/adapter_config.json")


@pytest.fixture
def made(tmp_path):
    """A run called debug that has left its files."""
    folder = RunFolder.of(str(tmp_path / "runs"), "debug")
    for name in FILES:
        (folder.path / name).parent.mkdir(parents=True, exist_ok=True)
        (folder.path / name).write_text(SETTINGS)
    return folder


def everything(folder):
    """Content of all files, and targets of links."""
    return {
        path: path.readlink() if path.is_symlink() else path.is_file() and path.read_text()
        for path in folder.rglob("*")
    }


def overwrite(folder):
    return cli.main(["fit", "--config", "debug.yaml", "--runs_dir", str(folder.path.parent), "--overwrite"])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *((name, "years of work") for name in ("thesis.tex", "checkpoints/mine/a.pt", "checkpoints/favourite.ckpt")),
        *((f"exports/{name}", "years of work") for name in ("peft/notes.md", "peft/a.json", "merged/old.safetensors")),
        *((name, "years of work") for name in ("lightning_logs/version_0/notes.txt", "log.txt")),
        (".git", None),
        ("config.yaml", "name: my app"),
        ("config.yaml", "not a run: [\n"),
        ("config.yaml", "{model: {}, data: {}, trainer: {}}"),  # of another program that uses Lightning
    ],
)
def test_overwriting_deletes_nothing_where_anything_is_not_known_to_be_a_runs(made, capsys, name, content):
    path = made.path / name
    if content is None:
        path.mkdir()
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    before = everything(made.path)
    assert overwrite(made) == 2
    assert path.name in capsys.readouterr().err
    assert everything(made.path) == before


@pytest.mark.parametrize("name", ["config.yaml", "metrics.csv", "results.json", "ranks.json", "checkpoints/last.ckpt"])
def test_one_name_of_a_runs_files_makes_no_run(tmp_path, capsys, name):
    folder = RunFolder.of(str(tmp_path), "debug")
    (folder.path / name).parent.mkdir(parents=True)
    (folder.path / name).write_text("years: of work")
    assert overwrite(folder) == 2
    assert "no config.yaml that a run wrote" in capsys.readouterr().err
    assert (folder.path / name).read_text() == "years: of work"


@pytest.mark.parametrize("name", [".", "checkpoints", "metrics.csv", "exports", ".lock"])
def test_overwriting_deletes_nothing_behind_a_link(made, tmp_path, capsys, name):
    path, elsewhere = made.path / name, tmp_path / "elsewhere"
    if path.exists():
        shutil.move(path, elsewhere)
    else:
        elsewhere.write_text("years of work")
    path.symlink_to(elsewhere)
    before = everything(tmp_path)
    assert overwrite(made) == 2
    assert f"{path} is a link" in capsys.readouterr().err
    assert everything(tmp_path) == before


@pytest.mark.parametrize("place", ["runs/debug", "runs/debug/checkpoints"])
@pytest.mark.parametrize("way", [[], ["--overwrite"]])
def test_a_link_to_nowhere_is_no_run_folder(tmp_path, capsys, place, way):
    (tmp_path / place).parent.mkdir(parents=True)
    (tmp_path / place).symlink_to(tmp_path / "nowhere")
    assert cli.main(["fit", "--config", "debug.yaml", "--runs_dir", str(tmp_path / "runs"), *way]) == 2
    assert "error: " in (said := capsys.readouterr().err) and str(tmp_path / "runs" / "debug") in said
    assert (tmp_path / place).is_symlink() and not (tmp_path / "nowhere").exists()


def test_overwriting_deletes_nothing_where_a_part_can_not_be_deleted(made, monkeypatch):
    before, ask = everything(made.path), os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != made.checkpoints and ask(path, mode))
    with pytest.raises(InputError, match=rf"{made.checkpoints} can't be written to, so nothing was deleted"):
        delete(made.path, made.files_to_replace())
    assert everything(made.path) == before


def test_a_trial_of_a_sweep_gives_way_with_its_log(made):
    for name in ("log.txt", "failure.json"):
        (made.path / name).touch()
    (made.path.parent / "sweep.yaml").touch()
    delete(made.path, made.files_to_replace())
    assert not made.path.exists()


def test_what_a_false_start_left_is_in_nobodys_way(tmp_path):
    run = RunFolder.of(str(tmp_path), "run")
    run.path.mkdir()
    (run.path / "events.out.tfevents.1.host").write_text("")
    run.refuse_if_occupied("command")
    delete(run.path, run.files_to_replace())
    assert not run.path.exists()


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


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc", "-n"])
def test_a_run_name_is_a_folder_in_the_runs_folder_and_no_option(tmp_path, name):
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


def test_overwriting_keeps_the_lock_that_it_holds(tmp_path, impatient):
    folder = RunFolder.of(str(tmp_path), "run")
    with folder.held():
        folder.checkpoints.mkdir()
        delete(folder.path, folder.files_to_replace())
        assert [path.name for path in folder.path.iterdir()] == [".lock"]
        assert folder.files_to_replace() == []  # a lock is no foreign file
        with pytest.raises(InputError, match="written by another run"), folder.held():
            pass


def test_a_refused_command_leaves_no_folder(tmp_path):
    runs = tmp_path / "new" / "runs"
    assert cli.main(["fit", "--config", "debug.yaml", "--runs_dir", str(runs), "--ckpt_path", "last"]) == 2
    assert list(tmp_path.iterdir()) == []


def test_where_no_lock_can_be_had_the_run_goes_on(tmp_path, monkeypatch):
    def unsupported(path, **options):
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
    delete(run.path, run.files_to_replace())
    assert not run.path.exists()


def test_figures_of_another_program_stay(tmp_path):
    run = RunFolder.of(str(tmp_path), "run")
    run.path.mkdir()
    theirs = [run.path / name for name in ("events.out.tfevents.1.host", "hparams.yaml")]
    for path in theirs:
        path.write_bytes(b"x" * 10_000)
    run.forget_false_start()
    with pytest.raises(InputError, match="that a run wrote"):
        delete(run.path, run.files_to_replace())
    assert all(path.exists() for path in theirs)


def test_a_real_false_start_leaves_less_than_figures_would(tmp_path):
    run = RunFolder.of(str(tmp_path), "run")
    logger = TensorBoardLogger(str(run.path), name="", version="")
    logger.experiment.flush()
    logger.save()
    assert len(list(run.path.glob("events*"))) == 1
    run.forget_false_start()
    assert list(run.path.iterdir()) == []


def test_a_run_without_a_best_epoch_yet_says_how_to_go_on(made):
    assert made.checkpoint("last") == made.checkpoints / "last.ckpt"
    with pytest.raises(InputError, match=r"no best epoch yet.*fit, --ckpt_path last.*--ckpt_path last to use what"):
        made.checkpoint("best")
    (made.checkpoints / "last.ckpt").unlink()
    with pytest.raises(InputError, match="no run was begun"):
        made.checkpoint("best")
