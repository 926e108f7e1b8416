"""Trials' complete settings before any of them trains, what they take over unasked, and the time they will take."""

import pytest
import yaml

from common.errors import InputError
from experiments.settings import parse
from experiments.sweep import trial_config
from experiments.sweep.definition import make_trials
from experiments.sweep.folder import SweepFolder
from experiments.sweep.grid import Trial
from experiments.sweep.progress import Progress
from experiments.sweep.trial_config import check_trials, taken_over, trial_arguments
from tests.command_line import write_config
from tests.experiments.made_runs import results, write_run
from tests.experiments.sweeps import sweep, write_sweep


@pytest.fixture(scope="module")
def base(tmp_path_factory, tiny_bert, cola_folder):
    """A config for trials."""
    return write_config(tmp_path_factory.mktemp("base"), tiny_bert, cola_folder)


def test_trials_that_differ_in_their_seed_are_parsed_once_and_get_what_parsing_gives(base, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(trial_config, "parse", lambda arguments: (asked.append(arguments), parse(arguments))[1])
    grid = {"seed_everything": [0, 1, 2], "model.optimizer.learning_rate": [0.001, 1, 1e-5]}
    trials, folder = make_trials({"config": str(base), "grid": grid}), SweepFolder(tmp_path)
    configs, misfit = check_trials(folder, trials)
    assert len(asked) == 3 and misfit is None
    assert [yaml.safe_dump(config) for config in configs.values()] == [
        yaml.safe_dump(parse(trial_arguments(folder, trial)).plain) for trial in trials
    ]


@pytest.mark.parametrize("seed", [-1, 1.5, 2**32, True, "many", None])
def test_a_seed_that_is_none_is_refused_for_its_own_trial(base, tmp_path, seed):
    trials = make_trials({"config": str(base), "grid": {"seed_everything": [0, seed]}})
    with pytest.raises(InputError, match=rf"(?s)trial {trials[1].name} can't run.*seed_everything"):
        check_trials(SweepFolder(tmp_path), trials)


EARLY = {"class_path": "lightning.pytorch.callbacks.EarlyStopping", "init_args": {"monitor": "val/f1"}}


def test_a_grid_over_what_changes_nothing_is_named(base, tmp_path, capsys):
    settings = {"model.optimizer.schedule": "constant"}
    grid = {"model.optimizer.warmup_fraction": [0.1, 0.2], "model.optimizer.learning_rate": [0.1]}
    check_trials(SweepFolder(tmp_path), make_trials({"config": str(base), "settings": settings, "grid": grid}))
    said = capsys.readouterr().err
    assert "change nothing. Trials: model.optimizer.warmup_fraction (the schedule is constant)." in said
    assert said.count("warmup_fraction") == 1


FINDER = {"class_path": "lightning.pytorch.callbacks.BatchSizeFinder"}
ADALORA = {
    "class_path": "lightning_modules.PEFTAdapter",
    "init_args": {
        "method": "adalora",
        "settings": {"init_r": 4, "target_r": 2, "tinit": 3, "tfinal": 3},
        "targets": ["query"],
    },
}


@pytest.mark.parametrize(
    ("settings", "name", "values", "said"),
    [
        ({}, "trainer.val_check_interval", [5, 2], "a number of batches that divides 5"),
        ({}, "trainer.check_val_every_n_epoch", [1, None], "check_val_every_n_epoch is None"),
        ({"trainer.accumulate_grad_batches": 2}, "trainer.limit_train_batches", [4, 3], "a multiple of 2"),
        ({"trainer.max_steps": 6}, "trainer.min_steps", [6, 9], "asks for 9 steps"),
        ({}, "model.init_from", [None, "nowhere"], "nowhere holds no exported adapter"),
        ({}, "trainer.callbacks", [None, EARLY], "monitor is 'val/f1'"),
        ({}, "trainer.callbacks", [None, FINDER], "a BatchSizeFinder, which does not work here"),
        ({"model.adapter": ADALORA}, "trainer.max_epochs", [2, 1], "the run has 5 optimizer steps"),
        ({"model.adapter": ADALORA}, "trainer.max_steps", [7, 6], "the run has 6 optimizer steps"),
        ({}, "model.adapter.factors", ["svd", "gradient"], "gradient_batches is 32, but an epoch has 5 batches"),
        ({}, "model.cuda_graphs", [False, True], "cuda_graphs is true, but this run is on cpu"),
    ],
)
def test_what_does_not_fit_an_epoch_or_a_place_is_found_before_the_first_trial(
    base, tmp_path, settings, name, values, said
):
    trials = make_trials({"config": str(base), "settings": settings, "grid": {name: values}})
    _, misfit = check_trials(SweepFolder(tmp_path), trials)
    assert f"trial {trials[1].name} can't run, so none was started" in str(misfit) and said in str(misfit)


BASE = {
    "class_path": "lora.AdaptiveLoRA",
    "init_args": {"allocation": "bounded", "targets": "all-linear", "rank_max": 64},
}


def lines(folder, setting, made):
    path = folder / "base.yaml"
    path.write_text(yaml.safe_dump({"model": {"class_path": "made.Module", "init_args": {"adapter": BASE}}}))
    trial = Trial("made", "", (str(path),), {}, {"model.adapter": setting})
    return list(taken_over(trial, {"model": {"class_path": "made.Module", "init_args": {"adapter": made}}}))


def test_what_another_class_left_is_said_but_not_what_is_named(tmp_path):
    made = {"allocation": "bounded", "targets": "all-linear", "rank_max": 64, "tau": 0.0}
    setting = {"class_path": "lora.AdaptiveLoRAXS", "init_args": {"rank_max": 64}}
    (line,) = lines(tmp_path, setting, {"class_path": "lora.AdaptiveLoRAXS", "init_args": made})
    assert "takes over allocation: bounded, targets: all-linear from the base config's lora.AdaptiveLoRA" in line


NAMED = {"class_path": "lora.LoRAXS", "init_args": {"rank": 4, "targets": "all-linear"}}


@pytest.mark.parametrize(
    ("setting", "made"),
    [
        ({"class_path": "lora.AdaptiveLoRA", "init_args": {"rank_max": 10}}, BASE),  # the same class, changed
        ({"init_args": {"rank_max": 10}}, BASE),
        (None, None),
        (NAMED, NAMED),
    ],
)
def test_nothing_is_said_where_nothing_is_taken_over(tmp_path, setting, made):
    assert lines(tmp_path, setting, made) == []


def test_a_sweep_says_it_once_before_its_trials(base, tmp_path, capsys):
    content = yaml.safe_load(base.read_text())
    content["model"]["init_args"]["adapter"]["init_args"]["lora_alpha"] = 7.0
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(content))
    settings = {"model.adapter": {"class_path": "lora.LoRAXS", "init_args": {"rank": 4}}}
    path = write_sweep(tmp_path, tmp_path / "config.yaml", settings=settings)
    assert sweep(path, tmp_path / "runs", "--dry_run") == 0
    told = capsys.readouterr()
    assert (told.out + told.err).count("takes over lora_alpha: 7.0 from the base config's lora.AdaptiveLoRAXS") == 1


def test_the_time_left_is_what_finished_trials_of_the_method_took(tmp_path):
    trials = [Trial(f"{method}-{seed}", method, (), {}) for method in ("full", "lora", "other") for seed in range(2)]
    for name, seconds in (("full-0", 100.0), ("lora-0", 10.0)):
        write_run(tmp_path / name, {}, results(name, 0, 0.8, wall_seconds=seconds))
    folder = SweepFolder(tmp_path)
    assert "2 of 6 done, 0 running, 4 left, best accuracy 0.8000 (full-0)" in Progress(folder, trials).summary()
    assert Progress(folder, trials).summary().endswith("about 0:03:40 left")  # 100 + 10 + 2 · 55
    assert Progress(folder, trials, at_once=2).summary().endswith("about 0:01:50 left")
    assert Progress(folder, trials[:1]).summary().endswith("(full-0)")
    assert Progress(folder, trials, anew=True).summary() == "0 of 6 done, 0 running, 6 left"
