"""A run of AdaLoRA's config against PEFT's own training loop, whose steps are counted from 1."""

import pytest
import torch
from transformers import AutoModelForSequenceClassification, get_linear_schedule_with_warmup

from experiments.sweep.definition import read_base
from tests.parity.recorder import record, save_backbone

peft = pytest.importorskip("peft")
# PEFT 0.21's wrapper asks transformers 5.23 for an attribute by its old name
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

STEPS = 50
SETTINGS = {"init_r": 4, "target_r": 2, "lora_alpha": 8, "tinit": 5, "tfinal": 15, "deltaT": 3, "orth_reg_weight": 0.1}
TARGETS = ["query", "value", "attention.output.dense", "output.dense"]


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    return save_backbone(tmp_path_factory.mktemp("backbone"))


@pytest.fixture(scope="module")
def recorded(backbone, cola_folder, tmp_path_factory):
    options = ["--model.backbone", str(backbone), "--data.data_dir", cola_folder, "--trainer.max_epochs", "10"]
    options += [f"--model.adapter.settings.{name}={value}" for name, value in SETTINGS.items()]
    return record("peft/cola_adalora.yaml", tmp_path_factory.mktemp("runs"), *options)


def documented_loop(backbone, recorded, first_step):
    """Losses, the ranks in use before each step, and the model, of the loop in PEFT's documentation."""
    rates = read_base(("peft/cola_adalora.yaml",))
    model = AutoModelForSequenceClassification.from_pretrained(backbone, num_labels=2)
    config = peft.AdaLoraConfig(target_modules=TARGETS, total_step=STEPS, **SETTINGS)
    tuner = peft.get_peft_model(model, config).base_model
    recorded.load_head(model)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data.copy_(recorded.start[f"model.{name}"])
    head = list(model.classifier.requires_grad_(True).parameters())
    factors = [parameter for name, parameter in model.named_parameters() if "lora_" in name and parameter.requires_grad]
    groups = [(head, rates["model.optimizer.head_learning_rate"]), (factors, rates["model.optimizer.learning_rate"])]
    optimizer = torch.optim.AdamW([{"params": group, "lr": rate} for group, rate in groups], weight_decay=0.0)
    schedule = get_linear_schedule_with_warmup(optimizer, 3, STEPS)
    losses, ranks = [], []
    model.train()
    batches = (batch for batches in recorded.epochs for batch in batches)
    for step, batch in enumerate(batches, start=first_step):
        # between two allocations a direction that was cut grows again
        in_use = [int(value.count_nonzero()) for name, value in model.named_parameters() if "lora_E" in name]
        ranks.append(in_use if config.rank_pattern else [SETTINGS["init_r"]] * 8)  # all start at 0
        loss = tuner(**batch["inputs"], labels=batch["labels"]).loss
        loss.backward()
        optimizer.step()
        schedule.step()
        tuner.update_and_allocate(step)
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return losses, ranks, model


def test_a_run_follows_pefts_loop_counted_from_1(backbone, recorded):
    losses, ranks, model = documented_loop(backbone, recorded, first_step=1)
    torch.testing.assert_close(torch.tensor(recorded.losses), torch.tensor(losses), rtol=1e-5, atol=1e-6)
    assert recorded.step_ranks == ranks
    assert sum(ranks[-1]) == 8 * SETTINGS["target_r"] and len(set(ranks[-1])) > 1
    ends = {name.removeprefix("model."): value for name, value in recorded.trained[-1].items()}
    theirs = dict(model.named_parameters())
    for name in (name for name in ends if name.endswith(("lora_A.default", "lora_B.default"))):
        torch.testing.assert_close(ends[name], theirs[name].detach(), rtol=0, atol=2e-5)


def test_counted_from_0_ranks_would_be_others(backbone, recorded):
    _, ranks, _ = documented_loop(backbone, recorded, first_step=0)
    assert recorded.step_ranks != ranks
