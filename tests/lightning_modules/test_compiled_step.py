"""Steps that torch.compile sees as whole graphs, without a compiler: how many there are, and their losses."""

import shutil
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback

import cli
from common.errors import InputError
from lightning_modules import TextClassificationModule, adapted_module
from lightning_modules.compiled_step import compiled
from lora import AdaptiveLoRA, AdaptiveLoRAXS, LoRA, NestedLoRA
from tests import tiny

# torch.compile's own doing, when it looks into an autograd.Function
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*should not be instantiated:DeprecationWarning", "ignore:.*torch.jit.script:DeprecationWarning"
)

ADAPTERS = {
    "softmax": lambda: AdaptiveLoRAXS(1, 4, 2.5),
    "bounded": lambda: AdaptiveLoRAXS(1, 4, 2.5, allocation="bounded"),
    "adaptive_lora": lambda: AdaptiveLoRA(1, 4, 2.5, lora_alpha=8, targets="attention"),
    "lora": lambda: LoRA(4, lora_alpha=8),
    "full": lambda: None,
}
PHASES = {"softmax": 2, "bounded": 2, "adaptive_lora": 2}  # soft masks and hard ones
CASES = [("bounded", "32-true"), ("lora", "bf16-mixed")]
CASES += [pytest.param(name, "32-true", marks=pytest.mark.long) for name in ("adaptive_lora", "full")]


class Losses(Callback):
    def __init__(self):
        self.seen, self.shapes = [], set()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.seen.append(float(outputs["loss"]))
        self.shapes.add(batch["inputs"]["input_ids"].shape)


@pytest.fixture
def run(tmp_path, cola_folder, monkeypatch):
    """Trains for three epochs, the last at discrete ranks; gives what was seen and the graphs that were made."""
    # Four adapted layers: a first batch of 7 tokens, and as many layers, would count as one size and get its own graph.
    folder = str(tiny.save_tiny_bert(tmp_path, layers=1, dropout=0.0))

    def trained(name, precision, captures=False, compiles=True, **data):
        graphs = []
        backend = lambda graph, inputs: graphs.append(graph) or graph.forward  # noqa: E731
        eager = lambda module, *asked: compiled(module, captures, backend=backend)  # noqa: E731
        monkeypatch.setattr(adapted_module, "compiled", eager)
        torch._dynamo.reset()
        torch.manual_seed(0)
        module = tiny.make_module(folder, ADAPTERS[name](), learning_rate=1e-2)
        module.compiles = compiles
        losses = Losses()
        settings = {"max_epochs": 3, "precision": precision, "limit_val_batches": 1}
        trainer = tiny.make_trainer(losses, **settings)
        trainer.fit(module, datamodule=tiny.make_data(folder, cola_folder, **data))
        return losses, len(graphs)

    return trained


@pytest.mark.parametrize(("name", "precision"), CASES)
def test_all_lengths_share_a_graph_with_the_losses_of_ordinary_steps(name, precision, run):
    ordinary, _ = run(name, precision, compiles=False)
    losses, graphs = run(name, precision)
    assert graphs == PHASES.get(name, 1) and len(losses.shapes) > 3
    tolerance = 1e-5 if precision == "32-true" else 1e-2
    torch.testing.assert_close(losses.seen, ordinary.seen, rtol=tolerance, atol=tolerance)


def test_for_graphs_that_are_recorded_there_is_one_for_each_bucket_and_phase(run):
    ordinary, _ = run("softmax", "bf16-mixed", compiles=False, length_multiple=8)
    losses, graphs = run("softmax", "bf16-mixed", captures=True, length_multiple=8)
    assert {shape[1] % 8 for shape in losses.shapes} == {0} and len(losses.shapes) > 1
    assert graphs == len(losses.shapes) * PHASES["softmax"]
    torch.testing.assert_close(losses.seen, ordinary.seen, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("given", ["cuda_graphs", "nested", "unprepared"])
def test_what_cannot_be_compiled_is_refused(given, tmp_path, tiny_bert, cola_folder):
    adapter, options, message = {
        "cuda_graphs": (
            None,
            {"cuda_graphs": True},
            r"cuda_graphs is true, but this run is on cpu; allowed: on an NVIDIA",
        ),
        "nested": (
            NestedLoRA(1, 4, lora_alpha=8),
            {"compile": True},
            r"compile is true with NestedLoRA, .*allowed: lora",
        ),
        "unprepared": (None, {"compile": True}, r"compile is true with a bert, whose attention masks .*Leave out"),
    }[given]
    module = TextClassificationModule(tiny_bert, adapter, **options)
    module.sees_padding = given == "unprepared"
    with pytest.raises(InputError, match=message):
        tiny.make_trainer().fit(module, datamodule=tiny.make_data(tiny_bert, cola_folder))


def test_what_was_trained_in_graphs_is_evaluated_and_exported_without_a_gpu(finished_run, tmp_path):
    folder = Path(shutil.copytree(finished_run[1] / "tiny", tmp_path / "tiny"))
    config = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(config.replace("cuda_graphs: false", "cuda_graphs: true"))
    assert config.count("cuda_graphs: false") == 1
    assert cli.main(["test", str(folder)]) == 0
    assert cli.main(["export", str(folder), "--format", "native"]) == 0


@pytest.mark.parametrize("multiple", [0, 48, 24])
def test_buckets_that_rows_of_the_greatest_length_do_not_fit_into_are_refused(multiple, tiny_bert, cola_folder):
    data = tiny.make_data(tiny_bert, cola_folder, length_multiple=multiple)
    with pytest.raises(InputError, match=f"length_multiple is {multiple} and max_length is 32.*allowed: divisors"):
        data.setup("fit")
