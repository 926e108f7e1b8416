import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, GPTNeoConfig

from common.errors import InputError
from lightning_modules.backbone_loading import first_answer, load_backbone, load_skeleton
from lightning_modules.backbone_sketch import backbone_identity
from tests.architectures import classifier, save_backbone


def load(folder, **settings):
    return load_backbone(AutoModelForSequenceClassification, str(folder), num_labels=2, **settings)


@pytest.fixture
def edited(tiny_bert, tmp_path):
    """A copy of the tiny BERT whose tensors went through a function."""

    def edit(change) -> Path:
        folder = tmp_path / "edited"
        shutil.copytree(tiny_bert, folder)
        tensors = change(load_file(folder / "model.safetensors"))
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return folder

    return edit


def test_weights_are_those_of_the_folder_in_train_mode_and_the_head_is_the_rest(tiny_bert):
    model, head = load(tiny_bert)
    assert head == ("classifier",)
    assert all(module.training for module in model.modules())
    assert any(isinstance(module, torch.nn.Dropout) and module.p > 0 for module in model.modules())
    for name, tensor in load_file(Path(tiny_bert) / "model.safetensors").items():
        assert torch.equal(model.state_dict()[f"bert.{name}"], tensor)


def test_a_half_precision_folder_loads_in_float32(edited):
    folder = edited(lambda tensors: {name: tensor.bfloat16() for name, tensor in tensors.items()})
    model, _ = load(configured(folder, dtype="bfloat16"))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_a_pooler_that_the_folder_lacks_belongs_to_the_head(edited):
    folder = edited(lambda tensors: {name: tensor for name, tensor in tensors.items() if "pooler" not in name})
    _, head = load(folder)
    assert head == ("classifier", "bert.pooler.dense")


def test_a_pooler_of_another_shape_starts_at_random_and_so_belongs_to_the_head(edited):
    folder = edited(lambda tensors: tensors | {"pooler.dense.weight": torch.zeros(16, 8)})
    model, head = load(folder)
    assert float(model.bert.pooler.dense.weight.abs().sum()) > 0
    assert "bert.pooler.dense" in head


def without(part):
    return lambda tensors: {name: tensor for name, tensor in tensors.items() if part not in name}


def prefixed(prefix):
    return lambda tensors: {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        (prefixed("_orig_mod."), {}, r"bert\.embeddings.*They hold _orig_mod\.embeddings.*wrapper"),
        (prefixed("module."), {}, r"bert\.embeddings.*They hold module\.embeddings"),
        (prefixed("model.bert."), {}, r"bert\.embeddings.*They hold model\.bert\.embeddings"),
        (dict, {"vocab_size": 99}, r"word_embeddings\.weight: its shape is \(37, 16\) there and \(99, 16\) by config"),
        (dict, {"vocab_size": 20}, r"word_embeddings\.weight: its shape is \(37, 16\) there and \(20, 16\) by config"),
        (dict, {"max_position_embeddings": 128}, r"position_embeddings\.weight: its shape is \(64, 16\)"),
        (dict, {"intermediate_size": 64}, r"layer\.0\.intermediate\.dense\.bias: its shape"),
        (dict, {"num_hidden_layers": 3}, r"encoder\.layer\.2\..* \(and 15 more\)"),
        (without("layer.1."), {}, r"encoder\.layer\.1\..* \(and 15 more\)"),
        (without("LayerNorm"), {}, r"LayerNorm\.bias \(and 9 more\)"),
        (without("layer.0.attention.self.query.bias"), {}, r"layer\.0\.attention\.self\.query\.bias \(and 0 more\)"),
        (without("word_embeddings"), {}, r"word_embeddings"),
    ],
)
def test_anything_but_a_head_or_a_pooler_that_would_be_random_is_refused_by_name(edited, change, settings, message):
    folder = configured(edited(change), **settings)
    with pytest.raises(InputError, match=f"no weights that fit for .*{message}"):
        load(folder)


def test_weights_that_the_model_has_no_place_for_are_told_and_those_of_another_head_are_not(edited, capsys):
    harmless = {"cls.predictions.decoder.weight": torch.zeros(37, 16), "embeddings.position_ids": torch.arange(64)}
    folder = edited(lambda tensors: tensors | harmless)
    load(folder)
    assert "no place" not in capsys.readouterr().err
    load(configured(folder, num_hidden_layers=1))
    assert "encoder.layer.1.attention.output.LayerNorm.weight (and 7 more)" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["SCB", "weight_scale_inv", "lora_A.weight"])  # of 8 bits, of float8, of an adapter
def test_what_stands_beside_a_weight_without_a_place_is_told(edited, name, capsys):
    beside = f"encoder.layer.0.output.dense.{name}"
    load(edited(lambda tensors: tensors | {beside: torch.ones(16)}))
    assert f"hold {beside} (and 0 more), which the model of its config.json has no place for" in capsys.readouterr().err


def test_biases_that_config_json_leaves_out_are_told(tmp_path, capsys):
    """As a Qwen2 that is called a Llama has them: transformers answers without them."""
    folder = save_backbone("qwen2", tmp_path)
    load(configured(folder, model_type="llama"))
    assert "hold layers.0.self_attn.k_proj.bias (and 5 more)" in capsys.readouterr().err


def configured(folder, **settings) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    return folder


def shape_of(folder):
    return load_skeleton(AutoModelForSequenceClassification, str(folder))


