"""results.json: written and read by one definition; what lacks something, or isn't JSON, is named."""

import json
from pathlib import Path

import pytest

from common.errors import InputError
from experiments.results import Budget, RankFigures, RunResults
from experiments.sweep.folder import SweepFolder
from experiments.sweep.grid import Trial
from tests.experiments import made_runs

TRIAL = Trial("trial_0", "", (), {})
PUBLISHED = sorted((Path(__file__).parents[2] / "docs" / "results").glob("*.json"))


def whole() -> dict:
    """Everything a fit writes."""
    ranks = {"budget": {"requested": 50.0, "used": 44.0}, "average_rank": 2.5, "equal_area_rank": 2.6}
    norms = {"total": 1.0, "relative": None, "layers": {"query": 1.0}, "relative_layers": {"query": 0.1}}
    made = made_runs.results("run", 0, 0.5)
    made["data"] |= {"truncated_rows": {"train": 1}}
    made["validations"] = [{"epoch": 0, "val/accuracy": 0.5}, {"epoch": 1}]
    made["test"] = {"accuracy": 0.8, "loss": None, "accuracy_by_tag": {"news": 0.5}}
    made["test_last"] = {"accuracy": 0.7, "loss": 0.9}
    made |= {"update_norms": {"initial": None, "final": norms}, "rank_curve": [{"rank": 1, "val/accuracy": 0.4}]}
    made |= {"factors": {"rule": "gradient", "rows": 3456, "seconds": 46.2}, "device": "cpu", "device_name": "x86_64"}
    return made | ranks | {"at_best_epoch": ranks, "processes": 2, "skipped_updates": 3, "collapsed_epochs": [1]}


def test_results_are_written_as_they_are_read(tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(whole()))
    results = RunResults.read(path)
    expected = RankFigures(budget=Budget(requested=50.0, used=44.0), average_rank=2.5, equal_area_rank=2.6)
    assert results.ranks == results.at_best_epoch == expected
    assert (results.test_figures, results.accuracy_by_tag) == ({"accuracy": 0.8}, {"news": 0.5})
    assert results.last_test_figures == {"accuracy": 0.7, "loss": 0.9}
    results.write(path)
    assert json.loads(path.read_text()) == whole()
    assert RunResults.read(path) == results


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.name)
def test_results_of_earlier_versions_are_read(path):
    content = json.loads(path.read_text())
    shared = {name: value for name, value in content.get("about", {}).items() if name != "settings"}
    for trial in content.get("trials", []):
        if trial["results"] is not None:
            told = {**shared, **trial["results"]}
            again = RunResults.from_dict(told, path.name).as_plain()
            assert {name: again.get(name) for name in told} == told


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": ...}, "it has no seed"),
        ({"metric": None}, "it has no metric.name"),
        ({"metric": {"name": "accuracy"}}, "it has no metric.higher_is_better"),
        ({"wall_seconds": "long"}, "it says wall_seconds is 'long'"),
        ({"val_losses": [0.5, "x"]}, "it says val_losses is 'x'"),
        ({"budget": {"requested": 5.0}}, "it has no budget.used"),
    ],
)
def test_the_first_part_that_is_wrong_is_named(changes, said):
    content = {name: value for name, value in {**whole(), **changes}.items() if value is not ...}
    with pytest.raises(InputError, match=said) as caught:
        RunResults.from_dict(content, "runs/a/results.json")
    assert str(caught.value).startswith("runs/a/results.json")


@pytest.mark.parametrize(
    ("name", "content", "missing"),
    [
        ("results.json", {}, "it has no seed"),
        ("failure.json", {}, "it has no error"),
        ("failure.json", {"error": "out of memory"}, "attempts"),
    ],
)
def test_a_trials_file_that_lacks_something_is_named(tmp_path, name, content, missing):
    folder = SweepFolder(tmp_path)
    folder.trial_folder(TRIAL).mkdir()
    path = folder.trial_folder(TRIAL) / name
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=missing) as caught:
        folder.results(TRIAL)
        folder.failure(TRIAL)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("text", ["", '{"seed": 0', "[1]", "\0"])
def test_a_file_that_was_cut_short_is_named_with_the_way_out(tmp_path, text):
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(InputError, match=str(tmp_path / "results.json")):
        RunResults.read(tmp_path / "results.json")
