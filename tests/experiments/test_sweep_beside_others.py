"""A sweep beside somebody who runs one of its trials by hand."""

import json

from common.locks import locked
from experiments import run_folder
from tests.command_line import write_config
from tests.experiments.sweeps import RATES, sweep, write_sweep


def test_a_trial_that_somebody_runs_by_hand_is_left_to_them(tmp_path, tiny_bert, cola_folder, monkeypatch, capsys):
    monkeypatch.setattr(run_folder, "_PATIENCE_SECONDS", 0.2)
    path = write_sweep(tmp_path, write_config(tmp_path, tiny_bert, cola_folder))
    theirs = tmp_path / "small" / f"learning_rate_{RATES[0]}"
    theirs.mkdir(parents=True)
    (theirs / "mine.txt").write_text("just begun, no checkpoint yet")
    (tmp_path / "small" / "sweep.yaml").write_text(path.read_text())
    with locked(theirs / ".lock"):
        assert sweep(path, tmp_path) == 1
    assert sorted(file.name for file in theirs.iterdir()) == [".lock", "mine.txt"]
    first, second = json.loads((tmp_path / "small" / "results.json").read_text())["trials"]
    assert (first["status"], first["results"]) == ("waiting", None)
    assert second["results"] is not None
    assert f"elsewhere learning_rate_{RATES[0]}" in capsys.readouterr().out
