"""Stopping early: the rule by hand, what it refuses, and trials that pause and go on to the bit."""

import json

import numpy as np
import pandas as pd
import pytest

import cli
from common.errors import InputError
from experiments.report.groups import make_groups
from experiments.report.replay import replays
from experiments.report.sources import read_records
from experiments.sweep import early_exit
from experiments.sweep.early_exit import Rung, check_epochs, least_share, race, rungs, searches, survivors
from experiments.sweep.folder import State, SweepFolder
from experiments.sweep.grid import Trial
from tests.command_line import differences, outcome, write_config
from tests.experiments import made_runs
from tests.experiments.sweeps import sweep, trial_folders, write_sweep

RATE, HEAD_RATE = "model.optimizer.learning_rate", "model.optimizer.head_learning_rate"


def test_rungs_double_the_epochs_of_one_seed_and_then_take_in_the_others():
    assert rungs(3, 8) == [Rung(1, 2), Rung(1, 4), Rung(1, 8), Rung(3, 8)]
    assert rungs(2, 1) == [Rung(1, 1), Rung(2, 1)] and rungs(1, 2) == [Rung(1, 1), Rung(1, 2)]


def test_the_better_half_goes_on_and_what_is_within_the_margin():
    scores = pd.Series([0.90, 0.80, 0.899, 0.1, 0.85, np.nan])
    assert survivors(scores, rows=10_000) == [0, 2, 4, 5]  # margin 0.03: the half of five is three
    assert survivors(pd.Series([0.90, 0.80, 0.899, 0.1]), rows=10_000) == [0, 2]
    assert survivors(pd.Series([0.90, 0.80, 0.899, 0.1]), rows=600) == [0, 1, 2]  # margin 0.12


def test_a_race_counts_its_steps_and_finds_the_best():
    heights = np.array([0.1, 0.9, 0.5, 0.3])
    curves = heights[None, :, None] * np.array([0.5, 0.6, 0.8, 1.0]) * np.ones((2, 1, 1))  # (2 seeds, 4, 4 epochs)
    raced = race(curves, rows=10**6)
    # epoch 1 of four, epoch 2 of two, epochs 3 and 4 of one, and its second seed
    assert (raced.winner, raced.spent) == (1, (4 + 2 + 2 + 4) / 32)
    assert least_share(2, 4, 4) == (3 + 8) / 32
    assert least_share(3, 8, 8) == (7 + 24) / 192  # one epoch each, whatever the first rung
    crossing = curves.copy()
    crossing[:, 0, 2:] = 2.0  # the worst at first is the best at the end
    assert race(crossing, rows=10**6).winner == 1 and race(crossing, rows=4).winner == 0


def trial(seed, **overrides):
    return Trial(f"{seed}{overrides}", "lora", (), {"seed_everything": seed, **overrides})


@pytest.mark.parametrize(("content", "told"), [("{}", "it has no values"), ("{", "cut short or changed by hand")])
def test_a_damaged_pause_is_named(tmp_path, content, told):
    folder, paused = SweepFolder(tmp_path), Trial("paused", "", (), {})
    folder.record_pause(paused)
    assert folder.state(paused) is State.PAUSED and folder.curve(paused).values == []
    (tmp_path / "paused" / "paused.json").write_text(content)
    with pytest.raises(InputError, match=told):
        folder.curve(paused)


def test_what_is_compared_never_competes():
    trials = [
        trial(seed, **{RATE: rate, HEAD_RATE: rate / 2, "model.adapter.rank": rank})
        for seed in (0, 1)
        for rate in (1e-3, 1e-2, 1e-1)
        for rank in (2, 4)
    ]
    found = searches(trials, [])
    assert [(len(search.candidates), len(search.candidates[0])) for search in found] == [(3, 2), (3, 2)]
    (together,) = searches(trials, ["model.adapter.rank"])
    assert len(together.candidates) == 6


TRAINER = {"max_epochs": 4, "max_steps": -1, "val_check_interval": 1.0, "check_val_every_n_epoch": 1}


@pytest.mark.parametrize(
    ("changes", "seeds", "told"),
    [
        ([{"max_epochs": 1}] * 2, 1, r"max_epochs is 1 with 1 seed; allowed with --stop_early: 2 or more"),
        ([{"max_epochs": 2}, {"max_epochs": 3}], 2, "max_epochs is 2, 3; allowed with --stop_early: one number"),
        ([{"max_epochs": None, "max_steps": 50}] * 2, 2, "max_epochs is None"),
        ([{"max_steps": 50}] * 2, 2, "max_steps is 50; allowed with --stop_early: -1"),
        ([{}, {"val_check_interval": 0.5}], 2, r"val_check_interval is 0.5, 1.0; allowed with --stop_early: 1.0"),
        ([{}, {"val_check_interval": 1}], 2, "val_check_interval is 1, 1.0"),  # each batch
        ([{"check_val_every_n_epoch": 2}] * 2, 2, "check_val_every_n_epoch is 2; allowed with --stop_early: 1"),
    ],
)
def test_what_cant_be_decided_early_is_refused(changes, seeds, told):
    trials = [trial(place % seeds, **{RATE: place}) for place in range(2)]
    configs = {one.name: {"trainer": {**TRAINER, **changed}} for one, changed in zip(trials, changes, strict=True)}
    with pytest.raises(InputError, match=told):
        check_epochs(trials, configs, [])


