"""AdaLoRA's allocation: as in PEFT's documented loop, to its target budget, or a loud failure."""

import json

import pytest
import torch
from lightning.pytorch import Callback

from callbacks.divergence import Divergence
from common.errors import InputError
from lightning_modules import PEFTAdapter
from tests import tiny
from tests.callbacks.test_divergence import Spoil
from tests.command_line import CrashError, crash_at, differences, outcome, run, write_config

# PEFT 0.21's wrapper asks transformers 5.23 for an attribute by its old name; PEFTAdapter doesn't use the wrapper.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

LAYERS = 8
SETTINGS = {"init_r": 4, "target_r": 2, "tinit": 2, "tfinal": 3, "deltaT": 1, "orth_reg_weight": 0.5}
TARGETS = ["query", "value", "attention.output.dense", "output.dense"]


def adalora(**settings):
    return PEFTAdapter("adalora", SETTINGS | settings)


class Recorder(Callback):
    """Keeps what a run started from, and every batch it saw."""

    def on_train_start(self, trainer, pl_module):
        self.start = {name: value.clone() for name, value in pl_module.model.state_dict().items()}
        self.batches = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.batches.append({**batch["inputs"], "labels": batch["labels"]})


def documented_loop(backbone, recorder, accumulate, rate):
    """PEFT's model after the training loop that its documentation asks for."""
    from peft import AdaLoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification

    from lightning_modules.backbone_loading import load_backbone

    steps = len(recorder.batches) // accumulate
    config = AdaLoraConfig(target_modules=TARGETS, total_step=steps, **SETTINGS)
    plain, _ = load_backbone(AutoModelForSequenceClassification, backbone, num_labels=2)
    model = get_peft_model(plain, config)
    model.base_model.model.load_state_dict(recorder.start)
    model.base_model.model.classifier.requires_grad_(True)
    model.train()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0)
    for number, batch in enumerate(recorder.batches, start=1):
        # PEFT's own wrapper skips the penalty, unless it has a task type
        (model.base_model(**batch).loss / accumulate).backward()
        if number % accumulate == 0:
            optimizer.step()
            model.base_model.update_and_allocate(number // accumulate)
            optimizer.zero_grad()
    return model.base_model.model, config


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_run_does_what_the_documented_loop_does(accumulate, cola_folder, tmp_path):
    backbone = str(tiny.save_tiny_bert(tmp_path / "still", dropout=0.0))
    recorder = Recorder()
    module = tiny.make_module(backbone, adalora(), learning_rate=0.02)
    trainer = tiny.make_trainer(recorder, max_epochs=2, accumulate_grad_batches=accumulate, limit_val_batches=0)
    trainer.fit(module, datamodule=tiny.make_data(backbone, cola_folder))
    reference, config = documented_loop(backbone, recorder, accumulate, 0.02)
    torch.testing.assert_close(dict(module.model.state_dict()), dict(reference.state_dict()), rtol=0, atol=2e-5)
    kept = {name.removesuffix(".lora_E.default"): sum(mask) for name, mask in config.rank_pattern.items()}
    assert module.adapter.discrete_ranks() == kept
    assert sum(kept.values()) == 2 * LAYERS and len(set(kept.values())) > 1


def test_the_penalty_is_the_one_in_pefts_loss(tiny_bert, cola_folder):
    from peft.tuners.adalora import AdaLoraModel

    module = tiny.make_module(tiny_bert, adalora())
    tiny.fit(module, tiny.make_data(tiny_bert, cola_folder), max_epochs=2, limit_val_batches=0)
    module.eval()
    inputs = {"input_ids": torch.tensor([[2, 5, 6, 3]]), "labels": torch.tensor([1])}
    plain = module.model(**inputs).loss
    tuner = module.adapter.adalora._update_and_allocate.__self__
    assert isinstance(tuner, AdaLoraModel)
    torch.testing.assert_close(module.adapter.regularisation(), tuner(**inputs).loss - plain, rtol=0, atol=1e-6)


@pytest.mark.parametrize("settings", [{"tinit": 3, "tfinal": 2}, {"tinit": 0, "tfinal": 4}, {"tinit": -1}])
def test_a_schedule_without_room_is_refused(settings, tiny_bert, cola_folder):
    module = tiny.make_module(tiny_bert, adalora(**settings))
    with pytest.raises(InputError, match=r"tinit is .* and tfinal is .*, but the run has 5 optimizer steps"):
        tiny.make_trainer().fit(module, datamodule=tiny.make_data(tiny_bert, cola_folder))


@pytest.fixture(scope="module")
def config(tiny_bert, cola_folder, tmp_path_factory):
    adapter = {"class_path": "lightning_modules.PEFTAdapter", "init_args": {"method": "adalora", "settings": SETTINGS}}
    return write_config(tmp_path_factory.mktemp("adalora"), tiny_bert, cola_folder, adapter)


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory):
    runs_dir = tmp_path_factory.mktemp("runs")
    assert run("fit", config, runs_dir) == 0
    return runs_dir


def test_results_name_the_method_its_ranks_and_its_budget(finished, config, capsys):
    results = json.loads((finished / "tiny" / "results.json").read_text())
    assert results["adapter"] == "PEFT AdaLoRA" and results["status"] != "budget_missed"
    assert results["budget"] is None and results["average_rank"] == 2
    widths = {"query": (16, 16), "value": (16, 16), "attention": (16, 16), "output": (32, 16)}
    assert results["trainable_parameters"]["adapter"] == 2 * sum(4 * (a + b + 1) for a, b in widths.values())
    ranks = json.loads((finished / "tiny" / "ranks.json").read_text())["layers"]
    assert len(ranks) == LAYERS and sum(ranks.values()) == 2 * LAYERS
    table = (finished / "tiny" / "metrics.csv").read_text()
    assert "allocation/budget_requested" in table and "allocation/budget_used" in table
    assert run("test", config, finished, "--ckpt_path", "best") == 0


@pytest.mark.slow
def test_a_resumed_run_ends_like_an_undisturbed_one(finished, config, tmp_path):
    with pytest.raises(CrashError):
        run("fit", config, tmp_path, *crash_at(7))
    assert run("fit", config, tmp_path, "--ckpt_path", "last") == 0
    assert differences(outcome(finished / "tiny"), outcome(tmp_path / "tiny")) == []


def test_a_run_that_stops_early_fails_loudly_and_loses_nothing(config, tmp_path, capsys):
    stop = {"monitor": "val/loss", "stopping_threshold": 1e6}  # after the first epoch
    callback = json.dumps({"class_path": "lightning.pytorch.callbacks.EarlyStopping", "init_args": stop})
    assert run("fit", config, tmp_path, f"--trainer.callbacks={callback}") == 1
    error = capsys.readouterr().err
    assert "its target is 16" in error and "due at step 12 of 15" in error and "Traceback" not in error
    results = json.loads((tmp_path / "tiny" / "results.json").read_text())
    assert results["status"] == "budget_missed" and results["test"] is not None
    assert (tmp_path / "tiny" / "checkpoints" / "last.ckpt").exists()


def test_an_update_that_was_left_out_does_not_spoil_the_allocation(tiny_bert, cola_folder):
    module = tiny.make_module(tiny_bert, adalora(), learning_rate=0.02)
    trainer = tiny.make_trainer(Spoil([1]), Divergence(skip_at_most=1), max_epochs=2, limit_val_batches=0)
    trainer.fit(module, datamodule=tiny.make_data(tiny_bert, cola_folder))
    assert module.record.skipped_updates == 1
    assert sum(module.adapter.discrete_ranks().values()) == LAYERS * SETTINGS["target_r"]
