"""Alpha and budget as functions of the step, alone and in a run."""

import math
from pathlib import Path

import pytest

from callbacks.alpha_growth import AlphaGrowth, alpha_at
from callbacks.budget_schedule import BudgetSchedule, budget_at
from callbacks.checkpoints import LastCheckpoint
from callbacks.divergence import Divergence
from callbacks.health import AllocationMovement
from callbacks.rank_discretisation import RankDiscretisation
from callbacks.rank_logging import RankLogging
from callbacks.run_ends import StepLimit
from callbacks.update_norms import UpdateNorms
from common.errors import InputError
from lora import AdaptiveLoRAXS, LoRAXS
from tests import tiny

FORMULAS = {
    "linear": lambda t: 0.5 + 2.5 * t,
    "exponential": lambda t: 0.5 ** (1 - t) * 3.0**t,
    "cosine": lambda t: 1.75 - 1.25 * math.cos(math.pi * t),
}


@pytest.mark.parametrize("growth", FORMULAS)
@pytest.mark.parametrize("steps", [2, 3, 17, 1000])
def test_alpha_follows_its_formula_to_the_last_step_or_as_in_the_study_to_the_one_after(growth, steps):
    for step in range(0, steps, max(steps // 16, 1)):
        last, after = (FORMULAS[growth](step / end) for end in (steps - 1, steps))
        assert math.isclose(alpha_at(step, steps, 0.5, 3.0, growth), last)
        assert math.isclose(alpha_at(step, steps, 0.5, 3.0, growth, "after_last_step"), after)
    assert math.isclose(alpha_at(steps + 5, steps, 0.5, 3.0, growth), 3.0)
    assert alpha_at(0, 1, 0.5, 3.0, growth) == 0.5  # a run of one step
    assert alpha_at(1, 3, 3.0, 1.0) == 2.0  # masks may soften


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (AlphaGrowth, {"alpha_min": 0}, "alpha_min is 0 and alpha_max is 3.0; allowed"),
        (AlphaGrowth, {"alpha_max": math.inf}, "alpha_max is inf; allowed"),
        (AlphaGrowth, {"growth": "linaer"}, "growth is 'linaer'.*Did you mean 'linear'"),
        (AlphaGrowth, {"reached_at": "last"}, "reached_at is 'last'.*last_step"),
        (BudgetSchedule, {"memory_start": 9.0}, "memory_end is None; allowed: both"),
        (BudgetSchedule, {"epochs_memory_start": -1}, "epochs_memory_start is -1 .*; allowed: 0 or more"),
        (BudgetSchedule, {"epochs_memory_start_to_end": -1}, "epochs_memory_start_to_end is -1; allowed: 0 or more"),
        (RankDiscretisation, {"epochs_rank_discrete": -1}, "epochs_rank_discrete is -1; allowed: 0 or more"),
        (RankLogging, {"every_n_steps": 0}, "every_n_steps is 0 .*allowed: every_n_steps from 1"),
        (RankLogging, {"pictures_every_n_epochs": -1}, "pictures_every_n_epochs from 0"),
        (UpdateNorms, {"every_n_steps": 0}, "every_n_steps is 0; allowed: 1 or more"),
        (Divergence, {"skip_at_most": -1}, "skip_at_most is -1; allowed: 0"),
        *((LastCheckpoint, {"folder": Path(), "every_n_minutes": n}, "every_n_minutes is") for n in (-1.0, math.nan)),
        (LastCheckpoint, {"folder": Path(), "every_n_steps": 0}, "every_n_steps is 0; allowed: 1 or more"),
    ],
)
def test_settings_out_of_range_are_refused(kind, settings, message):
    with pytest.raises(InputError, match=message):
        kind(**settings)


@pytest.mark.parametrize(
    ("epochs", "schedule", "expected"),
    [
        *((epochs, (30.0, 60.0, 3, 4), 30.0) for epochs in (0, 3)),  # constant, then linear, then constant
        *((epochs, (30.0, 60.0, 3, 4), budget) for epochs, budget in ((4, 37.5), (5, 45.0), (6.5, 56.25))),
        *((epochs, (30.0, 60.0, 3, 4), 60.0) for epochs in (7, 50)),
        (1.5, (40.0, 20.0, 1, 1), 30.0),  # it may shrink, or jump
        (2, (40.0, 20.0, 2, 0), 40.0),
        (2.01, (40.0, 20.0, 2, 0), 20.0),
    ],
)
def test_budgets_follow_their_schedule(epochs, schedule, expected):
    assert math.isclose(budget_at(epochs, *schedule), expected)


def at_each_step(name, hook="on_before_zero_grad"):
    """Notes what of the allocation a step is trained with, or is there at another moment."""
    return tiny.notes(lambda module: getattr(module.rank_allocation, name), hook)


def fit(backbone, cola, *callbacks, **settings):
    module = tiny.make_module(backbone, AdaptiveLoRAXS(1, 4, 2.0))
    tiny.make_trainer(*callbacks, **settings).fit(module, datamodule=tiny.make_data(backbone, cola))
    return module


def test_in_a_run_alpha_grows_by_optimizer_step_whatever_the_accumulation(tiny_bert, cola_folder):
    alphas = at_each_step("alpha")
    fit(tiny_bert, cola_folder, AlphaGrowth(0.5, 3.0), alphas, max_epochs=2, accumulate_grad_batches=2)
    assert alphas.seen == pytest.approx([0.5 + 2.5 * step / 9 for step in range(10)], rel=1e-9)


@pytest.mark.parametrize(
    ("schedule", "expected", "validated"),
    [
        # a validation stands after the epoch's last step, where the next one would begin
        (BudgetSchedule(40.0, 80.0, 1, 1), [40.0] * 6 + [48.0, 56.0, 64.0, 72.0] + [80.0] * 5, [40.0, 80.0, 80.0]),
        (BudgetSchedule(), [32.0] * 15, [32.0] * 3),  # the adapter's stays
    ],
)
def test_in_a_run_the_budget_moves_with_the_epochs(tiny_bert, cola_folder, schedule, expected, validated):
    budgets, evaluated = at_each_step("budget"), at_each_step("budget", "on_validation_batch_end")
    fit(tiny_bert, cola_folder, schedule, budgets, evaluated, max_epochs=3, num_sanity_val_steps=1)
    assert budgets.seen == pytest.approx(expected, rel=1e-9)
    assert evaluated.seen == [32.0, *validated]  # the sanity check comes before any schedule


def test_a_fixed_rank_is_left_alone(tiny_bert, cola_folder, capsys):
    module = tiny.make_module(tiny_bert, LoRAXS(4))
    callbacks = AlphaGrowth(), BudgetSchedule(1.0, 2.0), RankDiscretisation(1), AllocationMovement()
    trainer = tiny.fit(module, tiny.make_data(tiny_bert, cola_folder), *callbacks, limit_train_batches=1)
    assert trainer.global_step == 1
    assert "rank" not in capsys.readouterr().err


def test_a_step_limit_ends_a_run_that_has_done_what_is_asked_for_at_least_and_below_it_is_refused(
    tiny_bert, cola_folder
):
    for name, least, asked in (("min_epochs", 2, 10), ("min_steps", 8, 8)):
        with pytest.raises(InputError, match=rf"max_steps is 7, but trainer.{name} asks for {asked} steps"):
            fit(tiny_bert, cola_folder, StepLimit(7), max_epochs=-1, **{name: least})
    steps = at_each_step("alpha")
    fit(tiny_bert, cola_folder, StepLimit(7), steps, max_epochs=-1, min_epochs=1, min_steps=7)
    assert len(steps.seen) == 7
