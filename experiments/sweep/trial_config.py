"""A trial as a command line, and as the complete config it parses to: checked before any trial trains."""

import json
import shlex
from typing import Any

from jsonargparse import ArgumentError, Namespace

from common.errors import InputError
from common.terminal import warn
from experiments.error_causes import input_error_behind
from experiments.parser_messages import readable
from experiments.project_arguments import ProjectArguments
from experiments.sweep.folder import SweepFolder
from experiments.sweep.grid import Trial
from experiments.sweep.taken_over import taken_over
from experiments.sweep.trial_settings import Parsed, TrialSettings


def trial_arguments(folder: SweepFolder, trial: Trial) -> list[str]:
    """What follows `python cli.py` to run the trial by hand."""
    arguments = ["fit"]
    for config in trial.configs:
        arguments += ["--config", config]
    for name, value in {**trial.settings, **trial.overrides}.items():
        arguments.append(f"--{name}={value if isinstance(value, str) else json.dumps(value)}")
    return [*arguments, "--run_name", trial.name, "--runs_dir", str(folder.path)]


def trial_command(folder: SweepFolder, trial: Trial) -> str:
    """The trial as a line for a shell."""
    return f"python cli.py {shlex.join(trial_arguments(folder, trial))}"


class TrialParser(ProjectArguments):
    """The parser of `fit` alone: reads trials' settings, makes their objects, and trains nothing."""

    def __init__(self, arguments: list[str]) -> None:
        self._fitting: set[str] = set()  # what was tried already
        super().__init__(arguments, "trial")

    def _set_seed(self) -> None:
        """No run, no seed."""

    def instantiate_classes(self) -> None:
        """`check` does it, for one trial after the other."""

    def _run_subcommand(self, subcommand: str) -> None:
        """Nothing is run."""

    def parsed(self, arguments: list[str]) -> Parsed:
        """The complete settings of a trial; nothing is made of them yet.

        Raises:
            InputError: an unknown setting or a wrong type.
        """
        self.parse_arguments(self.parser, arguments)
        return Parsed(self.settings, self.plain_config())

    def check(self, parsed: Parsed) -> None:
        """Makes the trial's objects.

        Raises:
            InputError: a value out of range, or one that a constructor refuses.
        """
        self.config = Namespace(subcommand="fit", fit=parsed.settings)
        self.check_settings()
        try:
            self.config_init = self.parser.instantiate_classes(self.config)
        except Exception as error:
            if (cause := input_error_behind(error)) is not None:
                raise cause from error
            if isinstance(error, ArgumentError):
                raise InputError(readable(str(error))) from error
            raise
        self.model = self._get(self.config_init, "model")
        self.refuse_settings_without_effect()

    def check_fit(self, config: dict[str, Any]) -> None:
        """Tries adapter and budgets of the last `check` on the backbone's shape; equal ones are tried once.

        Raises:
            InputError: they don't fit.
        """
        model = config["model"]["init_args"]
        asked = [config["model"]["class_path"], model["backbone"], model.get("revision"), model.get("adapter")]
        key = json.dumps([*asked, config["budget_schedule"]], sort_keys=True, default=str)
        if key in self._fitting:
            return
        self.model.check_adapter()
        self._get(self.config_init, "budget_schedule").check(self.model.rank_allocation)
        self._fitting.add(key)


def check_trials(folder: SweepFolder, trials: list[Trial]) -> tuple[list[dict[str, Any]], InputError | None]:
    """The complete config of each trial, and what keeps the first that doesn't fit its backbone from running.

    Raises:
        InputError: names the first trial whose settings are wrong whatever the backbone.
    """
    parser: TrialParser | None = None

    def parse(trial: Trial) -> Parsed:
        nonlocal parser
        arguments = trial_arguments(folder, trial)
        parser = parser or TrialParser(arguments)
        return parser.parsed(arguments)

    settings = TrialSettings(parse)
    configs: list[dict[str, Any]] = []
    notes: dict[str, None] = {}
    misfit: InputError | None = None
    for trial in trials:
        try:
            parsed = settings.of(trial)
            assert parser is not None
            parser.check(parsed)
        except InputError as error:
            raise _refusal(trial, error) from error
        configs.append(parsed.plain)
        notes |= dict.fromkeys(f"{trial.method or 'Trials'}: {line}." for line in taken_over(trial, parsed.plain))
        try:
            parser.check_fit(parsed.plain)
        except InputError as error:
            misfit = misfit or _refusal(trial, error)
    for note in notes:
        warn(f"{note} Name it in the sweep, too, if it should be otherwise.")
    return configs, misfit


def _refusal(trial: Trial, error: InputError) -> InputError:
    return InputError(f"trial {trial.name} can't run, so none was started: {error}")
