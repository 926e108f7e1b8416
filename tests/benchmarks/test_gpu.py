"""The self-test's own course, with scripted sides; the whole of it runs on the CPU in a reduced form."""

import json

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import gpu, inputs
from benchmarks.frozen import correctness
from benchmarks.gpu import planned
from benchmarks.inputs import BenchmarkSettings
from benchmarks.pairs import SIDES
from lora.joint_layers import JointLayers

FIGURES = {"samples_per_second": 10.0, "peak_memory_bytes": 2.0**20, "needed": 1.0, "peak": 4.0}


@pytest.fixture
def scripted(monkeypatch, tmp_path):
    """Runs the command with scripted sides; gives exit code, file content and what was asked for."""

    def run(differences, *options, cuda=False):
        asked = []

        def run_side(side, settings, at_once=1):
            asked.append((side, settings.batch_size, at_once))
            if side == "correctness":
                return [differences]
            if side == "trainer_peft_lora":
                raise RuntimeError("out of memory\nand a long story")
            return [FIGURES] * at_once

        monkeypatch.setattr(gpu, "run_side", run_side)
        monkeypatch.setattr(gpu, "with_possible_steps", lambda settings: settings)
        output = tmp_path / "gpu.json"
        code = command.main(["gpu", "--output", str(output), *options])
        return code, json.loads(output.read_text()), asked

    return run


def test_every_row_is_measured_or_says_why_not(scripted, capsys):
    code, content, asked = scripted({"float32": 0.0, "bfloat16": 0.02})
    assert code == 0 and content["correctness"]["passed"] and content["reduced"] is not torch.cuda.is_available()
    assert len(asked) == 1 + len(content["rows"])
    rows = {(row["side"], row["at_once"]): row for row in content["rows"]}
    assert rows["adaptive_softmax", 1]["share_of_peak"] == 0.25
    assert rows["adaptive_softmax", 2]["samples_per_second"] == 20.0  # added up
    assert rows["trainer_peft_lora", 1]["error"] == "out of memory"
    assert {"machine", "versions", "command", "model", "precision"} <= set(content)
    assert "0.25" in capsys.readouterr().out


@pytest.mark.parametrize(
    "differences", [{"float32": 0.01, "bfloat16": 0.02}, {"float32": float("nan"), "bfloat16": 0.02}]
)
def test_other_gradients_than_the_cpus_end_with_exit_code_1(scripted, differences):
    code, content, _ = scripted(differences)
    assert code == 1 and not content["correctness"]["passed"]


def test_nothing_begins_after_the_time(scripted):
    _, content, asked = scripted({"float32": 0.0, "bfloat16": 0.0}, "--minutes", "0")
    assert [side for side, *_ in asked] == ["correctness"]
    assert all("--minutes" in row["error"] for row in content["rows"])


def test_a_gpu_is_measured_in_every_way_and_sides_exist():
    rows = planned(cuda=True)
    assert {side for side, *_ in rows} <= set(SIDES)
    assert {tuple(counts) for _, *counts in rows} == {(32, 1), (512, 1), (32, 2), (32, 4)}


def test_gradients_are_compared_on_the_way_that_a_gpu_trains(monkeypatch, tiny_bert, cola_folder):
    joined, compute = [], JointLayers._compute
    monkeypatch.setattr("lora.products.frozen_products.can_pack", lambda dtype: False)
    monkeypatch.setitem(inputs._SOURCES["cola"][1], "max_length", 32)
    monkeypatch.setattr(JointLayers, "_compute", lambda self, *given: joined.append(self) or compute(self, *given))
    found = correctness(BenchmarkSettings(model=tiny_bert, data_dir=cola_folder, batch_size=8))
    assert len(joined) == 2  # layers, in 16 bits
    assert found["float32"] < 1e-5 and 0 < found["bfloat16"] < 0.1


@pytest.mark.long
def test_the_reduced_form_measures_this_machine(monkeypatch, tmp_path):
    monkeypatch.setattr(gpu, "planned", lambda cuda: [("adaptive_softmax", 4, 2)])
    output = tmp_path / "gpu.json"
    assert command.main(["gpu", "--output", str(output)]) == 0
    content = json.loads(output.read_text())
    assert content["rows"][0]["samples_per_second"] > 0, content["rows"][0]["error"]
    assert 0 < content["correctness"]["bfloat16"] < 0.1 and content["correctness"]["float32"] < 1e-5
