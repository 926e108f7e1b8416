"""Settings put together from earlier trials are those that parsing each trial gives."""

from pathlib import Path

import pytest
import yaml

from common.errors import InputError
from experiments.sweep.definition import make_trials
from experiments.sweep.folder import SweepFolder
from experiments.sweep.trial_config import TrialParser, trial_arguments
from experiments.sweep.trial_settings import TrialSettings
from tests.command_line import write_config

LORA = {"class_path": "lora.LoRA", "init_args": {"rank": 4}}


@pytest.fixture(scope="module")
def base(tmp_path_factory, tiny_bert, cola_folder):
    """A config for trials."""
    return str(write_config(tmp_path_factory.mktemp("base"), tiny_bert, cola_folder))


def parse_with(parser, folder, asked):
    """What `TrialSettings` calls; notes which trials it asked for."""

    def parse(trial):
        asked.append(trial)
        return parser.parsed(trial_arguments(folder, trial))

    return parse


@pytest.mark.parametrize(
    ("grid", "parses"),
    [
        ({"seed_everything": [0, 1, 2], "model.optimizer.learning_rate": [0.001, 1, 1e-5]}, 5),
        ({"seed_everything": [0, 1, 2], "model.optimizer.schedule": ["constant", "linear_with_warmup"]}, 6),
        ({"trainer.max_epochs": [1, 2], "model.adapter": [LORA, None, {**LORA, "init_args": {"rank": 2}}]}, 6),
        ({"trainer.deterministic": [True, False], "trainer.limit_val_batches": [2, 1.0, 0.5]}, 4),
        ({"model.optimizer.learning_rate": [0.1, 0.2], "model.init_args.optimizer.learning_rate": [1, 2]}, 3),
    ],
)
def test_trials_get_the_settings_that_parsing_them_gives(base, tmp_path, grid, parses):
    trials = make_trials({"config": base, "grid": grid})
    folder = SweepFolder(Path(tmp_path))
    parser, asked = TrialParser(trial_arguments(folder, trials[0])), []
    settings = TrialSettings(parse_with(parser, folder, asked))
    for trial in trials:
        ours, theirs = settings.of(trial), parser.parsed(trial_arguments(folder, trial))
        assert yaml.safe_dump(ours.plain) == yaml.safe_dump(theirs.plain)
        assert repr(ours.settings) == repr(theirs.settings)
    assert len(asked) == parses


def test_a_number_that_is_refused_is_refused_for_its_own_trial(base, tmp_path):
    first, second, third = make_trials({"config": base, "grid": {"trainer.max_epochs": [1, 2, 2.5]}})
    folder = SweepFolder(Path(tmp_path))
    asked: list = []
    settings = TrialSettings(parse_with(TrialParser(trial_arguments(folder, first)), folder, asked))
    assert settings.of(first).plain["trainer"]["max_epochs"] == 1
    assert settings.of(second).plain["trainer"]["max_epochs"] == 2
    with pytest.raises(InputError, match=r"max_epochs.*2\.5"):
        settings.of(third)
    assert asked[-1] is third