def test_a_sweep_in_which_nothing_competes_is_refused():
    trials = [trial(0, **{"model.adapter.rank": rank}) for rank in (2, 4)]
    configs = {one.name: {"trainer": TRAINER} for one in trials}
    with pytest.raises(InputError, match="none compete"):
        check_epochs(trials, configs, [])
    assert check_epochs(trials, configs, ["model.adapter.rank"]) == 4


def test_a_replay_of_clear_curves_keeps_the_winner_and_of_crossing_ones_says_how_often_not(tmp_path):
    def run_to_its_end(one):
        rate, seed = one["name"].split("-", 1)[1].rsplit("-", 1)
        ends = {"0.001": 0.9, "0.0001": 0.6, "0.01": 0.91 if seed == "2" else 0.3}
        one["results"]["data"]["validation_rows"] = 10**6
        one["results"]["validations"] = [
            {"epoch": epoch, "val/accuracy": ends[rate] * share} for epoch, share in enumerate((0.6, 0.8, 0.9, 1.0))
        ]

    curves = {"lora": (16, {rate: {0: 0.5, 1: 0.5, 2: 0.5} for rate in (1e-4, 1e-3, 1e-2)})}
    folder = made_runs.write_rate_sweep(tmp_path / "rates", curves, change=run_to_its_end)
    (found,) = replays(make_groups(read_records([folder])))
    assert found.curves.shape == (3, 3, 4)
    # the race is lost where the first seed drawn is 2 (a third) and not all three are (1/27)
    assert found.same == pytest.approx(1 - (1 / 3 - 1 / 27), abs=0.04)


@pytest.mark.parametrize(
    ("rates", "searched", "told"),
    [
        ([1e-3, 1e-2], ("model.optimizer.foo",), "setting of --replay is 'model.optimizer.foo'; allowed: no name"),
        ([1e-3], (), "--replay finds no search"),
    ],
)
def test_nothing_to_replay_is_said_before_anything_is_written(tmp_path, capsys, rates, searched, told):
    folder = made_runs.write_rate_sweep(tmp_path / "rates", {"lora": (16, {rate: {0: 0.5} for rate in rates})})
    assert cli.main(["report", str(folder), "--output", str(tmp_path / "page"), "--replay", *searched]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "page").exists()


@pytest.mark.slow
@pytest.mark.parametrize("engine", [(), pytest.param(("--engine", "ray"), marks=pytest.mark.long)], ids=["here", "ray"])
def test_paused_trials_go_on_to_the_bit_and_decisions_are_kept(
    tmp_path, tiny_bert, cola_folder, monkeypatch, capsys, engine
):
    if "ray" in engine:
        pytest.importorskip("ray")
    monkeypatch.setattr(early_exit, "MARGIN", -1.0)  # the tiny runs tie: the half decides
    config = write_config(tmp_path, tiny_bert, cola_folder)
    grid = {RATE: [1e-4, 0.05], "seed_everything": [0, 1]}
    path = write_sweep(tmp_path, config, grid=grid, settings={"trainer.max_epochs": 3})
    early, full = tmp_path / "early", tmp_path / "full"
    assert sweep(path, early, "--stop_early", *engine) == 0
    assert "paused early, with any checkpoints" in capsys.readouterr().out
    folders = trial_folders(early / "small")
    states = {folder.name: (folder / "results.json").exists() for folder in folders}
    assert 1 <= sum(states.values()) < len(states)
    paused = [folder for folder in folders if (folder / "paused.json").exists()]
    assert {one.name for one in paused} == {name for name, finished in states.items() if not finished}
    begun = [one for one in paused if (one / "checkpoints" / "last.ckpt").exists()]
    assert begun and all("seed_everything_0" in one.name for one in begun)
    before = {file: file.stat().st_mtime_ns for folder in folders for file in folder.rglob("*.ckpt")}
    assert sweep(path, early, "--stop_early") == 0
    assert {file: file.stat().st_mtime_ns for file in before} == before
    assert sweep(path, early) == 0 and sweep(path, full) == 0
    for folder in trial_folders(full / "small"):
        assert json.loads((folder / "results.json").read_text())["width"] == 16
        assert differences(outcome(folder), outcome(early / "small" / folder.name)) == []
    assert not list(early.rglob("paused.json"))