def test_every_architecture_loads_from_its_own_files_and_not_without_a_part(tmp_path):
    for model_type in ("albert", "deberta", "gemma3", "mixtral", "t5", "xlnet"):
        folder = save_backbone(model_type, tmp_path / model_type)
        model, head = load(folder)
        assert all(model.get_submodule(path) is not model.base_model for path in head)
        skeleton, same_head = shape_of(folder)
        assert same_head == head and all(parameter.is_meta for parameter in skeleton.parameters())
        assert {n: p.shape for n, p in skeleton.named_parameters()} == {n: p.shape for n, p in model.named_parameters()}
        tensors = load_file(folder / "model.safetensors")
        lost = next(name for name in sorted(tensors) if "norm" in name.lower())
        save_file({n: t for n, t in tensors.items() if n != lost}, folder / "model.safetensors", {"format": "pt"})
        load_skeleton.cache_clear()
        for read in (load, shape_of):
            with pytest.raises(InputError, match=rf"no weights that fit for .*{re.escape(lost.split('.', 1)[1])}"):
                read(folder)


@pytest.mark.parametrize("method", ["bitsandbytes", "gptq", "awq", "compressed-tensors", "hqq", "torchao", "fp8"])
def test_a_quantised_backbone_is_refused_in_one_message(edited, method, tmp_path):
    folder = configured(edited(dict), quantization_config={"quant_method": method, "bits": 4})
    composite = save_backbone("gemma3", tmp_path / "gemma3")
    text = json.loads((composite / "config.json").read_text())["text_config"]
    configured(composite, text_config=text | {"quantization_config": {"quant_method": method}})
    for refused in (folder, composite):
        for call in (load, shape_of):
            with pytest.raises(InputError, match=rf"is quantised \({method}, by its config.json\).*--model.backbone"):
                call(refused)


@pytest.mark.parametrize("layers", [0, -1])
def test_a_backbone_without_layers_is_refused(edited, layers):
    folder = configured(edited(dict), num_hidden_layers=layers)
    for call in (load, shape_of):
        with pytest.raises(InputError, match=f"has {layers} layers by its config.json; allowed: 1 or more"):
            call(folder)


def test_an_attention_that_cannot_run_here_is_refused(edited):
    folder = configured(edited(dict), attn_implementation="flash_attention_2")
    with pytest.raises(InputError, match=r"asks for a package.*FlashAttention2.*attn_implementation"):
        load(folder)


def test_weights_that_are_no_numbers_are_refused_by_name(edited):
    damaged = "encoder.layer.1.attention.self.query.weight"
    model, _ = load(edited(lambda tensors: tensors | {damaged: tensors[damaged] / 0}))
    with pytest.raises(InputError, match=rf"no number; .* aren't finite: bert.{damaged}. Its files are damaged"):
        first_answer(model, input_ids=torch.tensor([[5, 6, 7]]))


def test_an_adapter_is_no_backbone(edited):
    folder = edited(dict)
    for name in ("adapter_config.json", "native.safetensors"):
        (folder / name).write_text("{}")
        for place in ("config.json", "no longer there"):
            with pytest.raises(InputError, match=rf"holds an adapter.*--model.init_from {folder}"):
                load(folder)
            (folder / place).unlink(missing_ok=True)
        (folder / name).unlink()


@pytest.mark.parametrize("model_type", ["distilbert", "roberta", "gpt2"])
def test_heads_of_other_architectures(model_type, tmp_path):
    model, _ = classifier(model_type)
    model.base_model.save_pretrained(tmp_path)
    expected = {"distilbert": ("pre_classifier", "classifier"), "roberta": ("classifier",), "gpt2": ("score",)}
    assert load(tmp_path)[1] == expected[model_type]


@pytest.mark.parametrize("labels", [2, 5])
def test_a_trained_head_is_loaded_where_it_fits_and_is_still_the_head(tmp_path, labels):
    model, _ = classifier("bert")
    model.save_pretrained(tmp_path)
    loaded, head = load_backbone(AutoModelForSequenceClassification, str(tmp_path), num_labels=labels)
    assert head == ("classifier",)
    assert loaded.classifier.weight.shape == (labels, 8)
    assert torch.equal(loaded.classifier.weight, model.classifier.weight) == (labels == 2)


def test_what_cannot_be_loaded_is_refused(edited, tiny_bert, tmp_path):
    damaged, empty = edited(dict), tmp_path / "without_weights"
    path = damaged / "model.safetensors"
    path.write_bytes(path.read_bytes()[:500])
    empty.mkdir()
    (empty / "config.json").write_bytes((Path(tiny_bert) / "config.json").read_bytes())
    for folder, message in (
        (tmp_path / "nowhere", r"nowhere', a folder without a config.json"),
        (empty, r"can't be loaded: .*Allowed: a hub name"),
        (damaged, "can't be loaded"),
        ("rankwise-tests/no-such-model", "'rankwise-tests/no-such-model' can't be loaded"),  # offline, not in the cache
    ):
        with pytest.raises(InputError, match=message):
            load(folder)


@pytest.mark.parametrize("wrong", [{"hidden_size": "x"}, {"hidden_size": 0}, {"vocab_size": 0}, {"pad_token_id": 999}])
def test_a_configuration_that_makes_no_model_is_refused(tiny_bert, tmp_path, wrong):
    shutil.copytree(tiny_bert, tmp_path / "bert")
    path = tmp_path / "bert" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **wrong}))
    with pytest.raises(InputError, match="can't be loaded"):
        load(tmp_path / "bert")


def test_each_layers_kind_of_attention_is_part_of_how_a_backbone_computes():
    def computed(*kinds):
        config = GPTNeoConfig(num_layers=2, attention_types=[[list(kinds), 1]])
        model = SimpleNamespace(config=config, named_parameters=dict)
        return backbone_identity(model, (), frozen=False)["configuration"]

    assert computed("global", "local") == computed("global", "local") != computed("local", "global")
