from dataclasses import replace

import pytest
import torch

from benchmarks import inputs, seed_loop
from benchmarks.inputs import (
    _SOURCES,
    ARCHITECTURES,
    BenchmarkSettings,
    data_name,
    made_model,
    pretrained_model,
    training_rows,
    with_possible_steps,
)
from benchmarks.pairs import PAIRS, SIDES
from common.errors import InputError
from lora.injection import choose_layers
from tests import tiny

SHAPES = {"distilbert": (6, 768), "distilgpt2": (6, 768), "roberta-base": (12, 768), "roberta-large": (24, 1024)}
SHAPES |= {"roberta-large-narrow": (24, 64)}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architectures_have_their_shape_and_known_layers(name):
    from transformers import AutoModel

    config = ARCHITECTURES[name](pad_token_id=7)
    assert (config.num_hidden_layers, config.hidden_size) == SHAPES[name]
    assert config.pad_token_id == 7
    with torch.device("meta"):
        model = AutoModel.from_config(config)
    assert len(choose_layers(model, config.model_type, "default")) == SHAPES[name][0] * (3 if "gpt" in name else 4)


def test_a_model_is_made_without_a_hub_and_removed_again(monkeypatch, tiny_bert):
    monkeypatch.setattr(inputs, "MODEL", tiny_bert)
    with made_model(BenchmarkSettings(model="roberta-large-narrow")) as settings:
        rows, tokenizer = training_rows(settings)
        assert tokenizer.pad_token_id is not None and tokenizer.model_input_names == ["input_ids", "attention_mask"]
        assert rows.token_type_ids is None and rows.lengths.double().mean() > 4
        first = rows.input_ids[: int(rows.offsets[1])].tolist()
        assert (first[0], first[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id)
        assert "quickstart corpus" in data_name(settings)
    with pytest.raises(InputError):
        training_rows(settings)
    with made_model(BenchmarkSettings()) as settings:
        assert settings == BenchmarkSettings()


@pytest.mark.parametrize(("data", "labels"), [("ag_news", 4), ("wikitext", None)])
def test_sides_train_on_other_data(tmp_path, monkeypatch, request, data, labels):
    if data == "ag_news":
        folder, model = str(tiny.save_ag_news(tmp_path / "ag_news", train=60)), request.getfixturevalue("tiny_bert")
        source = ("AGNewsDataModule", {"max_length": 16, "validation_rows": 12})
    else:
        folder, model = (request.getfixturevalue(name) for name in ("wikitext_folder", "tiny_gpt2"))
        source = ("WikiTextDataModule", {"variant": "wikitext-2-raw", "block_size": 16})
    monkeypatch.setitem(_SOURCES, data, source)
    settings = BenchmarkSettings(folder, data, model, device="cpu", batch_size=4, steps=2, warm_up_steps=1, threads=1)
    plain = pretrained_model(settings)
    assert labels is None or plain.config.num_labels == labels
    seen: list[list[list[int]]] = []

    def look(module, inputs):
        if isinstance(module, torch.nn.Embedding) and module.num_embeddings == plain.config.vocab_size:
            seen[-1].append(inputs[0].tolist())

    with torch.nn.modules.module.register_module_forward_pre_hook(look):
        for side in ("lora", "trainer_peft_lora", "frozen_backbone"):
            seen.append([])
            figures = SIDES[side](settings)
            assert figures["samples_per_second"] * figures["seconds_per_step"] == pytest.approx(4)
    assert len(seen[1]) == 3 and all(len(tokens) == 4 for tokens in seen[1])
    assert seen[0][-3:] == seen[1] == seen[2]  # padding included; a language model is first tried on a few tokens
    with pytest.raises(InputError, match="--data_dir"):
        training_rows(BenchmarkSettings(data=data))


def test_steps_are_as_many_as_one_epoch_has_whole_batches_for(cola_folder, tiny_bert, monkeypatch):
    monkeypatch.setitem(_SOURCES["cola"][1], "max_length", 32)
    settings = BenchmarkSettings(cola_folder, model=tiny_bert, batch_size=8, warm_up_steps=2)
    whole = len(training_rows(settings)[0]) // 8
    assert with_possible_steps(settings).steps == whole - 2
    assert with_possible_steps(replace(settings, steps=0)).steps == whole - 2
    assert with_possible_steps(replace(settings, steps=1)).steps == 1
    with pytest.raises(InputError, match="warm-up"):
        with_possible_steps(replace(settings, warm_up_steps=whole))


@pytest.mark.long
def test_every_side_measures_the_figures_that_pairs_ask_of_it(tmp_path, monkeypatch, cola_folder):
    monkeypatch.setitem(_SOURCES, "cola", ("GLUEDataModule", {"task": "cola", "max_length": 32}))
    monkeypatch.setattr(seed_loop, "MAX_LENGTH", 32)
    model = str(tiny.save_tiny_bert(tmp_path / "bert", hidden=32, layers=1))
    settings = BenchmarkSettings(
        cola_folder, model=model, device="cpu", batch_size=4, steps=2, warm_up_steps=1, threads=1
    )
    asked = {(pair.ours, pair.figure) for pair in PAIRS.values()}
    asked |= {(pair.reference, pair.reference_figure or pair.figure) for pair in PAIRS.values()}
    # those of the GPU's self-test have tests of their own
    for name in {side for side, _ in asked}:
        figures = SIDES[name](settings)
        assert {figure for side, figure in asked if side == name} <= set(figures), name
        assert all(value > 0 for value in figures.values()), name
