"""What a step launches, and that it waits for nothing: whole runs of tiny models, taking the way that GPUs take."""

import json
import sys

import pytest
import torch

from benchmarks import inputs, launches
from benchmarks.__main__ import main
from benchmarks.inputs import BenchmarkSettings
from benchmarks.launches import StepCounter
from tests import tiny

# 1.25 times the bare model's with 24 layers; LoRA's factors change, so that its query, key and value stay apart.
MOST_PER_LAYER = {"ours": 43, "ours_fixed_rank": 43, "ours_lora": 63, "bare": 39}


@pytest.fixture
def settings(tmp_path, cola_folder, monkeypatch):
    monkeypatch.setitem(inputs._SOURCES["cola"][1], "max_length", 32)
    for name, value in {"block_size": 16, "variant": "wikitext-2-raw"}.items():
        monkeypatch.setitem(inputs._SOURCES["wikitext"][1], name, value)

    def made(layers=2, save=tiny.save_tiny_bert, **changes):
        folder = save(tmp_path / f"model_{layers}", hidden=32, layers=layers)
        few = {"batch_size": 8, "steps": 2, "warm_up_steps": 2, "precision": "bf16-mixed", "data_dir": cola_folder}
        return BenchmarkSettings(model=str(folder), **{**few, **changes})

    return made


def test_a_step_in_32_bits_with_all_callbacks_and_the_bar_waits_for_nothing(settings, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    counter = launches.count("ours_lora", settings(precision="32-true"))
    assert not counter.waits
    assert counter.launched["_fused_adamw_"] == 2  # it has seen a whole step


def test_a_step_of_a_language_model_waits_for_nothing(settings, wikitext_folder):
    made = settings(save=tiny.save_tiny_gpt2, data="wikitext", data_dir=wikitext_folder)
    assert not launches.count("ours_lora", made).waits


@pytest.mark.parametrize("read", [float, bool, torch.nonzero, torch.Tensor.tolist, torch.Tensor.cpu])
def test_a_read_is_noticed(read):
    counter = StepCounter()
    with launches.as_on_a_gpu(counter):
        counter.counting = True
        read(torch.ones(1))
    assert counter.waits.total() == 1


@pytest.mark.parametrize("side", MOST_PER_LAYER)
def test_every_layer_more_launches_no_more_than_this_and_our_steps_wait_for_nothing(side, settings, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    one, two = (launches.count(side, settings(layers)) for layers in (1, 2))
    assert 30 < two.launched.total() - one.launched.total() <= MOST_PER_LAYER[side]
    assert side == "bare" or not two.waits


def test_padded_batches_count_where_some_are(settings):
    """The bare model makes a mask for each layer, if a row is padded: sentences of one length have none."""
    counter = launches.count("bare", settings(2, steps=3))
    launched = [step.total() for step, _ in counter.steps]
    assert len(launched) == 3 and counter.launched.total() == max(launched) and min(launched) > 100


@pytest.mark.slow
def test_the_command_writes_what_it_has_counted(tmp_path, settings, monkeypatch):
    monkeypatch.setattr(launches, "SETTINGS", settings(2))
    monkeypatch.setattr(launches, "SIDES", {side: launches.SIDES[side] for side in ("ours", "peft_lora", "bare")})
    assert main(["launches", "--output", str(tmp_path / "launches.json")]) == 0
    content = json.loads((tmp_path / "launches.json").read_text())
    operations = content["operations"]
    assert content["synchronisations_per_step"] == 0 and content["synchronisations"]["peft_lora"] > 0
    assert content["launches"]["bare"] < content["launches"]["ours"] < content["launches"]["peft_lora"]
    assert 0 < content["fewest_launches"]["bare"] <= content["launches"]["bare"] == sum(operations["bare"].values())
