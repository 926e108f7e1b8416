"""Exported adapters as a start: read in full and as PEFT computes them, those of earlier versions too, or refused."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import KasaConfig, LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from common.errors import InputError
from lightning_modules.adapter_import import import_adapter, peft_low_rank_factors
from lightning_modules.backbone_sketch import backbone_sketch
from lightning_modules.native_adapter import NativeAdapter
from lora import LoRA
from lora.export import merge, unwrap
from tests.architectures import classifier

TOKENS = torch.arange(2, 14).view(2, 6)
QUERY = "base_model.model.bert.encoder.layer.{}.attention.self.query.lora_B.weight"


def save(folder: Path, **settings: Any) -> Any:
    """A LoRA with random factors, made and written by PEFT alone."""
    torch.manual_seed(1)
    config = LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query", "value"], **settings)
    model = get_peft_model(classifier("bert")[0], config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_()
    model.save_pretrained(folder)
    return model


def edit(folder: Path, change: Any) -> None:
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, {"format": "pt"})


def test_a_whole_folder_says_what_peft_says(tmp_path):
    theirs = save(tmp_path, lora_alpha=5, rank_pattern={"value": 4}, use_rslora=True)
    factors, head = peft_low_rank_factors(classifier("bert")[0], tmp_path)
    ours, _ = classifier("bert")
    merge(ours, factors)
    assert set(head) == {"classifier.weight", "classifier.bias"}
    with torch.no_grad():
        torch.testing.assert_close(ours(TOKENS).logits, theirs(TOKENS).logits, rtol=1e-4, atol=1e-5)


def test_a_folder_that_lacks_a_tensor_or_has_one_more_is_refused(tmp_path):
    save(tmp_path)
    edit(tmp_path, lambda tensors: tensors.update({QUERY.format(7): torch.zeros(8, 2)}))
    with pytest.raises(InputError, match=r"more than this backbone takes: base_model.*layer\.7.*another backbone"):
        peft_low_rank_factors(classifier("bert")[0], tmp_path)
    edit(tmp_path, lambda tensors: tensors.pop(QUERY.format(0)))
    with pytest.warns(UserWarning, match="missing adapter keys"):  # PEFT itself goes on with a part of the update
        PeftModel.from_pretrained(classifier("bert")[0], tmp_path)
    with pytest.raises(InputError, match=r"lacks base_model.*layer\.0.*query.lora_B.*only a part"):
        peft_low_rank_factors(classifier("bert")[0], tmp_path)


@pytest.mark.filterwarnings("ignore:aLoRA is currently only supported")
@pytest.mark.parametrize(
    "settings", [{"alora_invocation_tokens": [5]}, {"kasa_config": KasaConfig()}], ids=["alora", "kasa"]
)
def test_variants_whose_update_is_not_b_a_are_refused(tmp_path, settings):
    save(tmp_path, **settings)
    (name,) = settings
    with pytest.raises(InputError, match=rf"{name}.*allowed: plain LoRA"):
        peft_low_rank_factors(classifier("bert")[0], tmp_path)


def started(folder: Path, adapter: Any, head: tuple[str, ...] = ("classifier",)) -> Any:
    """The model of a fit that starts from a folder."""
    model, _ = classifier("bert")
    if adapter is not None:
        adapter.attach(model, "bert", head)
    module = SimpleNamespace(model=model, adapter=adapter, head_modules=head, load_model=lambda: classifier("bert"))
    module.data_about = {"classes": [], "tokenizer": None}
    module.trainer = SimpleNamespace(state=SimpleNamespace(fn="fit"))
    import_adapter(module, str(folder))
    return model


@pytest.mark.parametrize("trained", ["pooler.dense", "LayerNorm", "word_embeddings", "embeddings alone"])
def test_what_a_run_would_freeze_and_lose_is_refused_and_else_taken_over(tmp_path, trained):
    saved = ["classifier"] if trained == "embeddings alone" else ["classifier", trained]
    theirs = save(tmp_path, modules_to_save=saved)
    with torch.no_grad():
        for name, weight in theirs.named_parameters():
            if "modules_to_save" in name or (trained == "embeddings alone" and "word_embeddings" in name):
                weight += 0.1
    theirs.save_pretrained(tmp_path, save_embedding_layers=trained == "embeddings alone")
    part = trained.split()[0]
    with pytest.raises(InputError, match=rf"its own bert.*{part}.*wouldn't save; allowed.*merge_and_unload"):
        started(tmp_path, LoRA(rank=2, lora_alpha=2, targets="all-linear"))  # also where it would be adapted
    ours = started(tmp_path, None).eval()  # full fine-tuning, which trains and saves it all
    with torch.no_grad():
        torch.testing.assert_close(ours(TOKENS).logits, theirs(TOKENS).logits, rtol=1e-4, atol=1e-5)


def test_a_native_export_with_a_trained_pooler_is_refused_where_the_pooler_is_frozen(tmp_path):
    model, _ = classifier("bert")
    adapter, head = LoRA(rank=2, lora_alpha=2, targets="attention"), ["classifier", "bert.pooler.dense"]
    adapter.attach(model, "bert", head)
    native = NativeAdapter.of(adapter, with_factors=False, backbone="tiny", revision=None, head=head)
    unwrap(model, adapter.layer_names)
    native.tensors["backbone_sketch"] = backbone_sketch(dict(model.named_parameters()), head)
    state = {f"head/{name}": weight for name, weight in model.state_dict().items() if name.startswith(tuple(head))}
    NativeAdapter(native.description, native.tensors | state).write(tmp_path)
    started(tmp_path, LoRA(rank=2, lora_alpha=2, targets="attention"), tuple(head))
    with pytest.raises(InputError, match=r"its own bert\.pooler\.dense"):
        started(tmp_path, LoRA(rank=2, lora_alpha=2, targets="attention"))
