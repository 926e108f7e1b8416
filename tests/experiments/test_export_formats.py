"""Native, PEFT and merged files say what the adapted model says, whatever the ranks; and how large they are."""

import json
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, pipeline

from common.errors import InputError, VerificationError
from experiments.export import _compare
from experiments.export_formats import FORMATS, ExportOptions, logits
from lightning_modules import PEFTAdapter
from lightning_modules.adapter_import import native_low_rank_factors, peft_low_rank_factors
from lightning_modules.backbone_sketch import SKETCH_FILE_NAME
from lightning_modules.native_adapter import FILE_NAME, NativeAdapter
from lora import AdaptiveLoRAXS
from tests import tiny
from tests.architectures import classifier
from tests.lora.test_low_rank_export import TOKENS, adapted

BATCHES = [{"inputs": TOKENS}]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Any:
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny.save_tokenizer(folder)
    return AutoTokenizer.from_pretrained(folder)


def run_of(model_type: str, ranks: list[int], tokenizer: Any) -> Any:
    """What an export needs of a run."""
    plain, model, adapter = adapted(model_type, ranks)
    outside = {name: part for name, part in plain.named_children() if name != plain.base_model_prefix}
    head = tuple(name for name, part in outside.items() if list(part.parameters()))
    with torch.no_grad():  # a head that was trained
        for path in head:
            for weight in model.get_submodule(path).parameters():
                weight += 0.1
    module = SimpleNamespace(
        model=model,
        adapter=adapter,
        head_modules=head,
        backbone_name="somebody/tiny",
        data_about={"classes": ["no", "yes"]},
        revision=None,
        load_model=lambda: classifier(model_type),
    )
    return SimpleNamespace(module=module, data=SimpleNamespace(class_names=("no", "yes"), tokenizer=tokenizer))


@pytest.mark.parametrize("problem", ["multi_label_classification", "regression", None])
def test_a_pipeline_answers_what_the_run_answers_whatever_the_backbone_was_trained_for(problem, tokenizer, tmp_path):
    run = run_of("bert", [2] * 8, tokenizer)
    run.module.model.config.problem_type = problem
    text = "the cat sees a dog"
    expected = run.module.model(**tokenizer(text, return_tensors="pt")).logits.softmax(-1)[0].tolist()
    FORMATS["merged"](run, ExportOptions()).write(tmp_path)
    (answers,) = pipeline("text-classification", model=str(tmp_path), top_k=None)([text])
    scores = {answer["label"]: answer["score"] for answer in answers}
    assert [scores["no"], scores["yes"]] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("model_type", "dtype"),
    [("bert", torch.float16), ("gemma3", torch.bfloat16), ("modernbert", torch.bfloat16), ("t5", torch.float16)],
)  # rotary positions in two
def test_a_rounded_model_is_the_one_in_memory(model_type, dtype, tokenizer, tmp_path):
    model, head = classifier(model_type)
    data = SimpleNamespace(class_names=("no", "yes"), tokenizer=tokenizer)
    module = SimpleNamespace(model=model, adapter=None, head_modules=head)
    batches = [{"inputs": {"input_ids": torch.tensor([[2, 5, 7, 9, 11, 3], [2, 8, 6, 30, 12, 3]])}}]
    before = logits(model, batches)[0]
    export = FORMATS["merged"](SimpleNamespace(module=module, data=data), ExportOptions(dtype=dtype))
    export.write(tmp_path)
    in_memory, written = logits(export.model, batches)[0], export.logits(tmp_path, batches)[0]
    torch.testing.assert_close(written, in_memory, rtol=1e-5, atol=1e-5)
    assert (in_memory - before).abs().max() > 1e-5
    assert {tensor.dtype for tensor in load_file(tmp_path / "model.safetensors").values()} == {dtype}
    assert export.logits(tmp_path, batches, dtype)[0].isfinite().all()


