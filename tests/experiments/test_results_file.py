"""Files of a trial that hold JSON but not what is relied on: named before any trial starts."""

import json

import pytest

from common.errors import InputError
from experiments.results_file import check_results
from experiments.sweep.folder import SweepFolder
from experiments.sweep.grid import Trial
from tests.experiments import made_runs

TRIAL = Trial("trial_0", "", (), {})


@pytest.mark.parametrize(
    ("name", "content", "missing"),
    [
        ("results.json", {}, "it has no status"),
        ("results.json", {"status": "finished"}, "it has no seed"),
        ("results.json", {**made_runs.results("run", 0, 0.5), "metric": None}, "it has no metric.name"),
        ("failure.json", {}, "it has no error"),
        ("failure.json", {"error": "out of memory"}, "attempts"),
        ("failure.json", {"error": "out of memory", "attempts": "two"}, "attempts"),
    ],
)
def test_a_trials_file_that_lacks_something_is_named(tmp_path, name, content, missing):
    folder = SweepFolder(tmp_path)
    folder.trial_folder(TRIAL).mkdir()
    path = folder.trial_folder(TRIAL) / name
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=missing) as caught:
        folder.check_trial(TRIAL.name, {})
    assert str(path) in str(caught.value)


def test_a_runs_results_pass():
    check_results(made_runs.results("run", 0, None), "results.json")
