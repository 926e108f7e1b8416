"""Each architecture with each adapter: trained, killed, resumed, exported, loaded by other libraries alone."""

import csv
import json
import math
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

import cli
from tests import tiny
from tests.architectures import CAUSAL, TINY_CONFIGS, save_backbone
from tests.command_line import CrashError, crash_at, differences, outcome, run, write_config, write_language_config

RANKS = {"rank_min": 1, "rank_max": 4, "rank_average": 2}
ADAPTERS = {
    "lora": {"class_path": "lora.LoRA", "init_args": {"rank": 2, "lora_alpha": 4.0}},
    "lora_xs": {"class_path": "lora.LoRAXS", "init_args": {"rank": 4, "targets": "all-linear"}},
    "adaptive_lora_xs": {"class_path": "lora.AdaptiveLoRAXS", "init_args": {**RANKS, "targets": "all-linear"}},
}
# CamemBERT counts its positions from a padding token that isn't this tokenizer's.
QUICK = (("camembert", "adaptive_lora_xs"), ("gemma3-causal", "lora_xs"))

# Without linear layers of torch (tests/lora/test_injection.py), without an attention mask (test_padding.py).
REFUSED = ("ibert", "fnet")
CELLS = [
    pytest.param(kind, adapter, marks=[] if (kind, adapter) in QUICK else pytest.mark.matrix, id=f"{kind}-{adapter}")
    for kind in TINY_CONFIGS
    if kind not in REFUSED
    for adapter in ADAPTERS
]
SENTENCES = ("a cat sees a dog", "the small bird sleeps and the old dog hears it not", "not")


@pytest.mark.filterwarnings("ignore::UserWarning")  # what libraries say about architectures of their own
@pytest.mark.parametrize(("model_type", "adapter"), CELLS)
def test_it_trains_resumes_and_leaves_as_itself(model_type, adapter, tmp_path):
    backbone = save_backbone(model_type, tmp_path / "backbone")
    causal = model_type in CAUSAL
    data = tiny.save_wikitext(tmp_path / "data", train=6, dev=2) if causal else tiny.save_cola(tmp_path / "data", 16, 8)
    config = (write_language_config if causal else write_config)(tmp_path, str(backbone), str(data), ADAPTERS[adapter])
    config.write_text(config.read_text().replace("max_epochs: 3", "max_epochs: 2"))
    assert run("fit", config, tmp_path, "--run_name", "undisturbed") == 0
    with pytest.raises(CrashError):
        run("fit", config, tmp_path, *crash_at(1))
    assert run("fit", config, tmp_path, "--ckpt_path", "last") == 0
    assert differences(outcome(tmp_path / "undisturbed"), outcome(tmp_path / "tiny")) == []

    (tmp_path / "lines.txt").write_text("\n".join(SENTENCES) + "\n")
    asked = ["--data.predict_file", str(tmp_path / "lines.txt")]
    assert run("predict", config, tmp_path, "--ckpt_path", "best", *asked) == 0
    ours = answers(tmp_path / "tiny" / "predictions.tsv")
    for kind in ("native", "peft", "merged"):
        assert cli.main(["export", str(tmp_path / "tiny"), "--format", kind]) == 0, kind
        folder = tmp_path / "tiny" / "exports" / kind
        assert cli.main(["predict", "--export", str(folder), *asked]) == 0
        assert answers(folder / "predictions.tsv") == pytest.approx(ours, abs=1e-4), kind
    theirs = {kind: alone(kind, tmp_path, backbone, causal) for kind in ("peft", "merged")}
    assert theirs["peft"] == pytest.approx(ours, abs=1e-4)
    assert theirs["merged"] == pytest.approx(ours, abs=1e-4)


def answers(path: Path) -> list[float]:
    """The last column: a probability, or the logarithm of a perplexity."""
    rows = csv.DictReader(path.read_text().splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE)
    return [float(row.get("probability_acceptable") or math.log(float(row["perplexity"]))) for row in rows]


@torch.inference_mode()
def alone(kind: str, folder: Path, backbone: Path, causal: bool) -> list[float]:
    """What transformers (and PEFT) answer for each sentence by itself."""
    exported = folder / "tiny" / "exports" / kind
    auto = AutoModelForCausalLM if causal else AutoModelForSequenceClassification
    settings = {} if causal else {"num_labels": 2}
    model = auto.from_pretrained(exported if kind == "merged" else backbone, dtype=torch.float32, **settings)
    tokenizer = AutoTokenizer.from_pretrained(exported if kind == "merged" else backbone)
    if kind == "peft":
        model = PeftModel.from_pretrained(model, exported)
    model.eval()
    figures = []
    for sentence in SENTENCES:
        inputs = tokenizer(sentence, return_tensors="pt")
        if causal:
            figures.append(float(model(**inputs, labels=inputs["input_ids"]).loss))
        else:
            figures.append(float(model(**inputs).logits.softmax(-1)[0, 1]))
    return figures


def test_a_composite_model_is_told_the_padding_token_where_its_forward_looks(tmp_path, cola_folder):
    folder = save_backbone("gemma3", tmp_path / "backbone")
    path = folder / "config.json"
    content = json.loads(path.read_text())
    content["text_config"]["pad_token_id"] = 7  # another one than the tokenizer's, as decoders often have
    path.write_text(json.dumps(content))
    module, data = tiny.make_module(str(folder)), tiny.make_data(str(folder), cola_folder, batching="random")
    tiny.make_trainer(limit_train_batches=1, limit_val_batches=0).fit(module, datamodule=data)
    module.eval()
    batch = next(batch for batch in data.train_dataloader() if not batch["inputs"]["attention_mask"].all())
    with torch.no_grad():
        together = module(batch["inputs"])
        for row, mask in enumerate(batch["inputs"]["attention_mask"].bool()):
            alone = module({name: cells[row : row + 1, mask] for name, cells in batch["inputs"].items()})
            torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-4, atol=1e-5)
