"""Whole runs in 16 bits on the way that GPUs take, where query, key and value are one product."""

import pytest

import cli
from lora import lora_xs
from lora.joint_layers import JointLayers
from tests.command_line import CrashError, crash_at, differences, outcome, run, write_config
from tests.test_processes import callback, config, run_two_processes  # noqa: F401 (a fixture)

MIXED = ("--trainer.precision", "bf16-mixed")


@pytest.fixture(autouse=True)
def joined(monkeypatch):
    """Joint products that were computed; weights are cast, as on a GPU, instead of packed."""
    computed, compute = [], JointLayers._compute
    monkeypatch.setattr("lora.products.frozen_products.can_pack", lambda dtype: False)
    monkeypatch.setattr(JointLayers, "_compute", lambda self, *given: computed.append(self) or compute(self, *given))
    return computed


@pytest.mark.slow
def test_a_run_ends_the_same_when_it_was_killed_and_when_blocks_are_computed_again(
    tiny_bert, cola_folder, tmp_path, joined, monkeypatch
):
    """To the bit, with dropout, into the epoch of discrete ranks; and as layers alone up to rounding."""
    made = write_config(tmp_path, tiny_bert, cola_folder)
    assert run("fit", made, tmp_path / "whole", *MIXED) == 0
    assert len(joined) == 15 * 2  # steps and layers; an evaluation computes alone
    whole = outcome(tmp_path / "whole" / "tiny")
    with pytest.raises(CrashError):
        run("fit", made, tmp_path / "parts", *MIXED, *crash_at(12))
    assert run("fit", made, tmp_path / "parts", *MIXED, "--ckpt_path", "last") == 0
    assert differences(whole, outcome(tmp_path / "parts" / "tiny")) == []
    assert run("fit", made, tmp_path / "again", *MIXED, "--model.gradient_checkpointing", "true") == 0
    assert differences(whole, outcome(tmp_path / "again" / "tiny")) == []
    assert cli.main(["export", str(tmp_path / "whole" / "tiny"), "--format", "merged"]) == 0  # compares the logits
    monkeypatch.setattr(lora_xs, "join_layers", lambda model: [])
    count = len(joined)
    assert run("fit", made, tmp_path / "alone", *MIXED) == 0 and len(joined) == count
    alone = outcome(tmp_path / "alone" / "tiny")
    for name in ("train_losses", "val_losses"):
        assert alone["results"][name] == pytest.approx(whole["results"][name], abs=1e-3)


@pytest.mark.long
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_come_to_what_one_does(config, tmp_path, strategy):  # noqa: F811
    assert run("fit", config, tmp_path / "one", *MIXED) == 0
    run_two_processes(config, tmp_path / "two", *MIXED, callback("CastWeights"), strategy=strategy)
    one, two = (outcome(tmp_path / name / "tiny") for name in ("one", "two"))
    assert two["ranks"]["layers"] == one["ranks"]["layers"]
    for name in ("train_losses", "val_losses"):
        assert two["results"][name] == pytest.approx(one["results"][name], abs=1e-4)
