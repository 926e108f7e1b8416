"""What a sweep says its trials will cost, against the rows that Lightning trains on."""

import json

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.demos.boring_classes import RandomDataset
from torch.utils.data import DataLoader

from experiments.sweep.cost import estimate_costs
from experiments.sweep.folder import State, SweepFolder
from lightning_modules.peft_adapter import PEFTAdapter

ROWS, BATCH = 11, 4


class Made:
    """A data module as a sweep asks it: it knows how many rows it has."""

    def __init__(self, **settings):
        self.row_counts = {"train_rows": ROWS}

    def setup(self):
        pass


class Counting(LightningModule):
    """One weight; counts the rows it is trained on."""

    def __init__(self):
        super().__init__()
        self.weight, self.rows = torch.nn.Parameter(torch.zeros(1)), 0

    def training_step(self, batch, batch_idx):
        self.rows += len(batch)
        return (self.weight * batch.sum()).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def train_dataloader(self):
        return DataLoader(RandomDataset(2, ROWS), batch_size=BATCH)


def asked(settings, adapter=None):
    trainer = {"max_epochs": None, "max_steps": -1, "limit_train_batches": None, "overfit_batches": 0.0}
    trainer |= {"accumulate_grad_batches": 1} | settings
    model = {"init_args": {"backbone": "made-base", "adapter": adapter or {"class_path": "lora.LoRA"}}}
    data = {"class_path": f"{__name__}.Made", "init_args": {"batch_size": BATCH}}
    return {"trainer": trainer, "model": model, "data": data}


def costs(tmp_path, settings, adapter=None):
    return estimate_costs(SweepFolder(tmp_path / "runs" / "made"), [State.WAITING], [asked(settings, adapter)])


def trained_rows(tmp_path, settings):
    module = Counting()
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    Trainer(accelerator="cpu", enable_model_summary=False, default_root_dir=tmp_path, **quiet, **settings).fit(module)
    return module.rows


@pytest.mark.parametrize(
    "settings",
    [
        {"max_epochs": 3},
        {"max_epochs": 3, "max_steps": 2},
        {"max_epochs": 1, "max_steps": 50},
        {"max_epochs": 2, "limit_train_batches": 2},
        {"max_epochs": 2, "limit_train_batches": 9},
        {"max_epochs": 2, "limit_train_batches": 0.7},
        {"max_epochs": 2, "overfit_batches": 1},
        {"max_epochs": 3, "max_steps": 1, "accumulate_grad_batches": 2},
    ],
)
@pytest.mark.filterwarnings("ignore::Warning")  # Lightning's advice on workers and logging
def test_rows_are_those_that_a_trainer_sees(tmp_path, settings):
    assert costs(tmp_path, settings).of_trials[0].rows == str(trained_rows(tmp_path, settings))


def test_rows_of_endless_training_are_unknown(tmp_path):
    assert costs(tmp_path, {"max_epochs": -1}).of_trials[0].rows == "unknown"


def test_speed_comes_from_rows_that_were_trained_not_from_epochs_begun(tmp_path):
    """A run that max_steps ended after 8 of 1,000 rows took 16 s: 2 s a row, so 33 rows take 66 s."""
    run = tmp_path / "runs" / "short"
    run.mkdir(parents=True)
    made = {"backbone": "made-base", "adapter": "LoRA", "wall_seconds": 16.0, "train_losses": [0.5]}
    made |= {"data": {"train_rows": 1000}, "throughput": {"train_rows": 8}}
    (run / "results.json").write_text(json.dumps(made))
    assert costs(tmp_path, {"max_epochs": 3}).of_trials[0].time == "66 s"


def test_the_speed_of_one_of_peft_s_methods_is_that_of_runs_with_it(tmp_path):
    run = tmp_path / "runs" / "before"
    run.mkdir(parents=True)
    theirs = PEFTAdapter("dora", {"r": 2})
    made = {"backbone": "made-base", "adapter": theirs.name, "wall_seconds": 22.0, "throughput": {"train_rows": 11}}
    (run / "results.json").write_text(json.dumps(made))
    for method, time in (("dora", "66 s"), ("lora", "unknown")):
        adapter = {"class_path": "lightning_modules.PEFTAdapter", "init_args": {"method": method}}
        assert costs(tmp_path, {"max_epochs": 3}, adapter).of_trials[0].time == time


def test_without_a_finished_run_of_its_kind_the_time_is_unknown(tmp_path):
    told = costs(tmp_path, {"max_epochs": 3})
    assert told.of_trials[0].time == "unknown"
    assert "1 trials, 33 training rows in all" in told.summary and "tells the speed of 1" in told.summary


def test_what_is_left_of_a_sweep_is_told_apart_from_the_whole(tmp_path):
    folder = SweepFolder(tmp_path / "runs" / "made")
    done = folder.path / "one"
    done.mkdir(parents=True)
    made = {"backbone": "made-base", "adapter": "LoRA", "wall_seconds": 66.0, "throughput": {"train_rows": 33}}
    (done / "results.json").write_text(json.dumps(made))
    configs = [asked({"max_epochs": epochs}) for epochs in (3, 3, 1)]
    states = [State.FINISHED, State.WAITING, State.WAITING]
    assert estimate_costs(folder, states, configs).summary == (
        "3 trials, 77 training rows in all, about 3 min one after another; "
        "2 still to run, 44 training rows in all, about 88 s one after another"
    )
