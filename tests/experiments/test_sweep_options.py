"""Options of `sweep` that are at fault, with and without --dry_run, and a part that has no trial."""

import pytest

import cli
from tests.command_line import write_config
from tests.experiments.sweeps import sweep, write_sweep


@pytest.mark.parametrize("dry", [["--dry_run"], []])
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--jobs", "0"], "jobs is 0; allowed: 1 or more"),
        (["--engine", "ray", "--jobs", "2"], "--jobs belongs to the local engine"),
        (["--engine", "ray", "--cpus_per_trial", "-1"], "cpus_per_trial is -1.0; allowed: 0 or more"),
        (["--engine", "ray", "--gpus_per_trial", "nan"], "gpus_per_trial is nan; allowed: 0 or more"),
        (["--ray_address", "auto"], "--ray_address is given without --engine ray"),
        (["--cpus_per_trial", "1"], "--cpus_per_trial is given without --engine ray"),
        (["--gpus_per_trial", "0"], "--gpus_per_trial is given without --engine ray"),
    ],
)
def test_options_of_the_engine_are_checked_first_also_in_a_dry_run(dry, options, expected, tmp_path, capsys):
    command = ["sweep", "--config", "sweeps/quickstart_sweep.yaml", "--runs_dir", str(tmp_path)]
    assert cli.main([*command, *dry, *options]) == 2
    shown = capsys.readouterr()
    assert expected in shown.err and not shown.out
    assert list(tmp_path.iterdir()) == []


def test_a_part_beyond_the_last_trial_is_listed_as_empty(tmp_path, tiny_bert, cola_folder, capsys):
    path = write_sweep(tmp_path, write_config(tmp_path, tiny_bert, cola_folder))
    assert sweep(path, tmp_path, "--dry_run", "--part", "3/3") == 0
    assert "This part has no trial" in capsys.readouterr().out
