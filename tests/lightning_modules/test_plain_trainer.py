"""Lightning's own Trainer, without this project's command line, trains and evaluates the same."""

import json
from itertools import pairwise

import lightning.pytorch as pl
import pytest
import torch
import yaml
from lightning.pytorch.callbacks import LambdaCallback

from callbacks.alpha_growth import AlphaGrowth
from callbacks.budget_schedule import BudgetSchedule
from callbacks.divergence import Divergence
from callbacks.merged_evaluation import MergedEvaluation
from callbacks.nested_ranks import NestedRankSampling
from callbacks.rank_discretisation import RankDiscretisation
from callbacks.rank_logging import RankLogging
from callbacks.run_ends import WholeSteps
from datamodules import GLUEDataModule
from lightning_modules import OptimizerSettings, PEFTAdapter, TextClassificationModule
from lora import AdaptiveLoRA, AdaptiveLoRAXS, NestedLoRAXS
from tests import tiny
from tests.command_line import run, write_config

ADALORA = {"init_r": 4, "target_r": 2, "tinit": 2, "tfinal": 3, "deltaT": 1}
ADAPTERS = {
    "adaptive LoRA-XS": (AdaptiveLoRAXS, {"rank_min": 1, "rank_max": 4, "rank_average": 2.5}),
    "adaptive LoRA": (AdaptiveLoRA, {"rank_min": 1, "rank_max": 4, "rank_average": 2.5, "lora_alpha": 8.0}),
    "nested LoRA-XS": (NestedLoRAXS, {"rank_max": 4}),
    "AdaLoRA": (PEFTAdapter, {"method": "adalora", "settings": ADALORA}),
}


@pytest.mark.parametrize("kind", ADAPTERS)
def test_a_plain_trainer_trains_what_the_command_line_trains(kind, tiny_bert, cola_folder, tmp_path):
    make, settings = ADAPTERS[kind]
    name = "lightning_modules.PEFTAdapter" if make is PEFTAdapter else f"lora.{make.__name__}"
    config = write_config(tmp_path, tiny_bert, cola_folder, {"class_path": name, "init_args": settings})
    assert run("fit", config, tmp_path, "--trainer.max_epochs", "2") == 0
    results = json.loads((tmp_path / "tiny" / "results.json").read_text())
    weights = torch.load(tmp_path / "tiny" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]

    asked = yaml.safe_load(config.read_text())
    pl.seed_everything(1, verbose=False)
    optimizer = OptimizerSettings(**asked["model"]["init_args"]["optimizer"])
    module = TextClassificationModule(tiny_bert, make(**settings), optimizer)
    data = GLUEDataModule(backbone=tiny_bert, seed=1, **asked["data"]["init_args"])
    losses = tiny.notes(lambda module: float(module.trainer.callback_metrics["val/loss"]), "on_train_epoch_end")
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    pl.Trainer(max_epochs=2, accelerator="cpu", devices=1, callbacks=[losses], **quiet).fit(module, datamodule=data)
    assert losses.seen == results["val_losses"]
    state = module.state_dict()
    tensors = [key for key, value in weights.items() if isinstance(value, torch.Tensor)]
    assert "adapter.R" in tensors or kind not in ("adaptive LoRA-XS", "nested LoRA-XS")
    assert all(torch.equal(state[key], weights[key]) for key in tensors)


def kinds(trainer) -> list[type]:
    return sorted((type(callback) for callback in trainer.callbacks), key=lambda kind: kind.__name__)


def test_a_callback_that_the_trainer_has_wins_and_none_is_there_twice(tiny_bert, cola_folder):
    class Slower(AlphaGrowth):
        pass

    module, data = tiny.make_module(tiny_bert, AdaptiveLoRAXS(1, 4, 2.5)), tiny.make_data(tiny_bert, cola_folder)
    trainer = tiny.fit(module, data, Slower(1.0, 2.0), RankDiscretisation(0), max_epochs=1)
    trainer.validate(module, datamodule=data, verbose=False)
    assert kinds(trainer) == [BudgetSchedule, Divergence, MergedEvaluation, RankDiscretisation, Slower, WholeSteps]
    assert module.rank_allocation.alpha == 2.0 and not module.rank_allocation.is_discrete


@pytest.mark.parametrize(
    ("adapter", "more"), [(lambda: None, []), (lambda: NestedLoRAXS(rank_max=4), [NestedRankSampling])]
)
def test_what_a_method_does_not_need_stays_away(tiny_bert, cola_folder, adapter, more):
    trainer = tiny.make_trainer(limit_train_batches=1)
    trainer.fit(tiny.make_module(tiny_bert, adapter()), datamodule=tiny.make_data(tiny_bert, cola_folder))
    assert kinds(trainer) == [Divergence, MergedEvaluation, *more, WholeSteps]


def test_what_looks_before_the_first_step_sees_the_first_alpha_and_budget(tiny_bert, cola_folder):
    module = tiny.make_module(tiny_bert, AdaptiveLoRAXS(1, 4, 2.5))
    trainer = tiny.make_trainer(RankLogging(), limit_train_batches=2)  # before the callbacks that set them
    trainer.fit(module, datamodule=tiny.make_data(tiny_bert, cola_folder))
    assert [entry["alpha"] for entry in module.record.rank_history] == [0.5, 3.0]


@pytest.mark.parametrize("accumulate", [1, 2, 4, 8])
def test_a_step_ends_where_lightning_makes_one(tiny_bert, cola_folder, accumulate):
    """Lightning steps at the epoch's last batch, whatever has been accumulated."""
    told, steps = [], [0]
    Lenient = type("Lenient", (WholeSteps,), {"on_train_start": lambda *_: None})
    steps_made = tiny.at("on_train_batch_end", lambda trainer, _: steps.append(trainer.global_step))
    asked = LambdaCallback(on_train_batch_end=lambda _, module, *rest: told.append(module.ends_step(rest[-1])))
    settings = {"accumulate_grad_batches": accumulate, "limit_train_batches": 5, "max_epochs": 2}
    trainer = tiny.make_trainer(Lenient(), steps_made, asked, limit_val_batches=0, **settings)
    module = tiny.make_module(tiny_bert, AdaptiveLoRAXS(1, 4, 2.5))
    trainer.fit(module, datamodule=tiny.make_data(tiny_bert, cola_folder))
    assert told == [after > before for before, after in pairwise(steps)] and len(told) == 10 and told[4] and told[9]
    assert sum(told) == trainer.global_step == module.training_steps() == 2 * module.steps_per_epoch()
