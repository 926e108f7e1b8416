"""Data-parallel processes under a watch that says why a run ends; Lightning's own launcher kills without a word."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from inspect import signature
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins.environments import ClusterEnvironment
from lightning.pytorch.strategies import DDPStrategy
from torch.nn.parallel import DistributedDataParallel

from common.cores import usable_cores
from common.errors import IncompleteRunError
from experiments.process_watch import COURTESY_SECONDS, GO_ON, ProcessWatch

_LAUNCHER = "RANKWISE_LAUNCHER"  # process id of the process that started this one


class WatchedLauncher:
    """Starts the other processes of this machine, as Lightning's launcher does, and watches them.

    Under torchrun or SLURM nothing is started; what a process loses there is one message as well.

    Args:
        environment: tells the place of this process among the others.
        processes: how many this machine has.
        nodes: number of machines.

    Attributes:
        children: the processes that were started, ranks 1, 2 … of this machine.
    """

    is_interactive_compatible = False  # Lightning asks: a notebook has no command line to start again

    def __init__(self, environment: ClusterEnvironment, processes: int, nodes: int) -> None:
        self.environment, self.processes, self.nodes = environment, processes, nodes
        self.children: list[subprocess.Popen] = []
        self._watch: ProcessWatch | None = None

    def launch(self, function: Callable, *args: Any, trainer: Trainer, **kwargs: Any) -> Any:
        """Starts the other processes and does this one's part.

        Raises:
            IncompleteRunError: the connection to another process was lost.
        """
        self.environment.validate_settings(num_devices=self.processes, num_nodes=self.nodes)
        launcher = _launcher_of_this_process()  # before the children's setting is made
        if not self.environment.creates_processes_externally and not self.children:
            self._start_children()
        if "OMP_NUM_THREADS" not in os.environ:
            threads = max(usable_cores() // self.processes, 1)
            torch.set_num_threads(threads)
            os.environ["OMP_NUM_THREADS"] = str(threads)
        self._start_watch(trainer, launcher)
        try:
            return function(*args, **kwargs)
        except RuntimeError as error:
            if not _is_about_another_process(error):
                raise
            time.sleep(COURTESY_SECONDS)  # the watch sees a lost process within this time
            raise IncompleteRunError(
                f"process {trainer.global_rank} lost the connection to another one, which ended or hangs; its own "
                f"message should stand above. {GO_ON}"
            ) from error

    def kill(self, number: int) -> None:
        """Passes a signal on, as Lightning asks for when it gets one."""
        for child in self.children:
            child.send_signal(number)

    def _start_children(self) -> None:
        os.environ["MASTER_ADDR"] = self.environment.main_address
        os.environ["MASTER_PORT"] = str(self.environment.main_port)
        os.environ["NODE_RANK"] = str(self.environment.node_rank())
        os.environ["LOCAL_RANK"] = str(self.environment.local_rank())
        os.environ["WORLD_SIZE"] = str(self.processes * self.nodes)
        for rank in range(1, self.processes):
            own = {"LOCAL_RANK": str(rank), _LAUNCHER: str(os.getpid())}
            self.children.append(subprocess.Popen(_this_command(), env={**os.environ, **own}))

    def _start_watch(self, trainer: Trainer, launcher: int | None) -> None:
        if self._watch is not None or threading.current_thread() is not threading.main_thread():
            return
        self._watch = ProcessWatch(trainer, self.children, launcher)
        self._watch.start()


class WatchedDDP(DDPStrategy):
    """Lightning's data-parallel strategy, started by `WatchedLauncher`."""

    _watched: WatchedLauncher | None = None

    @property
    def launcher(self) -> Any:
        """What starts the processes; there is none before Lightning knows the devices."""
        if self._watched is None and self.cluster_environment is not None:
            self._watched = WatchedLauncher(self.cluster_environment, self.num_processes, self.num_nodes)
        return self._watched


def ddp_settings(looks: bool = False) -> dict[str, Any]:
    """Arguments for DistributedDataParallel: buffers are frozen factors, the same everywhere, or sums that belong to
    one process, so they are never sent. With `looks` it looks in each step for parameters that were left out."""
    known = signature(DistributedDataParallel).parameters
    name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"  # its older name
    return {name: False, "find_unused_parameters": True} if looks else {name: False}


def watched(asked: Any) -> Any:
    """The setting trainer.strategy with `WatchedDDP` for data-parallel processes; others stay as they are.

    Args:
        asked: a name or a class_path that `check_strategy` has let through.
    """
    own = f"{WatchedDDP.__module__}.{WatchedDDP.__qualname__}"
    if asked == "fsdp":
        return {"class_path": "experiments.sharded_backbone.ShardedBackbone"}
    if isinstance(asked, str):
        if not asked.startswith("ddp"):
            return asked
        unused = {} if asked == "ddp" else {"find_unused_parameters": asked.endswith("_true")}
        return {"class_path": own, "init_args": {}, "dict_kwargs": {**ddp_settings(), **unused}}
    if not asked["class_path"].endswith(".DDPStrategy"):
        return asked
    settings = {**ddp_settings(), **(asked.get("dict_kwargs") or {})}
    return {"class_path": own, "init_args": asked.get("init_args") or {}, "dict_kwargs": settings}


def _this_command() -> list[str]:
    """The command line of this process."""
    main = sys.modules["__main__"]
    if main.__spec__ is None:
        return [sys.executable, os.path.abspath(sys.argv[0]), *sys.argv[1:]]
    return [sys.executable, "-m", main.__spec__.name, *sys.argv[1:]]


def _launcher_of_this_process() -> int | None:
    """Who must be alive as long as this process: the process that `WatchedLauncher` ran in, or torchrun's agent."""
    if (launcher := os.environ.get(_LAUNCHER)) is not None:
        return int(launcher)
    return os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else None


def _is_about_another_process(error: RuntimeError) -> bool:
    if isinstance(error, torch.distributed.DistError):
        return True
    words = ("gloo", "Connection closed by peer", "Connection reset by peer", "NCCL")
    return any(word in str(error) for word in words)
