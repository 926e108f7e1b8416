import pytest

import cli
from common.errors import InputError
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
