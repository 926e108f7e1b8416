import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

from common.errors import InputError
from lightning_modules.backbone_loading import load_backbone
from tests.architectures import classifier


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


def test_every_module_is_in_train_mode(tiny_bert):
    model, _ = load(tiny_bert)
    assert all(module.training for module in model.modules())
    assert any(isinstance(module, torch.nn.Dropout) and module.p > 0 for module in model.modules())


def test_weights_are_those_of_the_folder(tiny_bert):
    model, _ = load(tiny_bert)
    for name, tensor in load_file(Path(tiny_bert) / "model.safetensors").items():
        assert torch.equal(model.state_dict()[f"bert.{name}"], tensor)


def test_a_half_precision_folder_loads_in_float32(edited):
    folder = edited(lambda tensors: {name: tensor.bfloat16() for name, tensor in tensors.items()})
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"dtype": "bfloat16"}))
    model, _ = load(folder)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_the_head_is_what_stands_outside_the_backbone(tiny_bert):
    _, head = load(tiny_bert)
    assert head == ("classifier",)


def test_a_pooler_that_the_folder_lacks_belongs_to_the_head(edited):
    folder = edited(lambda tensors: {name: tensor for name, tensor in tensors.items() if "pooler" not in name})
    _, head = load(folder)
    assert head == ("classifier", "bert.pooler.dense")


def test_a_layer_of_another_shape_starts_at_random_and_so_belongs_to_the_head(edited):
    folder = edited(lambda tensors: tensors | {"pooler.dense.weight": torch.zeros(16, 8)})
    model, head = load(folder)
    assert float(model.bert.pooler.dense.weight.abs().sum()) > 0
    assert "bert.pooler.dense" in head


@pytest.mark.parametrize("model_type", ["distilbert", "roberta", "gpt2"])
def test_heads_of_other_architectures(model_type, tmp_path):
    model, _ = classifier(model_type)
    model.base_model.save_pretrained(tmp_path)
    expected = {"distilbert": ("pre_classifier", "classifier"), "roberta": ("classifier",), "gpt2": ("score",)}
    assert load(tmp_path)[1] == expected[model_type]


def test_a_trained_head_is_loaded_and_still_the_head(tmp_path):
    model, _ = classifier("bert")
    model.save_pretrained(tmp_path)
    loaded, head = load(tmp_path)
    assert head == ("classifier",)
    assert torch.equal(loaded.classifier.weight, model.classifier.weight)


def test_another_number_of_labels_makes_a_fresh_head(tmp_path):
    model, _ = classifier("bert")
    model.save_pretrained(tmp_path)
    loaded, head = load_backbone(AutoModelForSequenceClassification, str(tmp_path), num_labels=5)
    assert loaded.classifier.weight.shape == (5, 8)
    assert head == ("classifier",)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"nowhere', a folder without a config.json"):
        load(tmp_path / "nowhere")


def test_a_folder_without_weights_is_refused(tiny_bert, tmp_path):
    (tmp_path / "config.json").write_bytes((Path(tiny_bert) / "config.json").read_bytes())
    with pytest.raises(InputError, match=r"can't be loaded: .*Allowed: a hub name"):
        load(tmp_path)


def test_a_damaged_weight_file_is_refused(edited):
    folder = edited(dict)
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(InputError, match="can't be loaded"):
        load(folder)


def test_a_hub_name_that_is_not_in_the_cache_is_refused_when_offline():
    with pytest.raises(InputError, match=r"backbone 'rankwise-tests/no-such-model' can't be loaded"):
        load("rankwise-tests/no-such-model")
