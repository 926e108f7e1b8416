"""The code in an export's README.md, run as it is printed, by transformers and peft alone."""

import os
import re
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from experiments.export_formats import FORMATS, ExportOptions
from experiments.model_card import _loading, model_card
from lightning_modules import TextClassificationModule
from lightning_modules.quantization import BackboneStorage
from lora import LoRA
from tests import tiny
from tests.architectures import save_backbone

TEXTS = ["the cat sees a dog", "the dog", "a bird"]
LABELS = ("World", "Sports", "Sci/Tech")
SAVE = {
    "bert": tiny.save_tiny_bert,
    "gpt2": tiny.save_tiny_gpt2,
    "llama": tiny.save_tiny_llama,
    "camembert": partial(save_backbone, "camembert"),  # its positions count from another padding token
}


def run_of(backbone: str, model_type: str, labels: tuple[str, ...]) -> Any:
    """What an export needs of a run: a classifier (or, without labels, a regression) with random updates."""
    tokenizer = AutoTokenizer.from_pretrained(backbone)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    task = SimpleNamespace(num_labels=len(labels) or 1)
    data = SimpleNamespace(class_names=labels, tokenizer=tokenizer, task=task)
    module = TextClassificationModule(backbone)
    module._trainer = SimpleNamespace(datamodule=data)
    torch.manual_seed(2)
    model, head = module.load_model()
    adapter = LoRA(3, lora_alpha=6.0, initialization="both_gaussian")
    adapter.attach(model, model_type, head)
    adapter.refresh()
    parts = {"model": model.eval(), "adapter": adapter, "head_modules": head, "backbone_name": backbone}
    known = {"classes": list(labels)}
    parts["storage"] = BackboneStorage()
    about = SimpleNamespace(**parts, revision=None, load_model=module.load_model, data_about=known)
    return SimpleNamespace(module=about, data=data)


def run_snippet(text: str, folder: Path) -> dict[str, Any]:
    """The names that the printed code defines, run inside the export's folder."""
    code = re.search(r"```python\n(.*)```", text, re.DOTALL)
    assert code is not None
    before, names = Path.cwd(), {}
    os.chdir(folder)
    try:
        exec(code[1], names)
    finally:
        os.chdir(before)
    return names


def test_names_and_labels_are_text(tmp_path):
    run = run_of(str(SAVE["bert"](tmp_path / "<b>backbone")), "bert", ("<i>a", "*b*"))
    run.data.name, run.folder, run.epoch, run.config = "<u>data", Path("<s>run`x`"), 1, {}
    run.results, run.checkpoint, run.metrics = None, Path("best.ckpt"), dict
    run.module.rank_allocation = None
    told = model_card(run, "merged", {"layer": 3}, "exactly.").split("```")[0].split("---", 2)[2]
    assert not re.search(r"<\w", told)
    for part in (r"# &lt;s>run\`x\`: &lt;u>data with", r"labels: 0 = &lt;i>a, 1 = \*b\*"):
        assert part in told


@pytest.mark.parametrize(("model_type", "labels"), [*((name, LABELS) for name in SAVE), ("gpt2", ())])
@pytest.mark.parametrize("kind", ["peft", "merged"])
def test_the_printed_code_answers_what_the_run_answers(tmp_path, kind, model_type, labels):
    backbone = str(SAVE[model_type](tmp_path / "backbone"))
    run = run_of(backbone, model_type, labels)
    inputs = run.data.tokenizer(TEXTS, padding=True, return_tensors="pt")  # rows of unequal length
    with torch.no_grad():
        expected = run.module.model(**inputs).logits
    FORMATS[kind](run, ExportOptions()).write(tmp_path / "export")
    names = run_snippet(_loading(run, kind, backbone, None), tmp_path / "export")
    if kind == "merged":
        answers = names["answer"](TEXTS, batch_size=3, top_k=None)
        scores = expected.softmax(dim=1) if labels else expected
        for row, answer in zip(scores.tolist(), answers, strict=True):
            named = {entry["label"]: entry["score"] for entry in answer}
            assert set(named) == set(labels or ["LABEL_0"])
            ours = [named[name] for name in labels or ["LABEL_0"]]
            assert ours == pytest.approx(row, abs=1e-4)
        return
    config = names["model"].config
    assert config.id2label == dict(enumerate(labels or ["LABEL_0"])) and config.num_labels == (len(labels) or 1)
    assert (config.problem_type == "regression") == (not labels)
    with torch.no_grad():
        torch.testing.assert_close(names["model"](**inputs).logits, expected, rtol=1e-4, atol=1e-4)


def test_a_hub_name_is_printed_with_its_revision_and_a_gguf_file_as_transformers_wants_it(tmp_path):
    model = type("LlamaForCausalLM", (), {})()
    run = SimpleNamespace(module=SimpleNamespace(model=model), data=None)
    assert "from_pretrained('some/model', revision='v2', dtype='float32')" in _loading(run, "peft", "some/model", "v2")
    pytest.importorskip("gguf")
    pytest.importorskip("accelerate")
    printed = _loading(run, "peft", "/models/small.gguf", None)
    assert "import AutoModelForCausalLM, GgufConfig" in printed
    assert "from_pretrained('/models', gguf_file='small.gguf', dtype='float32', quantization_config=Gguf" in printed
