import json
import os

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks.inputs import BenchmarkSettings
from benchmarks.pairs import PAIRS, SIDES, UNITS, pair_summary, run_side
from common.errors import InputError

DOCUMENTED = {
    *("seed_with_pictures", "seed_without_pictures", "trainer_peft_lora", "trainer_peft_adalora", "fixed_rank"),
    *("frozen_backbone", "matmul_peak", "merged_evaluation", "peak_memory_peft_lora", "peak_memory_full"),
}


def test_the_pairs_that_are_relied_on_are_there_and_name_sides_and_figures(monkeypatch):
    assert set(PAIRS) >= DOCUMENTED
    for pair in PAIRS.values():
        assert {pair.ours, pair.reference} <= set(SIDES)
        assert UNITS[pair.figure] == UNITS[pair.reference_figure or pair.figure]
    better = {name: pair_summary(name, [(1.0, 1.0)])["better"] for name in PAIRS}
    assert better["trainer_peft_lora"] == better["matmul_peak"] == "higher"
    assert better["fixed_rank"] == better["peak_memory_full"] == "lower"


def test_the_ratio_is_the_median_of_the_runs_own_ratios():
    entry = pair_summary("trainer_peft_lora", [(10.0, 5.0), (8.0, 8.0), (30.0, 10.0)])
    assert entry["ratio"] == 2.0  # of 2, 1 and 3; not 10 / 8
    assert (entry["ours"], entry["reference"]) == (10.0, 8.0)
    assert entry["runs"][2] == {"ours": 30.0, "reference": 10.0, "ratio": 3.0}


def test_the_output_holds_every_run_and_where_it_was_measured(tmp_path, monkeypatch, capsys):
    sides = []

    def run(side, settings):
        sides.append(side)
        return [{"samples_per_second": 2.0 + len(sides) if side == "adaptive_softmax" else 1.0}]

    monkeypatch.setattr(command, "run_side", run)
    monkeypatch.setattr(command, "with_possible_steps", lambda settings: settings)
    monkeypatch.setattr(command, "data_name", lambda settings: "made rows")
    output = tmp_path / "benchmark.json"
    asked = ("trainer_peft_lora", "trainer_peft_adalora")
    only = [word for name in asked for word in ("--only", name)]
    assert command.main(["--output", str(output), *only, "--repetitions", "3"]) == 0
    assert sides == ["adaptive_softmax", *asked] * 3  # once for all pairs of a repetition
    content = json.loads(output.read_text())
    assert set(content) == {"pairs", "machine", "versions", "data", "model", "settings", "command"}
    assert {"cpu", "cores", "threads", "memory_gib", "platform"} <= set(content["machine"])
    assert content["versions"]["torch"] == torch.__version__
    pair, _ = content["pairs"]
    assert set(pair) == {"name", "ours", "reference", "unit", "ratio", "better", "what", "runs"}
    assert [run["ratio"] for run in pair["runs"]] == [3.0, 6.0, 9.0]
    assert pair["ratio"] == 6.0
    assert "trainer_peft_adalora" in capsys.readouterr().out.splitlines()[-3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "fixed_rnk"], "fixed_rank"),
        (["--repetitions", "0"], "repetitions"),
        (["--warm_up_steps", "0"], "warm_up_steps"),
        (["--steps", "-1"], "-1"),
        (["gpu", "--minutes", "-1"], "minutes"),
        (["launches", "--outptu", "x"], "outptu"),
    ],
)
def test_a_wrong_argument_is_one_message(arguments, message, capsys):
    assert command.main(arguments) == 2
    said = capsys.readouterr().err
    assert message in said and len(said.splitlines()) <= 3


@pytest.mark.long
def test_every_side_runs_alone_with_the_threads_asked_for_and_its_errors_arrive(tmp_path):
    before = dict(os.environ)
    output = tmp_path / "benchmark.json"
    few = ["--device", "cpu", "--batch_size", "4", "--steps", "2", "--warm_up_steps", "1", "--repetitions", "1"]
    few += ["--threads", "2", "--output", str(output)]  # the tests have one
    assert command.main(["--only", "frozen_backbone", *few]) == 0
    (pair,) = json.loads(output.read_text())["pairs"]
    assert pair["ours"] > 0 and pair["reference"] > 0
    with pytest.raises(InputError, match="--data_dir"):
        run_side("lora", BenchmarkSettings(data="wikitext", device="cpu"))
    assert dict(os.environ) == before
