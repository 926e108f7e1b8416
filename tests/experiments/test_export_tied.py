"""An adapter over an output layer that is the input embedding, too: only the output is updated."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from common.errors import InputError
from experiments.export_formats import FORMATS, ExportOptions, logits
from lightning_modules.adapter_import import _take_over, native_low_rank_factors, peft_low_rank_factors
from lightning_modules.native_adapter import NativeAdapter
from lora import LoRA
from lora.export import merge
from tests import tiny

BATCHES = [{"inputs": {"input_ids": torch.arange(2, 14).view(2, 6)}}]


@pytest.fixture(scope="module")
def backbone(tmp_path_factory) -> str:
    return str(tiny.save_tiny_llama(tmp_path_factory.mktemp("tied"), tied=True))


def run_of(backbone: str) -> Any:
    """What an export needs of a run whose adapter changes lm_head."""
    model = AutoModelForCausalLM.from_pretrained(backbone).eval()
    adapter = LoRA(3, lora_alpha=6.0, initialization="both_gaussian", targets=["lm_head", "q_proj"])
    adapter.attach(model, "llama")
    adapter.refresh()
    module = SimpleNamespace(
        model=model,
        adapter=adapter,
        head_modules=(),
        data_about={"classes": [], "tokenizer": None},
        backbone_name=backbone,
        revision=None,
        load_model=lambda: (AutoModelForCausalLM.from_pretrained(backbone), ()),
    )
    data = SimpleNamespace(class_names=(), tokenizer=AutoTokenizer.from_pretrained(backbone))
    return SimpleNamespace(module=module, data=data)


def expected_logits(run: Any) -> torch.Tensor:
    """The formula: lm_head's update acts on the last hidden state, and the embedding stays as it was."""
    model, adapter = run.module.model, run.module.adapter
    with torch.no_grad():
        hidden = model.model(**BATCHES[0]["inputs"]).last_hidden_state
        plain = AutoModelForCausalLM.from_pretrained(run.module.backbone_name)
        update = adapter.scaling * adapter.B["lm_head"] @ adapter.A["lm_head"]
        return hidden @ (plain.get_input_embeddings().weight + update).T


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
@pytest.mark.parametrize("kind", list(FORMATS))
def test_every_format_updates_the_output_alone(backbone, tmp_path, kind):
    run = run_of(backbone)
    expected = expected_logits(run)
    torch.testing.assert_close(logits(run.module.model, BATCHES)[0], expected, rtol=1e-4, atol=1e-4)
    export = FORMATS[kind](run, ExportOptions())
    export.write(tmp_path)
    torch.testing.assert_close(export.logits(tmp_path, BATCHES)[0], expected, rtol=1e-4, atol=1e-4)
    served = AutoModelForCausalLM.from_pretrained(tmp_path if kind == "merged" else backbone)
    if kind == "native":
        merge(served, native_low_rank_factors(NativeAdapter.read(tmp_path), served))
    if kind == "peft":  # as --export does: into the weights
        factors, _ = peft_low_rank_factors(AutoModelForCausalLM.from_pretrained(backbone), tmp_path)
        merge(served, factors)
    torch.testing.assert_close(logits(served, BATCHES)[0], expected, rtol=1e-4, atol=1e-4)


def test_training_it_in_full_is_refused_because_a_resumed_run_would_tie_the_two_again(backbone):
    module, trainer = run_of(backbone).module, SimpleNamespace(state=SimpleNamespace(fn="fit"))
    factors = module.adapter.low_rank_factors()
    start = SimpleNamespace(adapter=None, model=module.load_model()[0], trainer=trainer)
    with pytest.raises(InputError, match="lm_head, which shares its weight with another layer"):
        _take_over(start, factors)
    trainer.state.fn = "validate"
    _take_over(start, factors)
    torch.testing.assert_close(logits(start.model, BATCHES)[0], logits(module.model, BATCHES)[0], rtol=1e-4, atol=1e-4)
