"""Runs of the second study's configs, 50 steps on tiny models, against its loop: LoRA, AdamW, a constant rate."""

import json

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
from transformers.pytorch_utils import Conv1D

import cli
from experiments.report.command import rate_layouts
from experiments.report.content import make_study
from experiments.report.sources import read_records
from tests import tiny
from tests.parity.recorder import Recorder, record, save_backbone

STEPS = 50


class PlainLoRA(nn.Module):
    """W x + b + (alpha / rank) · B A x."""

    def __init__(self, base: nn.Module, A: Tensor, B: Tensor, alpha: float) -> None:
        super().__init__()
        self.base, self.scale = base, alpha / len(A)
        self.A, self.B = nn.Parameter(A.clone()), nn.Parameter(B.clone())

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.scale * ((x @ self.A.T) @ self.B.T)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    return save_backbone(tmp_path_factory.mktemp("backbone"))


@pytest.fixture(scope="module")
def news(tmp_path_factory):
    """60 rows, of which 20 validate: five batches of eight an epoch."""
    return tiny.save_ag_news(tmp_path_factory.mktemp("news"), train=60)


def run_of(config: str, backbone, news, runs_dir, *options: str) -> Recorder:
    sizes = ["--data.train_rows", "40", "--data.validation_rows", "20", "--trainer.max_epochs", "10"]
    if "ag_news" in config:
        sizes.append("--data.max_length=32")
    return record(config, runs_dir, "--model.backbone", str(backbone), "--data.data_dir", str(news), *sizes, *options)


def put_lora(model: nn.Module, run: Recorder, alpha: float, kind: type[nn.Module]) -> dict[str, str]:
    """Freezes a model and puts LoRA, as the run started with it, over all layers of a kind; names as in a run."""
    model.train().requires_grad_(False)
    names = {}
    for name in [name for name, module in model.named_modules() if isinstance(module, kind)]:
        key = name.replace(".", "/")
        A, B = run.start[f"adapter.A.{key}"], run.start[f"adapter.B.{key}"]
        assert B.abs().sum() == 0 and A.abs().max() <= A.shape[1] ** -0.5
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, PlainLoRA(model.get_submodule(name), A, B, alpha))
        names |= {f"adapter.A.{key}": f"{name}.A", f"adapter.B.{key}": f"{name}.B"}
    return names


def plain_loop(model: nn.Module, run: Recorder, rate: float) -> tuple[list[float], list[dict[str, Tensor]]]:
    """Losses, and what trains after each step, of AdamW with the study's weight decay on the run's batches."""
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    optimizer = torch.optim.AdamW(trained.values(), lr=rate, betas=(0.9, 0.999), weight_decay=0.001)
    losses, steps = [], []
    for batch in (batch for batches in run.epochs for batch in batches):
        optimizer.zero_grad()
        loss = model(**batch["inputs"], labels=batch["labels"]).loss
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
        steps.append({name: parameter.detach().clone() for name, parameter in trained.items()})
    return losses, steps


def assert_same_trajectory(run: Recorder, names: dict[str, str], losses, steps) -> None:
    """`names` says what the plain loop calls each trained tensor of the run."""
    assert len(losses) == STEPS and len(names) > 10
    assert all("key.bias" in name for name in {*run.trained[0], *steps[0]} - {*names, *names.values()})
    torch.testing.assert_close(torch.tensor(run.losses), torch.tensor(losses), rtol=2e-5, atol=1e-6)
    ours = torch.stack([torch.cat([step[name].flatten() for name in names]) for step in run.trained])
    theirs = torch.stack([torch.cat([step[name].flatten() for name in names.values()]) for step in steps])
    distances = (ours - theirs).abs()[-1]  # the last step's: differences only grow
    # Adam makes a whole step of a gradient that is no larger than rounding, to either side
    assert float(distances.quantile(0.999)) < 2e-5
    assert float((theirs[-1] - theirs[0]).abs().max()) > 1e-3


def test_lora_with_an_adapted_head_follows_the_studys_loop(backbone, news, tmp_path):
    run = run_of("ag_news_lora.yaml", backbone, news, tmp_path, "--model.adapter.wrap_head", "true")
    model = AutoModelForSequenceClassification.from_pretrained(backbone, num_labels=4)
    run.load_head(model)
    names = put_lora(model, run, 32, nn.Linear)
    losses, steps = plain_loop(model, run, rate=3e-4)
    assert_same_trajectory(run, names, losses, steps)
    (layout,) = rate_layouts(make_study(read_records([tmp_path / "ag_news_lora"]), None).curves).values()
    assert list(layout) == [str(3e-4)]  # the study's keys
    epochs = torch.tensor(losses).view(10, -1).mean(dim=1)
    torch.testing.assert_close(torch.tensor(layout["0.0003"]["train_losses"]), epochs, rtol=2e-5, atol=1e-6)


def test_lora_of_a_language_model_follows_a_plain_loop(tmp_path):
    """Over GPT-2's Conv1D layers, which the study's own code passes by: mean loss of the next token, no padding."""
    backbone = tiny.save_tiny_gpt2(tmp_path / "backbone")
    settings = json.loads((backbone / "config.json").read_text())
    settings |= dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    (backbone / "config.json").write_text(json.dumps(settings))
    text = tiny.save_wikitext(tmp_path / "text", train=60)
    run = run_of("wikitext_lora.yaml", backbone, text, tmp_path, "--data.block_size=16", "--model.adapter.rank=8")
    for batch in (batch for batches in run.epochs for batch in batches):
        batch["labels"] = batch["inputs"]["input_ids"]
        batch["inputs"] = {"input_ids": batch["labels"]}  # whole blocks need no mask
        assert batch["labels"].shape == (8, 16)
    model = AutoModelForCausalLM.from_pretrained(backbone)
    names = put_lora(model, run, 32, Conv1D)
    assert_same_trajectory(run, names, *plain_loop(model, run, rate=1e-3))


def test_full_fine_tuning_follows_the_studys_loop(backbone, news, tmp_path):
    run = run_of("ag_news_full.yaml", backbone, news, tmp_path, "--model.optimizer.learning_rate", "1e-3")
    model = AutoModelForSequenceClassification.from_pretrained(backbone, num_labels=4)
    run.load_head(model)
    names = {f"model.{name}": name for name, _ in model.named_parameters()}
    for biases in [name for name in names if name.endswith("key.bias")]:
        # softmax doesn't see them: their gradients are rounding alone, and Adam makes whole steps of it
        del names[biases]
    assert_same_trajectory(run, names, *plain_loop(model.train(), run, rate=1e-3))


def test_results_hold_the_test_after_the_last_epoch_as_the_study_reports_it(backbone, news, tmp_path, capsys):
    run_of("ag_news_lora.yaml", backbone, news, tmp_path, "--model.optimizer.learning_rate", "0.02")
    folder = tmp_path / "ag_news_lora"
    results = json.loads((folder / "results.json").read_text())
    assert results["metric"]["best_epoch"] < 9  # so that the two tests are of different weights
    for which, test in (("best", results["test"]), ("last", results["test_last"])):
        capsys.readouterr()
        options = ["--config", str(folder / "config.yaml"), "--runs_dir", str(tmp_path), "--run_name", "ag_news_lora"]
        assert cli.main(["test", *options, "--ckpt_path", which]) == 0
        assert f"{test['loss']:.4f}" in capsys.readouterr().out
    assert results["test"]["loss"] != results["test_last"]["loss"]
