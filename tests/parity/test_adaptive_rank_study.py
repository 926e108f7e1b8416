"""Runs of the study's own configs, 50 steps on a tiny model, against the study's loop written a second time."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from experiments.sweep.definition import read_base
from tests.parity.adaptive_rank_study import StudyRun, StudySettings, Trajectory, train
from tests.parity.recorder import Recorder, record, save_backbone

LAYERS, EPOCHS, STEPS = 8, 10, 50
ALLOCATING = ["cola_adaptive", "cola_alpha_range/alpha_0.5_to_3_constant", "cola_memory/from_30000_to_60000_linear"]


@pytest.fixture(scope="module")
def backbone(tmp_path_factory) -> Path:
    return save_backbone(tmp_path_factory.mktemp("backbone"))


@pytest.fixture(scope="module")
def runs(backbone, cola_folder, tmp_path_factory):
    """The record of a run of each config, made once."""
    kept: dict[str, Recorder] = {}

    def recorded(name: str) -> Recorder:
        if name not in kept:
            options = ["--model.backbone", str(backbone), "--data.data_dir", cola_folder, "--data.max_length=32"]
            options += ["--trainer.max_epochs", str(EPOCHS)]
            for end, budget in budgets(name).items():
                options += [f"--budget_schedule.memory_{end}", str(budget)]
            kept[name] = record(f"{name}.yaml", tmp_path_factory.mktemp("runs"), *options)
        return kept[name]

    return recorded


def budgets(name: str) -> dict[str, float]:
    """Both ends of a config's budget schedule, for as many layers as there are here."""
    settings = read_base((f"{name}.yaml",))
    ends = {end: settings.get(f"budget_schedule.memory_{end}") for end in ("start", "end")}
    return {end: budget * LAYERS / 96 for end, budget in ends.items() if budget is not None}


def study_settings(name: str) -> StudySettings:
    """What the study's script would be told for a config. What it isn't told (its defaults) isn't read from ours."""
    settings = read_base((f"{name}.yaml",))
    rank = settings.get("model.adapter.rank_max", settings.get("model.adapter.rank"))
    average = LAYERS * settings.get("model.adapter.rank_average", 0) ** 2
    ends = budgets(name)
    return StudySettings(
        rank_min=settings.get("model.adapter.rank_min", rank),
        rank_max=rank,
        budget_start=ends.get("start", average),
        budget_end=ends.get("end", average),
        learning_rate=settings["model.optimizer.learning_rate"],
        head_learning_rate=settings["model.optimizer.head_learning_rate"],
        allocation_learning_rate=settings.get("model.optimizer.allocation_learning_rate", 0.0),
        linear_schedule=settings["model.optimizer.schedule"] == "linear_with_warmup",
        epochs_budget_start=settings.get("budget_schedule.epochs_memory_start", 0),
        epochs_budget_change=settings.get("budget_schedule.epochs_memory_start_to_end", 0),
    )


def trained_as_in_the_study(run: Recorder, backbone: Path, settings: StudySettings) -> Trajectory:
    """The study's loop on the run's batches, from where the run started."""
    model = AutoModelForSequenceClassification.from_pretrained(backbone, num_labels=2)
    run.load_head(model)
    start = StudyRun(model.train(), run.start["adapter.R"], run.start.get("adapter.rank_allocation.weights"), settings)
    drawn = run.ranks_drawn or [settings.rank_max] * STEPS
    return train(start, run.epochs, drawn if start.allocation is None else None)


def largest_differences(run: Recorder, theirs: Trajectory) -> dict[str, float]:
    """Between the run and the study's loop, over all steps; losses, alphas and budgets relative to their size.

    Of R, one entry in a thousand may differ by more: where an entry's first gradient is no larger than rounding, Adam
    makes a whole step of it, to either side.
    """
    weights, biases = run.series("model.classifier.weight"), run.series("model.classifier.bias")
    heads = [torch.cat([weight.flatten(), bias]) for weight, bias in zip(weights, biases, strict=True)]
    pairs = {"R": (run.series("adapter.R"), theirs.cores), "head": (heads, theirs.heads)}
    if theirs.weights:
        pairs["w"] = (run.series("adapter.rank_allocation.weights"), theirs.weights)
    distances = {name: (torch.stack(a) - torch.stack(b)).abs() for name, (a, b) in pairs.items()}
    found = {name: float(distance.max()) for name, distance in distances.items()}
    found["R"] = float(distances["R"].flatten().quantile(0.999))
    series = {"loss": (run.losses, theirs.losses)}
    if theirs.weights:
        series |= {"alpha": (run.alphas, theirs.alphas), "budget": (run.budgets, theirs.budgets)}
    for name, (a, b) in series.items():
        found[name] = max(abs(x - y) / abs(y) for x, y in zip(a, b, strict=True))
    return found


TOLERANCES = {"R": 1e-5, "head": 1e-5, "w": 1e-5, "loss": 5e-6, "alpha": 1e-12, "budget": 1e-12}


@pytest.mark.parametrize(
    "name",
    [ALLOCATING[0], pytest.param(ALLOCATING[1], marks=pytest.mark.long), ALLOCATING[2], "cola_lora_xs_rank_25",
     "cola_nested"],
)  # fmt: skip
def test_a_run_follows_the_studys_trajectory(name, runs, backbone):
    run, settings = runs(name), study_settings(name)
    theirs = trained_as_in_the_study(run, backbone, settings)
    assert len(run.losses) == STEPS
    differences = largest_differences(run, theirs)
    assert {name: value for name, value in differences.items() if value > TOLERANCES[name]} == {}
    assert float(theirs.cores[-1].abs().max()) > 5e-3  # R has moved by far more than it differs
    if theirs.weights:
        assert run.validated_ranks == theirs.validated_ranks
        assert float((theirs.weights[-1] - theirs.weights[0]).abs().max()) > 5e-3


@pytest.mark.parametrize("name", ALLOCATING[:1])
@pytest.mark.parametrize(
    ("left_out", "seen_in"),
    [
        ({"clip_norm": None}, {"R", "w", "head", "loss"}),
        ({"weight_decay": 0.0}, {"w", "head"}),
        ({"epochs_rank_discrete": 0}, {"w", "loss"}),
    ],
    ids=["clipping", "weight decay", "discrete ranks at the end"],
)
def test_a_loop_that_leaves_something_out_is_seen_to_differ(name, left_out, seen_in, runs, backbone):
    """So the comparison above would fail if a config lost that setting."""
    run = runs(name)
    theirs = trained_as_in_the_study(run, backbone, replace(study_settings(name), **left_out))
    differences = largest_differences(run, theirs)
    assert all(differences[name] > 10 * TOLERANCES[name] for name in seen_in), differences


def test_the_warm_up_is_rounded_down(runs, backbone):
    run, settings = runs("cola_adaptive"), study_settings("cola_adaptive")
    rounded_up = trained_as_in_the_study(run, backbone, replace(settings, warmup_fraction=0.08))  # 4 steps instead of 3
    assert largest_differences(run, rounded_up)["R"] > 1e-4
