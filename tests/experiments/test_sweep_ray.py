"""The Ray engine, where Ray is installed: the same folder as in this process."""

import json

import pytest

from tests.command_line import write_config
from tests.experiments.sweeps import sweep, write_sweep

ray = pytest.importorskip("ray")


def test_ray_gives_the_same_results(tmp_path, tiny_bert, cola_folder):
    path = write_sweep(tmp_path, write_config(tmp_path, tiny_bert, cola_folder))
    found = {}
    for name, options in {"here": (), "ray": ("--engine", "ray", "--cpus_per_trial", "1")}.items():
        assert sweep(path, tmp_path / name, *options) == 0
        trials = json.loads((tmp_path / name / "small" / "results.json").read_text())["trials"]
        found[name] = [(trial["overrides"], trial["results"]["val_losses"]) for trial in trials]
    for (ours, losses), (theirs, expected) in zip(found["ray"], found["here"]):
        assert ours == theirs
        assert losses == pytest.approx(expected, rel=1e-4)


def test_a_cluster_that_does_not_answer_is_named(tmp_path, tiny_bert, cola_folder, capsys):
    path = write_sweep(tmp_path, write_config(tmp_path, tiny_bert, cola_folder))
    assert sweep(path, tmp_path, "--engine", "ray", "--ray_address", "auto") == 2
    assert "no Ray can be reached at auto" in capsys.readouterr().err


def test_more_than_ray_has_is_refused(tmp_path, tiny_bert, cola_folder, capsys):
    path = write_sweep(tmp_path, write_config(tmp_path, tiny_bert, cola_folder))
    assert sweep(path, tmp_path, "--engine", "ray", "--cpus_per_trial", "100000") == 2
    assert "cpus_per_trial is 100000" in capsys.readouterr().err
