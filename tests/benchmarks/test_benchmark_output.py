import io
import json

import pytest
from rich.console import Console

from benchmarks import __main__ as command
from benchmarks.pair import Pair, summarise
from benchmarks.pairs import PAIRS
from benchmarks.processes import last_json_line
from benchmarks.settings import Settings
from common.errors import InputError

PAIR_KEYS = {"name", "ours", "reference", "unit", "ratio", "better", "what", "runs"}


def test_the_ratio_is_the_median_of_the_runs_own_ratios():
    runs = [(10.0, 5.0), (8.0, 8.0), (30.0, 10.0)]
    entry = summarise("made", Pair(lambda *_: (1, 1), "samples/s", "higher", "nothing"), runs)
    assert entry["ratio"] == 2.0  # of 2, 1 and 3; not 10 / 8
    assert (entry["ours"], entry["reference"]) == (10.0, 8.0)
    assert entry["runs"][2] == {"ours": 30.0, "reference": 10.0, "ratio": 3.0}


def test_the_output_holds_every_run_and_where_it_was_measured(tmp_path, monkeypatch):
    calls = []

    def measure(settings, repetition):
        calls.append(repetition)
        return 2.0 + repetition, 1.0

    monkeypatch.setitem(PAIRS, "made", Pair(measure, "seconds", "lower", "nothing"))
    monkeypatch.setattr(command, "with_possible_steps", lambda settings: settings)
    monkeypatch.setattr(command, "data_name", lambda settings: "made rows")
    output = tmp_path / "benchmark.json"
    assert command.main(["--output", str(output), "--only", "made", "--repetitions", "3"]) == 0
    content = json.loads(output.read_text())
    assert set(content) == {"pairs", "machine", "versions", "data", "model", "settings", "command"}
    assert {"cpu", "cores", "threads", "memory_gib", "platform"} <= set(content["machine"])
    assert content["versions"]["torch"]
    (pair,) = content["pairs"]
    assert set(pair) == PAIR_KEYS
    assert pair["ratio"] == 3.0
    assert len(pair["runs"]) == 3 and calls == [0, 1, 2]


def test_the_table_shows_every_pair():
    entry = summarise("made", Pair(lambda *_: (1, 1), "seconds", "lower", "nothing"), [(1.0, 2.0)])
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(command.table({"pairs": [entry], "machine": {"cpu": "a processor", "threads": 2}}))
    text = console.export_text()
    assert "made" in text and "0.500" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "fixed_rank_bonded"], "fixed_rank_bounded"),
        (["--repetitions", "0"], "repetitions is 0"),
        (["--warm_up_steps", "0"], "warm_up_steps is 0"),
        (["--steps", "-1"], "steps is -1"),
    ],
)
def test_a_wrong_argument_is_one_message(arguments, message):
    with pytest.raises(InputError, match=message):
        command.parse(arguments)


def test_a_side_may_print_before_its_figures():
    assert last_json_line('epoch 0\n{"seconds": 1}\n{\'loss\': 2}\n{"seconds": 3}\n') == {"seconds": 3}
    with pytest.raises(RuntimeError, match="no figures"):
        last_json_line("epoch 0\n")


def test_every_measured_process_gets_the_same_settings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = Settings(data_dir="cola", steps=7, threads=1)
    arguments = settings.arguments()
    assert arguments[arguments.index("--data_dir") + 1] == str(tmp_path / "cola")
    assert arguments[arguments.index("--steps") + 1] == "7"
    assert settings.environment()["OMP_NUM_THREADS"] == "1"
