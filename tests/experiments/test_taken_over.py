"""A class named in a sweep takes over arguments of the base config's class: which, is said before the first trial."""

import pytest
import yaml

from experiments.sweep.grid import Trial
from experiments.sweep.taken_over import taken_over
from tests.command_line import write_config
from tests.experiments.sweeps import sweep, write_sweep

BASE = {
    "class_path": "lora.AdaptiveLoRA",
    "init_args": {"allocation": "bounded", "targets": "all-linear", "rank_max": 64, "tau": 0.0},
}


def lines(tmp_path, setting, made):
    base = tmp_path / "base.yaml"
    base.write_text(yaml.safe_dump({"model": {"class_path": "made.Module", "init_args": {"adapter": BASE}}}))
    trial = Trial("made", "", (str(base),), {}, {"model.adapter": setting})
    return list(taken_over(trial, {"model": {"class_path": "made.Module", "init_args": {"adapter": made}}}))


def test_what_another_class_left_is_said_but_not_its_defaults_nor_what_is_named(tmp_path):
    setting = {"class_path": "lora.AdaptiveLoRAXS", "init_args": {"rank_max": 10}}
    made = {
        "class_path": "lora.AdaptiveLoRAXS",
        "init_args": {"allocation": "bounded", "targets": "all-linear", "rank_max": 10, "tau": 0.0},
    }
    (line,) = lines(tmp_path, setting, made)
    assert "takes over allocation: bounded, targets: all-linear from the base config's lora.AdaptiveLoRA" in line


@pytest.mark.parametrize(
    ("setting", "made"),
    [
        ({"class_path": "lora.AdaptiveLoRA", "init_args": {"rank_max": 10}}, BASE),  # the same class, changed
        ({"init_args": {"rank_max": 10}}, BASE),
        (None, None),
        (
            {"class_path": "lora.LoRAXS", "init_args": {"rank": 4, "targets": "default"}},  # all is named
            {"class_path": "lora.LoRAXS", "init_args": {"rank": 4, "targets": "default"}},
        ),
    ],
)
def test_nothing_is_said_where_nothing_is_taken_over(tmp_path, setting, made):
    assert lines(tmp_path, setting, made) == []


def test_a_sweep_says_it_once_before_its_trials(tmp_path, tiny_bert, cola_folder, capsys):
    config = write_config(tmp_path, tiny_bert, cola_folder)
    content = yaml.safe_load(config.read_text())
    content["model"]["init_args"]["adapter"]["init_args"]["lora_alpha"] = 7.0
    config.write_text(yaml.safe_dump(content))
    settings = {"model.adapter": {"class_path": "lora.LoRAXS", "init_args": {"rank": 4}}}
    assert sweep(write_sweep(tmp_path, config, settings=settings), tmp_path / "runs", "--dry_run") == 0
    told = capsys.readouterr()
    assert (told.out + told.err).count("takes over lora_alpha: 7.0 from the base config's lora.AdaptiveLoRAXS") == 1
