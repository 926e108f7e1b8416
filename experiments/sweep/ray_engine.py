"""Trials on Ray: a cluster's or this machine's GPUs and cores, lost workers made good."""

import importlib.util
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from common.errors import InputError
from common.machine import keep_freed_memory, usable_cores
from experiments.sweep.folder import State, SweepFolder
from experiments.sweep.grid import Trial
from experiments.sweep.progress import Progress
from experiments.sweep.trial_run import describe, run_trial

_ROOT = Path(__file__).resolve().parents[2]
_LOST_WORKERS = 3  # how often a trial is placed again when its worker is lost


@dataclass(frozen=True)
class RayEngine:
    """Places each trial as one Ray task. The sweep's folder must be on a file system that all machines share."""

    # a cluster's address, `auto` for the one this machine belongs to; a local Ray starts if not given
    address: str | None = None
    cpus_per_trial: float = 1.0  # cores a trial takes; also its number of threads
    gpus_per_trial: float | None = None  # GPUs a trial takes, 0.5 puts two on one; if not given, 1 where Ray has any

    @property
    def at_once(self) -> int:
        """Trials that fit on this machine; on a cluster Ray knows better, and this is only what is shown."""
        return max(int(usable_cores() // max(self.cpus_per_trial, 0.01)), 1)

    def __call__(self, folder: SweepFolder, rounds: Iterable[list[Trial]], progress: Progress) -> bool:
        ray = self._connect()
        try:
            resources = self._resources(ray)
            return all(self._run(ray, resources, folder, todo, progress) for todo in rounds)
        except KeyboardInterrupt:
            return False
        finally:
            ray.shutdown()  # ends the tasks that are still running; their checkpoints stay

    def _connect(self) -> Any:
        """Starts or joins Ray; `InputError` if it isn't installed, or no cluster answers."""
        if importlib.util.find_spec("ray") is None:
            raise InputError(
                "engine is ray, but Ray is not installed. Run `pip install -e '.[ray]'` (or `pip install ray`), "
                "or leave --engine out: --jobs N runs several trials at once without it."
            )
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # Ray's default to come; else it warns
        import ray

        path = os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")])
        names = ("RANKWISE_CACHE", "HF_HOME", "HF_HUB_OFFLINE")
        variables = {"PYTHONPATH": path, **{name: os.environ[name] for name in names if name in os.environ}}
        try:
            ray.init(
                address=self.address or "local",
                runtime_env={"env_vars": variables},
                log_to_driver=False,
                include_dashboard=False if self.address is None else None,
                logging_level="ERROR",
            )
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            raise InputError(
                f"no Ray can be reached at {self.address or 'this machine'}: {describe(error)} Start one with `ray "
                "start --head`, correct --ray_address, or leave it out for a Ray of this machine alone."
            ) from error
        return ray

    def _resources(self, ray: Any) -> dict[str, float]:
        """What a trial takes, if Ray has that in all."""
        there = ray.cluster_resources()
        gpus = min(1.0, there.get("GPU", 0.0)) if self.gpus_per_trial is None else self.gpus_per_trial
        asked = {"cpus": self.cpus_per_trial, "gpus": gpus}
        for name, count in asked.items():
            most = there.get(name[:-1].upper(), 0)
            if count > most:
                raise InputError(f"{name}_per_trial is {count:g}, but Ray has {most:g} in all; allowed: up to that.")
        return {f"num_{name}": count for name, count in asked.items()}

    def _run(
        self, ray: Any, resources: dict[str, float], folder: SweepFolder, todo: list[Trial], progress: Progress
    ) -> bool:
        remote = ray.remote(**resources, max_retries=_LOST_WORKERS, max_calls=0)(carry_out)
        threads = max(int(self.cpus_per_trial), 1)
        tasks = {remote.remote(str(folder.path.resolve()), trial, os.getcwd(), threads): trial for trial in todo}
        stopped = False
        waiting = list(todo)  # in the order Ray places them, unless a worker is lost
        for _ in range(min(progress.at_once, len(todo))):
            progress.started(waiting.pop(0))
        while tasks:
            (task,), _ = ray.wait(list(tasks), num_returns=1)
            trial = tasks.pop(task)
            if trial in waiting:
                waiting.remove(trial)
            outcome = _outcome(ray, task, folder, trial)
            progress.ended(trial, outcome)
            stopped |= outcome is State.STOPPED
            if waiting:
                progress.started(waiting.pop(0))
        return not stopped


def carry_out(folder: str, trial: Trial, working_directory: str, threads: int) -> str:
    """A Ray task: one trial in a worker process, from where its last checkpoint stands."""
    os.chdir(working_directory)  # relative paths in configs mean what they mean to the sweep
    keep_freed_memory()
    torch.set_num_threads(threads)
    return str(run_trial(SweepFolder(Path(folder)), trial))


def _outcome(ray: Any, task: Any, folder: SweepFolder, trial: Trial) -> State:
    try:
        return State(ray.get(task))
    except ray.exceptions.RayError as error:
        folder.record_failure(trial, describe(error))
        return State.FAILED
