"""Settings that change nothing in a fit are named, with the reason; those that act aren't."""

from itertools import groupby
from operator import itemgetter

import pytest

from experiments.idle_settings import idle_settings
from experiments.settings import parse
from tests.command_line import write_config

LORA = {"model.adapter": "lora.LoRA", "model.adapter.lora_alpha": 4}
SPEAK = {
    "model": "lightning_modules.LanguageModellingModule",
    "data": "datamodules.PlainTextDataModule",
    "data.train_file": "a.txt",
}
TABLE = {"data": "datamodules.TableDataModule", "data.train_file": "a.tsv"}
BUDGETS = {"budget_schedule.memory_start": 100, "budget_schedule.memory_end": 200}
TO_END = "budget_schedule.epochs_memory_start_to_end"
ENERGY = {"model.adapter.factors": "gradient", "model.adapter.allocation": "fixed_by_energy"}


@pytest.fixture(scope="module")
def config(tmp_path_factory, tiny_bert, cola_folder):
    return write_config(tmp_path_factory.mktemp("config"), tiny_bert, cola_folder)


# What they stand beside, name, value, reason; those of one beginning follow each other, and are tried together.
IDLE = [
    ({"model.optimizer.schedule": "constant"}, "model.optimizer.warmup_fraction", 0.1, "the schedule is constant"),
    ({"model.optimizer.schedule": "constant"}, "model.optimizer.warmup_rounding", "down", "the schedule is"),
    (LORA, "model.optimizer.allocation_weight_decay", 0.1, "no ranks are learned"),
    (LORA, "rank_logging.every_n_steps", 3, "no ranks are learned"),
    ({**SPEAK, "model.adapter.factors": "gradient"}, "model.adapter.head_warmup_steps", 3, "no head is trained"),
    ({**LORA, "model.adapter.wrap_head": True}, "model.optimizer.head_learning_rate", 0.1, "the head is adapted"),
    ({"trainer.max_epochs": 1}, "model.adapter.tau", 0.5, "all epochs have discrete ranks"),
    ({"trainer.max_epochs": 1}, "alpha_growth.alpha_max", 5.0, "all epochs have discrete ranks"),
    ({"trainer.max_epochs": 1}, "model.optimizer.allocation_learning_rate", 0.5, "all epochs have"),
    (ENERGY, "alpha_growth.alpha_max", 5.0, "allocation is fixed_by_energy"),
    (ENERGY, "rank_discretisation.epochs_rank_discrete", 0, "allocation is fixed_by_energy"),
    (ENERGY, "model.adapter.initial_weights", "left_skewed", "allocation is fixed_by_energy"),
    (ENERGY, "model.adapter.rounding", "plain", "allocation is fixed_by_energy"),
    (ENERGY, "model.adapter.initial_std", 0.5, "R starts from the gradient"),
    ({"model.init_from": "a"}, "model.adapter.initial_weights", "uniform", "init_from is where it starts"),
    ({"alpha_growth.alpha_max": 0.5}, "alpha_growth.growth", "cosine", "alpha stays as it is"),
    ({**BUDGETS, "budget_schedule.memory_end": 100}, TO_END, 1, "the budget stays as it is"),
    ({**BUDGETS, "budget_schedule.epochs_memory_start": 2}, TO_END, 1, "no epoch is left for it"),
    ({"trainer.logger": False}, "rank_logging.pictures_every_n_epochs", 3, "trainer.logger is false"),
    ({"model.adapter": "null"}, "update_norms.every_n_steps", 3, "full fine-tuning has none"),
    ({}, "model.revision", "main", "the backbone isn't on the hub"),
    ({}, "trainer.model_registry", "a/b", "nothing is uploaded"),
    ({}, "trainer.min_epochs", 1, "nothing ends it early"),
    ({}, "data.subset_seed", 1, "all rows are taken"),
    ({"data.task": "sst2"}, "data.cola_validation", "combined", "the task is sst2"),
    ({**TABLE, "data.validation_rows": 3}, "data.validation_fraction", 0.5, "validation_rows is given"),
    ({**TABLE, "data.train_file": "a.jsonl"}, "data.separator", ";", "no file is a .csv or .tsv"),
    ({"data": TABLE["data"], "data.dataset": "a/b"}, "data.separator", ";", "no file is a .csv or .tsv"),
    (SPEAK, "data.text_column", "line", "no file is a table"),
    (SPEAK, "data.test_rows", 3, "no test_file is given"),
    (SPEAK, "model.optimizer.head_learning_rate", 0.1, "a language model has no head"),
    ({**SPEAK, **LORA}, "model.adapter.wrap_head", True, "a language model has no head"),
]
ACTING = [
    ({}, "model.optimizer.warmup_fraction", 0.1),
    ({}, "model.optimizer.allocation_weight_decay", 0.1),
    ({}, "model.adapter.tau", 0.5),
    ({"model.adapter.factors": "gradient"}, "model.adapter.gradient_batches", 3),
    ({"trainer.max_time": "00:00:01:00"}, "trainer.min_epochs", 1),
    ({"data.train_rows": 8}, "data.subset_seed", 1),
    ({**BUDGETS, "budget_schedule.epochs_memory_start": 1}, TO_END, 1),
    ({"trainer.max_steps": 3}, "trainer.min_steps", 1),
    (TABLE, "data.validation_fraction", 0.5),
    (TABLE, "data.subset_seed", 1),
    (TABLE, "data.separator", ";"),
    ({**SPEAK, "data.validation_rows": 3}, "data.validation_fraction", 0.5),
    ({**TABLE, "data.train_file": "a.CSV.gz"}, "data.separator", ";"),
    (ENERGY, "rank_logging.pictures_every_n_epochs", 3),
]


def together(cases):
    return pytest.mark.parametrize("cases", [list(group) for _, group in groupby(cases, key=itemgetter(0))])


@together(IDLE)
def test_a_setting_that_changes_nothing_is_named_with_the_reason(config, cases):
    others, values = cases[0][0], {name: value for _, name, value, _ in cases}
    before, after = (idle_in(config, changes) for changes in (others, {**others, **values}))
    assert all(f"{name} ({reason}" in after[name] for _, name, _, reason in cases)
    assert after.keys() - before.keys() == values.keys() - before.keys()


def idle_in(config, changes):
    """What `idle_settings` says, by setting."""
    settings = parse(["fit", "--config", str(config), *(f"--{name}={value}" for name, value in changes.items())])
    return {line.partition(" (")[0]: line for line in idle_settings(settings, settings.build())}


@together(ACTING)
def test_a_setting_that_acts_is_not_named(config, cases):
    values = {name: value for _, name, value in cases}
    assert not values.keys() & idle_in(config, {**cases[0][0], **values}).keys()
