import pytest

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


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc"])
def test_a_run_name_can_not_leave_the_runs_folder(tmp_path, name):
    with pytest.raises(InputError, match="run_name"):
        RunFolder.of(str(tmp_path), name)
