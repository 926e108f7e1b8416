import json
import os

import pytest
import torch
from rich.console import Console

from benchmarks import __main__ as command
from benchmarks import pairs
from benchmarks.pairs import FIGURES, PAIRS, SIDES, Pair, pair_summary, run_side
from benchmarks.settings import BenchmarkSettings
from common.errors import InputError

PAIR = Pair("adaptive_softmax", "full", "samples_per_second")
DOCUMENTED = {
    *("seed_with_pictures", "seed_without_pictures", "trainer_peft_lora", "trainer_peft_adalora", "fixed_rank"),
    *("frozen_backbone", "matmul_peak", "merged_evaluation", "peak_memory_peft_lora", "peak_memory_full"),
}


def test_the_pairs_that_are_relied_on_are_there_and_name_sides_and_figures():
    assert set(PAIRS) >= DOCUMENTED
    for pair in PAIRS.values():
        assert {pair.ours, pair.reference} <= set(SIDES)
        assert FIGURES[pair.figure][0] == FIGURES[pair.reference_figure or pair.figure][0]
    better = {name: pair.description()["better"] for name, pair in PAIRS.items()}
    assert better["trainer_peft_lora"] == better["matmul_peak"] == "higher"
    assert better["fixed_rank"] == better["peak_memory_full"] == "lower"


def test_the_ratio_is_the_median_of_the_runs_own_ratios(monkeypatch):
    monkeypatch.setitem(PAIRS, "made", PAIR)
    entry = pair_summary("made", [(10.0, 5.0), (8.0, 8.0), (30.0, 10.0)])
    assert entry["ratio"] == 2.0  # of 2, 1 and 3; not 10 / 8
    assert (entry["ours"], entry["reference"]) == (10.0, 8.0)
    assert entry["runs"][2] == {"ours": 30.0, "reference": 10.0, "ratio": 3.0}
    console = Console(width=120, record=True)
    console.print(command.table([entry], "a processor"))
    assert "made" in (text := console.export_text()) and "2.000" in text


def test_the_output_holds_every_run_and_where_it_was_measured(tmp_path, monkeypatch):
    def run(side, settings):
        return {"samples_per_second": 2.0 + settings.repetition if side == "adaptive_softmax" else 1.0}

    monkeypatch.setattr(pairs, "run_side", run)
    monkeypatch.setitem(PAIRS, "made", PAIR)
    monkeypatch.setattr(command, "with_possible_steps", lambda settings: settings)
    monkeypatch.setattr(command, "data_name", lambda settings: "made rows")
    output = tmp_path / "benchmark.json"
    assert command.main(["--output", str(output), "--only", "made", "--repetitions", "3"]) == 0
    content = json.loads(output.read_text())
    assert set(content) == {"pairs", "machine", "versions", "data", "model", "settings", "command"}
    assert {"cpu", "cores", "threads", "memory_gib", "platform"} <= set(content["machine"])
    assert content["versions"]["torch"] == torch.__version__
    (pair,) = content["pairs"]
    assert set(pair) == {"name", "ours", "reference", "unit", "ratio", "better", "what", "runs"}
    assert [run["ratio"] for run in pair["runs"]] == [2.0, 3.0, 4.0]
    assert pair["ratio"] == 3.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "fixed_rnk"], "fixed_rank"),
        (["--repetitions", "0"], "repetitions is 0"),
        (["--warm_up_steps", "0"], "warm_up_steps is 0"),
        (["--steps", "-1"], "steps is -1"),
    ],
)
def test_a_wrong_argument_is_one_message(arguments, message, capsys):
    assert command.main(arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.long
def test_every_side_runs_alone_with_the_threads_asked_for_and_its_errors_arrive():
    before = dict(os.environ)
    few = BenchmarkSettings(device="cpu", batch_size=4, steps=2, warm_up_steps=1, threads=2)  # the tests have one
    assert run_side("frozen_backbone", few)["seconds_per_step"] > 0
    with pytest.raises(InputError, match="--data_dir"):
        run_side("lora", BenchmarkSettings(data="wikitext", device="cpu"))
    assert dict(os.environ) == before
