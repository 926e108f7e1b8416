"""Plain and adaptive LoRA, language models and PEFT's own adapters: exports, and runs that start from them."""

import json
import math
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

import cli
from common.errors import InputError
from experiments.export_formats import FORMATS, ExportOptions, logits
from lightning_modules import PEFTAdapter
from lightning_modules.adapter_import import import_adapter
from lora.injection import freeze
from tests.architectures import classifier
from tests.command_line import run, write_config, write_language_config

BATCHES = [{"inputs": {"input_ids": torch.arange(1, 25).view(2, 12), "attention_mask": torch.ones(2, 12).long()}}]
ADAPTERS: dict[str, dict[str, Any]] = {
    "wrapped_head": {"class_path": "lora.LoRA", "init_args": {"rank": 3, "lora_alpha": 6, "wrap_head": True}},
    "adaptive": {
        "class_path": "lora.AdaptiveLoRA",
        "init_args": {"rank_min": 1, "rank_max": 6, "rank_average": 3, "lora_alpha": 6},
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("adapter", ADAPTERS)
def test_every_format_repeats_the_metric_of_the_run(adapter, tmp_path, tiny_bert, cola_folder, capsys):
    config = write_config(tmp_path, tiny_bert, cola_folder, ADAPTERS[adapter])
    assert run("fit", config, tmp_path, "--trainer.max_epochs", "1") == 0
    results = json.loads((tmp_path / "tiny" / "results.json").read_text())
    for kind in ("native", "peft", "merged"):
        assert cli.main(["export", str(tmp_path / "tiny"), "--format", kind]) == 0  # compares logits itself
        assert cli.main(["validate", "--export", str(tmp_path / "tiny" / "exports" / kind)]) == 0
        assert f"{results['metric']['best']:.4f}" in capsys.readouterr().out, kind


def perplexity(model: Any, folder: str, text: Path) -> float:
    """Of blocks of 16 tokens, without this project's code."""
    tokens = AutoTokenizer.from_pretrained(folder)(text.read_text())["input_ids"]
    losses = []
    for start in range(0, len(tokens), 16):
        block = torch.tensor([tokens[start : start + 16]])
        log_probabilities = model(input_ids=block).logits.detach()[:, :-1].double().log_softmax(-1)
        losses += log_probabilities.gather(-1, block[:, 1:, None]).flatten().tolist()
    return math.exp(-sum(losses) / len(losses))


def test_a_language_model_is_exported_in_every_format(tmp_path, tiny_gpt2, wikitext_folder, capsys):
    from transformers import pipeline

    adapter = {"class_path": "lora.AdaptiveLoRAXS", "init_args": {"rank_min": 2, "rank_max": 6, "rank_average": 4}}
    config = write_language_config(tmp_path, tiny_gpt2, wikitext_folder, adapter)
    assert run("fit", config, tmp_path, "--trainer.max_epochs", "1") == 0
    results = json.loads((tmp_path / "tiny" / "results.json").read_text())
    for kind in ("native", "peft", "merged"):
        assert cli.main(["export", str(tmp_path / "tiny"), "--format", kind]) == 0
        assert cli.main(["validate", "--export", str(tmp_path / "tiny" / "exports" / kind)]) == 0
        shown = re.search(r"val/perplexity\W+([\d.]+)", capsys.readouterr().out)
        assert float(shown[1]) == pytest.approx(results["metric"]["best"], rel=1e-5), kind
    folder, text = tmp_path / "tiny" / "exports", Path(wikitext_folder) / "wiki.test.raw"
    plain = AutoModelForCausalLM.from_pretrained(tiny_gpt2)
    untrained, expected = perplexity(plain, tiny_gpt2, text), results["test"]["perplexity"]
    assert abs(untrained / expected - 1) > 0.01
    for model in (PeftModel.from_pretrained(plain, folder / "peft"), type(plain).from_pretrained(folder / "merged")):
        assert perplexity(model.eval(), tiny_gpt2, text) == pytest.approx(expected, rel=1e-5)
    peft = json.loads((folder / "peft" / "adapter_config.json").read_text())
    assert (peft["task_type"], peft["fan_in_fan_out"]) == ("CAUSAL_LM", True)
    generate = pipeline("text-generation", model=str(tmp_path / "tiny" / "exports" / "merged"))
    assert generate("the cat", max_new_tokens=3, max_length=None)[0]["generated_text"].startswith("the cat")


@pytest.mark.filterwarnings("ignore:The following rank_pattern keys did not match:RuntimeWarning")  # PEFT, of its own
@pytest.mark.parametrize("config", sorted(Path("configs/peft").glob("*.yaml")), ids=lambda path: path.stem)
@pytest.mark.parametrize("model_type", ["bert", "gpt2"])
def test_a_method_of_peft_is_loaded_by_peft_and_transformers_alone(model_type, config, tmp_path, tiny_bert):
    chosen = yaml.safe_load(config.read_text())["model"]["init_args"]["adapter"]["init_args"]
    module = SimpleNamespace(data_about={"classes": ["no", "yes"]}, backbone_name="somebody/tiny", revision=None)
    module.load_model = lambda: classifier(model_type)
    module.model, parts = classifier(model_type)
    module.head_modules = tuple(name for name in parts if name != "dropout")
    module.adapter = PEFTAdapter(chosen["method"], chosen["settings"])
    freeze(module.model, module.head_modules)
    module.adapter.attach(module.model, model_type, module.head_modules)
    noise = torch.Generator().manual_seed(0)
    for parameter in module.model.parameters():  # head included
        if parameter.requires_grad:
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=noise)
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    run = SimpleNamespace(module=module, data=SimpleNamespace(class_names=("no", "yes"), tokenizer=tokenizer))
    expected = logits(module.model, BATCHES)[0]
    assert (expected - logits(classifier(model_type)[0], BATCHES)[0]).abs().max() > 0.01
    for kind in ("peft", "merged"):
        folder = tmp_path / kind
        FORMATS[kind](run, ExportOptions()).write(folder)
        alone, _ = classifier(model_type)
        alone = PeftModel.from_pretrained(alone, folder) if kind == "peft" else type(alone).from_pretrained(folder)
        torch.testing.assert_close(logits(alone, BATCHES)[0], expected, rtol=1e-4, atol=1e-5)
    served = SimpleNamespace(**{**vars(module), "adapter": None, "model": classifier(model_type)[0]})
    served.trainer = SimpleNamespace(state=SimpleNamespace(fn="validate"))
    import_adapter(served, str(tmp_path / "peft"))  # as --export does: into the weights
    torch.testing.assert_close(logits(served.model, BATCHES)[0], expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match=r"and the adapter is PEFT .*; allowed: --format peft or"):
        FORMATS["native"](run, ExportOptions()).write(tmp_path / "native")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The following rank_pattern keys did not match:RuntimeWarning")
@pytest.mark.parametrize(
    "method",
    ["dora", "adalora", *(pytest.param(name, marks=pytest.mark.long) for name in ("pissa", "vera", "tinylora"))],
)
def test_an_exported_method_of_peft_answers_here_as_the_run(method, tmp_path, tiny_bert, cola_folder, capsys):
    settings = {"adalora": {"init_r": 4, "target_r": 2, "tinit": 1, "tfinal": 1}}.get(method, {"r": 2})
    init_args = {"method": method, "settings": settings}
    config = write_config(
        tmp_path, tiny_bert, cola_folder, {"class_path": "lightning_modules.PEFTAdapter", "init_args": init_args}
    )
    assert run("fit", config, tmp_path, "--trainer.max_epochs", "1") == 0
    results = json.loads((tmp_path / "tiny" / "results.json").read_text())
    for kind in ("peft", "merged"):
        folder = tmp_path / "tiny" / "exports" / kind
        assert cli.main(["export", str(tmp_path / "tiny"), "--format", kind]) == 0  # compares logits itself
        assert f"**Adapter**: {results['adapter']}" in (folder / "README.md").read_text()
        assert cli.main(["validate", "--export", str(folder)]) == 0
        shown = re.search(r"val/loss\W+([\d.]+)", capsys.readouterr().out)
        assert float(shown[1]) == pytest.approx(results["validations"][0]["val/loss"], abs=1e-4), kind
    other = [*("--model.init_from", str(folder.parent / "peft")), "--run_name=other", "--trainer.max_epochs=1"]
    lora = ["--model.adapter=lora.LoRA", "--model.adapter.rank=4", "--model.adapter.lora_alpha=4"]
    assert run("fit", config, tmp_path, *other, *lora) == (0 if method == "pissa" else 2)
    assert ("with --model.adapter null also DoRA" in capsys.readouterr().err) == (method != "pissa")
