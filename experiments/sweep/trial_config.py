"""A trial as a command line, and as the complete config it parses to: checked before any trial trains."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from callbacks.budget_schedule import BudgetSchedule
from callbacks.lightning_callbacks import check_monitors
from callbacks.results import Results
from callbacks.run_ends import check_epoch
from common.errors import InputError
from common.terminal import logger
from experiments.idle_settings import idle_settings
from experiments.run_folder import RunFolder
from experiments.settings import Objects, Settings, parse
from experiments.sweep.definition import by_short_names, read_base
from experiments.sweep.folder import SweepFolder
from experiments.sweep.grid import Trial
from experiments.trainer_parts import fit_trainer
from lightning_modules.accepted_settings import check_precision

_LARGEST_SEED = 2**32 - 1
_ANY_MACHINE = {"accelerator": "cpu", "devices": 1, "num_nodes": 1, "strategy": "auto"}


def trial_arguments(folder: SweepFolder, trial: Trial) -> list[str]:
    """What follows `python cli.py` to run the trial by hand."""
    arguments = ["fit"]
    for config in trial.configs:
        arguments += ["--config", config]
    for name, value in trial.asked.items():
        arguments.append(f"--{name}={value if isinstance(value, str) else json.dumps(value)}")
    return [*arguments, "--run_name", trial.name, "--runs_dir", str(folder.path)]


def check_trials(
    folder: SweepFolder, trials: list[Trial], run_here: bool = True
) -> tuple[dict[str, dict[str, Any]], InputError | None]:
    """The complete config of each trial by its name, and why the first one that doesn't fit its surroundings can't run.

    A trial whose settings are wrong whatever the backbone is refused at once. Parsing takes a few tenths of a second,
    so trials that differ in nothing but their seed are parsed and made once.
    """
    configs: dict[str, dict[str, Any]] = {}
    alike: dict[str, dict[str, Any]] = {}  # configs by what they were asked to be, but for the seed
    known: dict[str, Any] = {}
    notes: dict[str, None] = {}
    without_effect: dict[str, None] = {}
    misfit: InputError | None = None
    for trial in trials:
        asked = trial.asked
        seed = asked.pop("seed_everything", None)
        kind = json.dumps([trial.configs, asked], default=str)
        if kind in alike and type(seed) is int and 0 <= seed <= _LARGEST_SEED:
            configs[trial.name] = {**alike[kind], "run_name": trial.name, "seed_everything": seed}
            continue
        try:
            settings = parse(trial_arguments(folder, trial))
            objects = settings.build()
        except InputError as error:
            raise _refusal(trial, error) from error
        configs[trial.name] = alike[kind] = settings.plain
        notes |= dict.fromkeys(f"{trial.method or 'Trials'}: {line}." for line in taken_over(trial, settings.plain))
        idle = [line for line in idle_settings(settings, objects) if line.partition(" (")[0] in trial.overrides]
        without_effect |= dict.fromkeys(f"{trial.method or 'Trials'}: {line}" for line in idle)
        try:
            _check_fit(settings, objects, known, run_here)
        except InputError as error:
            misfit = misfit or _refusal(trial, error)
    for note in notes:
        logger.warning(f"{note} If it should be otherwise, name it in the sweep.")
    if without_effect:
        logger.warning(f"Settings of the grid change nothing. {', '.join(without_effect)}.")
    return configs, misfit


def taken_over(trial: Trial, config: dict[str, object]) -> Iterator[str]:
    """One line for each setting of the trial that names a class, where the base config's other class still speaks.

    Arguments that both classes have stay as the base config has them (jsonargparse's rule), which is easily missed.
    """
    base, made = read_base(trial.configs), by_short_names(config)
    for name, value in trial.asked.items():
        old, new = base.get(f"{name}.class_path"), made.get(f"{name}.class_path")
        if not isinstance(value, dict) or old is None or new is None or old == new:
            continue
        given = {"class_path", *(value.get("init_args") or {})}
        of_old = {key.removeprefix(f"{name}."): kept for key, kept in base.items() if key.startswith(f"{name}.")}
        kept = [
            f"{key}: {value}"
            for key, value in of_old.items()
            if key.split(".")[0] not in given and made.get(f"{name}.{key}") == value
        ]
        if kept:
            yield f"{name} is {new} and takes over {', '.join(kept)} from the base config's {old}"


def _check_fit(settings: Settings, objects: Objects, known: dict[str, Any], run_here: bool) -> None:
    """Makes the trainer, reads the data, and tries model, adapter and budgets on the backbone's shape."""
    made = objects if run_here else replace(objects, trainer={**objects.trainer, **_ANY_MACHINE})
    folder = RunFolder.of(settings.values.runs_dir, settings.values.run_name)
    trainer = fit_trainer(settings, made, folder, Results(), None, replaced=[])
    objects.module.trainer = objects.data.trainer = trainer
    trainer.datamodule = objects.data  # type: ignore[attr-defined]
    check_precision(objects.module)
    if trainer.max_epochs == -1:
        objects.module.training_steps()  # refuses a run without end
    config = settings.plain
    model = config["model"]["init_args"]

    def batches() -> int:
        objects.data.prepare_data()  # the trials find the tokens in the cache
        check_monitors(trainer.callbacks, objects.module)  # type: ignore[attr-defined]
        return len(objects.data.train_dataloader())

    def check_shape() -> None:
        objects.module.check_shape()
        for callback in objects.callbacks:
            if isinstance(callback, BudgetSchedule):
                callback.check(objects.module.rank_allocation)

    def once(find: Callable[[], Any], *asked: Any) -> Any:
        key = json.dumps([find.__name__, model["backbone"], *asked], sort_keys=True, default=str)
        if key not in known:
            known[key] = find()
        return known[key]

    if run_here:
        same = {**config["trainer"], "max_epochs": None}  # most say something about the length of an epoch
        check_epoch(trainer, objects.module, once(batches, config["data"], trainer.world_size, same))
    others = {**config["model"], "init_args": {**model, "optimizer": None}}
    once(check_shape, others, config["data"], config["budget_schedule"], config["trainer"]["precision"])


def _refusal(trial: Trial, error: InputError) -> InputError:
    return InputError(f"trial {trial.name} can't run, so none was started: {error}")