def test_peft_is_told_each_rank_under_a_path_that_matches_one_module(tokenizer, tmp_path):
    from peft.utils.other import get_pattern_key

    run = run_of("gpt2", [1, 2, 3, 4, 5, 8], tokenizer)
    names = run.module.adapter.layer_names
    FORMATS["peft"](run, ExportOptions()).write(tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    for name, rank in zip(names, [1, 2, 3, 4, 5, 8], strict=True):
        assert config["rank_pattern"][get_pattern_key(config["rank_pattern"], name)] == rank
        # neither a longer path nor one with other characters in the place of the dots
        for other in (f"other.{name}", name.replace(".", "_", 1), name.replace("h.1", "h.11")):
            assert other == name or get_pattern_key(config["rank_pattern"], other) == other
    assert config["rank_pattern"] == config["alpha_pattern"]
    assert set(config["target_modules"]) == set(names)
    assert (config["task_type"], config["fan_in_fan_out"], config["inference_mode"]) == ("SEQ_CLS", True, True)
    assert config["base_model_name_or_path"] == "somebody/tiny"


def test_a_peft_export_is_only_used_with_the_backbone_it_was_trained_on(tokenizer, tmp_path):
    FORMATS["peft"](run_of("bert", [2] * 8, tokenizer), ExportOptions()).write(tmp_path)
    with torch.no_grad():
        same, _ = classifier("bert")
        same.classifier.weight += 1  # not pretrained: it comes with the export
        peft_low_rank_factors(same, tmp_path)
        other, _ = classifier("bert")  # of the same shapes, so that PEFT would say nothing
        other.bert.embeddings.word_embeddings.weight[3, 0] += 0.01
    with pytest.raises(InputError, match=r"trained on another backbone \(somebody/tiny\).*--model.backbone"):
        peft_low_rank_factors(other, tmp_path)
    changed, _ = classifier("bert")
    changed.config.hidden_act = "relu"
    with pytest.raises(InputError, match=r"hidden_act \(in the backbone's config.json\) is 'gelu', here it is 'relu'"):
        peft_low_rank_factors(changed, tmp_path)
    sketch = tmp_path / SKETCH_FILE_NAME
    for damaged in (sketch.read_text()[:-8], "[1]", '{"backbone": "b", "head": [], "sketch": {"a": 1}}', "[" * 10**5):
        sketch.write_text(damaged)
        with pytest.raises(InputError, match=r"backbone_sketch\.json can't be read"):
            peft_low_rank_factors(classifier("bert")[0], tmp_path)
    sketch.unlink()  # as in PEFT's own folders
    peft_low_rank_factors(other, tmp_path)


def test_a_layer_of_rank_0_is_left_out_of_a_peft_adapter(tokenizer, tmp_path):
    run = run_of("bert", [2] * 8, tokenizer)
    absent = run.module.adapter.layer_names[3]
    with torch.no_grad():
        run.module.adapter.R[3].zero_()  # what rank 0 means
    run.module.adapter.refresh()
    expected = logits(run.module.model, BATCHES)[0]
    export = FORMATS["peft"](run, ExportOptions())
    A, B = export.factors[absent]
    export.factors[absent] = (A[:0], B[:, :0])
    export.write(tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert absent not in config["target_modules"] and len(config["target_modules"]) == 7
    torch.testing.assert_close(export.logits(tmp_path, BATCHES)[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # PEFT's, of patterns that fit nothing
def test_layers_that_peft_takes_for_experts_are_refused(tokenizer, tmp_path):
    run = run_of("mistral", [2] * 8, tokenizer)
    run.module.model.config.model_type = "deepseek_v2"  # of this type PEFT's targets are rewritten
    with pytest.raises(InputError, match=r"it takes .*down_proj \(and 1 more\).*for experts.*Use --format merged"):
        FORMATS["peft"](run, ExportOptions()).write(tmp_path)
    model, head = classifier("mistral")
    model.config.model_type = "deepseek_v2"
    with pytest.raises(InputError, match=r"PEFT's LoRA doesn't fit this model .*down_proj \(and 1 more\).*for experts"):
        PEFTAdapter("lora", targets=["v_proj", "down_proj"]).attach(model, "mistral", head)


@pytest.mark.parametrize("with_factors", [False, True])
def test_a_native_file_refuses_another_backbone_and_other_factors(with_factors, tokenizer, tmp_path):
    run = run_of("bert", [1, 2, 3, 4, 5, 6, 7, 8], tokenizer)
    expected = logits(run.module.model, BATCHES)[0]
    export = FORMATS["native"](run, ExportOptions(with_factors=with_factors))
    export.write(tmp_path)
    torch.testing.assert_close(export.logits(tmp_path, BATCHES)[0], expected, rtol=1e-4, atol=1e-5)
    other, head = classifier("bert")
    run.module.load_model = lambda: (other, head)
    other.config.hidden_act = "relu"
    with pytest.raises(InputError, match=r"adapter's hidden_act .* is 'gelu', here it is 'relu'"):
        export.logits(tmp_path, BATCHES)
    with torch.no_grad():  # not even an adapted layer
        other.bert.embeddings.word_embeddings.weight[3] += 0.1
    with pytest.raises(InputError, match="trained on another backbone"):
        export.logits(tmp_path, BATCHES)
    native = NativeAdapter.read(tmp_path)
    with pytest.raises(InputError, match="belongs to other frozen factors"):
        native.check_factors(native.tensors["fingerprint"].flip(0))


def test_damaged_and_later_native_files_are_refused(tokenizer, tmp_path):
    FORMATS["native"](run_of("bert", [2] * 8, tokenizer), ExportOptions()).write(tmp_path)
    native = NativeAdapter.read(tmp_path)
    NativeAdapter(native.description | {"version": 99}, native.tensors).write(tmp_path)
    with pytest.raises(InputError, match="format version 99; allowed: 2"):
        NativeAdapter.read(tmp_path)
    for lacking in ("version", "scale", "head"):
        NativeAdapter({k: v for k, v in native.description.items() if k != lacking}, native.tensors).write(tmp_path)
        with pytest.raises(InputError, match=f"lacks {lacking}|format version None"):
            NativeAdapter.read(tmp_path)
    for lacking in ("backbone_sketch", "fingerprint"):
        NativeAdapter(native.description, {k: v for k, v in native.tensors.items() if k != lacking}).write(tmp_path)
        with pytest.raises(InputError, match=f"lacks {lacking}: it is no whole export"):
            NativeAdapter.read(tmp_path)
    NativeAdapter([1], native.tensors).write(tmp_path)
    with pytest.raises(InputError, match="can't be read"):
        NativeAdapter.read(tmp_path)


def test_a_native_file_is_never_used_in_part(tokenizer, tmp_path):
    """As another version of transformers would name the layers, with weights in the same order."""
    run = run_of("bert", [2] * 8, tokenizer)
    FORMATS["native"](run, ExportOptions(with_factors=True)).write(tmp_path)
    model, _ = classifier("bert")
    for layer in model.bert.encoder.layer:
        layer.attention.self.query_proj = layer.attention.self.query
        del layer.attention.self.query
        layer.attention.self.z_value = layer.attention.self.value  # stays after query
        del layer.attention.self.value
    with pytest.raises(InputError, match=r"changes bert.*query .*3 more layers.* that this model doesn't have"):
        native_low_rank_factors(NativeAdapter.read(tmp_path), model)


def test_a_native_file_of_roberta_large_at_average_rank_20_is_under_200_kilobytes(tmp_path):
    from transformers import RobertaConfig, RobertaForSequenceClassification

    sizes = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
    with torch.device("meta"):  # shapes without weights
        model = RobertaForSequenceClassification(RobertaConfig(**sizes))
    adapter = AdaptiveLoRAXS(rank_min=5, rank_max=25, rank_average=20, initial_std=1.0)
    adapter.attach(
        model,
        "roberta",
        ("classifier",),
        lambda weights, rank, rule: [(torch.randn(rank, w.shape[1]), torch.randn(w.shape[0], rank)) for w in weights],
    )
    adapter.rank_allocation.rule = "bounded"  # uses the whole budget
    ranks = list(adapter.discrete_ranks().values())
    assert len(ranks) == 96 and sum(rank**2 for rank in ranks) > 0.99 * 96 * 400 and len(set(ranks)) > 3
    native = NativeAdapter.of(adapter, with_factors=False, backbone="roberta-large", revision=None, head=["classifier"])
    weights = sum(1 for name, _ in model.named_parameters() if not name.startswith("classifier."))
    native.tensors["backbone_sketch"] = torch.randn(weights)
    native.write(tmp_path)
    size = (tmp_path / FILE_NAME).stat().st_size
    assert 96 * 400 * 4 * 0.99 < size < 200_000


def test_logits_that_are_no_numbers_are_never_called_equal():
    finite, spoiled = torch.zeros(2, 3), torch.tensor([[0.0, torch.nan, 0.0]])
    with pytest.raises(VerificationError, match="at most nan from the run's"):
        _compare([finite, finite[:1]], [finite, spoiled], 1e-5, "the run's")
    with pytest.raises(VerificationError, match="the run's logits of 3 validation rows aren't all finite"):
        _compare([finite, spoiled], [finite, spoiled], 1e-5, "the run's")
