"""Plain and adaptive LoRA, language models and PEFT's own adapters: exports, and runs that start from them."""

import json
import re
from typing import Any

import pytest

import cli
from tests.command_line import run, write_config, write_language_config

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
    peft = json.loads((tmp_path / "tiny" / "exports" / "peft" / "adapter_config.json").read_text())
    assert (peft["task_type"], peft["fan_in_fan_out"]) == ("CAUSAL_LM", True)
    generate = pipeline("text-generation", model=str(tmp_path / "tiny" / "exports" / "merged"))
    assert generate("the cat", max_new_tokens=3, max_length=None)[0]["generated_text"].startswith("the cat")


def test_a_method_of_peft_is_refused_with_a_reason(tmp_path, tiny_bert, cola_folder, capsys):
    adapter = {"class_path": "lightning_modules.PEFTAdapter", "init_args": {"method": "dora", "settings": {"r": 2}}}
    config = write_config(tmp_path, tiny_bert, cola_folder, adapter)
    assert run("fit", config, tmp_path, "--trainer.max_epochs", "1") == 0
    assert cli.main(["export", str(tmp_path / "tiny"), "--format", "merged"]) == 2
    assert "isn't kept as plain LoRA factors" in capsys.readouterr().err
    assert not list((tmp_path / "tiny" / "exports").iterdir())
