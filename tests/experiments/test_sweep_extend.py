"""A finished grid grows: its trials stay as they are, and nothing else gets into its folder unasked."""

import json
import shutil

import pytest
import yaml

from common.errors import InputError
from experiments.sweep.claim import check_claim
from experiments.sweep.folder import SweepFolder
from tests.command_line import write_config
from tests.experiments.sweeps import RATES, sweep, trial_folders, write_sweep

RATE = "model.optimizer.learning_rate"


@pytest.fixture(scope="module")
def one_rate(tmp_path_factory, tiny_bert, cola_folder):
    """The file and the runs folder of a finished sweep over one rate."""
    runs_dir = tmp_path_factory.mktemp("extend")
    config = write_config(runs_dir, tiny_bert, cola_folder)
    path = write_sweep(runs_dir, config, grid={RATE: RATES[:1]})
    assert sweep(path, runs_dir) == 0
    return path, runs_dir


@pytest.fixture
def grown(one_rate, tmp_path):
    """A copy of its folder, and a file that asks for a second rate, before the first."""
    shutil.copytree(one_rate[1] / "small", tmp_path / "small")
    content = yaml.safe_load(one_rate[0].read_text())
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump({**content, "grid": {RATE: RATES[::-1]}}))
    return path, tmp_path


def files(folder):
    found = [file for file in folder.rglob("*") if file.is_file() and ".locks" not in file.parts]
    return {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in found}


@pytest.mark.slow
def test_a_larger_grid_is_refused_with_the_option_that_takes_it(grown, capsys):
    path, runs_dir = grown
    before = files(runs_dir / "small")
    assert sweep(path, runs_dir) == 2
    message = capsys.readouterr().err
    assert "another grid" in message
    assert "let the grid grow" in message and "--extend" in message
    assert files(runs_dir / "small") == before


@pytest.mark.slow
def test_extend_runs_the_new_trials_only(grown, capsys):
    path, runs_dir = grown
    (old,) = trial_folders(runs_dir / "small")
    before = files(old)
    assert sweep(path, runs_dir, "--dry_run", "--extend") == 0
    assert yaml.safe_load((runs_dir / "small" / "sweep.yaml").read_text())["grid"] == {RATE: RATES[:1]}
    assert sweep(path, runs_dir, "--extend") == 0
    assert files(old) == before
    trials = json.loads((runs_dir / "small" / "results.json").read_text())["trials"]
    assert [trial["overrides"][RATE] for trial in trials] == RATES[::-1]
    assert all(trial["results"] for trial in trials)
    assert sweep(path, runs_dir) == 0  # the folder holds the larger grid now


@pytest.mark.parametrize("dry", [["--dry_run"], []])
def test_a_grid_without_a_trial_of_the_folder_is_refused(grown, capsys, dry):
    path, runs_dir = grown
    content = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**content, "grid": {RATE: RATES[1:]}}))
    assert sweep(path, runs_dir, "--extend", *dry) == 2
    message = capsys.readouterr().err
    assert f"the grid asked for lacks: learning_rate_{RATES[0]}" in message
    assert "grow" not in message
    assert yaml.safe_load((runs_dir / "small" / "sweep.yaml").read_text())["grid"] == {RATE: RATES[:1]}


def test_trials_that_ran_with_other_settings_do_not_become_part_of_a_larger_grid(grown, capsys):
    path, runs_dir = grown
    assert sweep(path, runs_dir, "--model.optimizer.weight_decay", "0.5") == 2
    message = capsys.readouterr().err
    assert "another grid" in message and "--extend" not in message
    assert sweep(path, runs_dir, "--extend", "--model.optimizer.weight_decay", "0.5") == 2
    message = capsys.readouterr().err
    assert "was run with other settings" in message and "weight_decay" in message
    assert yaml.safe_load((runs_dir / "small" / "sweep.yaml").read_text())["grid"] == {RATE: RATES[:1]}


def made_sweep(folder, definition, config):
    """A sweep's folder with one trial, `base`, as this definition and these settings left it."""
    (folder / "base").mkdir(parents=True)
    (folder / "base" / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "sweep.yaml").write_text(yaml.safe_dump(definition))
    return SweepFolder(folder)


def of_peft(settings):
    init_args = {"method": "lora", "settings": settings}
    return {"model": {"init_args": {"adapter": {"class_path": "PEFTAdapter", "init_args": init_args}}}}


@pytest.mark.parametrize("extend", [True, False])
def test_a_setting_that_is_new_among_pefts_own_is_another_setting(tmp_path, extend):
    definition = {"config": "made.yaml"}
    folder = made_sweep(tmp_path / "made", definition, of_peft({"r": 8}))
    asked = {"base": of_peft({"r": 8, "lora_alpha": 999})}
    with pytest.raises(InputError, match=r"was run with other settings.*\n.*lora_alpha"):
        check_claim(folder, definition, asked, "sweep", extend)
    check_claim(folder, definition, {"base": of_peft({"r": 8}) | {"newer": 1}}, "sweep", extend)


def test_a_method_without_settings_of_its_own_is_part_of_the_grid(tmp_path):
    more = {"config": "made.yaml", "methods": {"base": None, "other": {"settings": {"a": 1}}}}
    less = {"config": "made.yaml", "methods": {"other": {"settings": {"a": 1}}}}
    folder = made_sweep(tmp_path / "made", more, {"a": 0})
    for extend in (False, True):
        with pytest.raises(InputError, match="the grid asked for lacks: base"):
            check_claim(folder, less, {"other": {"a": 1}}, "sweep", extend)
    (folder.path / "sweep.yaml").write_text(yaml.safe_dump(less))
    asked = {"base": {"a": 0}, "other": {"a": 1}}
    with pytest.raises(InputError, match=r"something null in one of them(?s:.*)let the grid grow"):
        check_claim(folder, more, asked, "sweep", False)
    check_claim(folder, more, asked, "sweep", True)
