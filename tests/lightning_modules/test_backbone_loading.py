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


def test_weights_are_those_of_the_folder_in_train_mode_and_the_head_is_the_rest(tiny_bert):
    model, head = load(tiny_bert)
    assert head == ("classifier",)
    assert all(module.training for module in model.modules())
    assert any(isinstance(module, torch.nn.Dropout) and module.p > 0 for module in model.modules())
    for name, tensor in load_file(Path(tiny_bert) / "model.safetensors").items():
        assert torch.equal(model.state_dict()[f"bert.{name}"], tensor)


def test_a_half_precision_folder_loads_in_float32(edited):
    folder = edited(lambda tensors: {name: tensor.bfloat16() for name, tensor in tensors.items()})
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"dtype": "bfloat16"}))
    model, _ = load(folder)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


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
