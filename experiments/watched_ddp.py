"""Data-parallel processes that end together, with a message that says why.

Lightning's own launcher ends them without a word, and loses the exit code of a wrong input. A process that waits in a
collective runs no Python code, so neither an exception nor a signal handler can end it: a thread has to.
"""

import os
import signal
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

from common.errors import IncompleteRunError
from common.machine import usable_cores

_LAUNCHER = "RANKWISE_LAUNCHER"  # process id of the process that started this one
_POLL_SECONDS = 0.25
# A process leaves the word to the first one, or to whoever saw another one go, for this long.
COURTESY_SECONDS = 3.0
GO_ON = "Go on from the newest checkpoint with --ckpt_path last."


class ProcessWatch(threading.Thread):
    """Ends this process, and those it started, when one of them or the launcher is gone.

    `children` are ranks 1, 2 … of this machine; `launcher` is the process id of what this process must not outlive.
    """

    def __init__(self, trainer: Trainer, children: list[subprocess.Popen], launcher: int | None) -> None:
        super().__init__(daemon=True, name="process-watch")
        self.trainer, self.children, self.launcher = trainer, children, launcher

    def run(self) -> None:
        while True:
            time.sleep(_POLL_SECONDS)
            if self.launcher is not None and os.getppid() != self.launcher:
                self._end("the process that started this one is gone.")
            self.report_lost_child()

    def report_lost_child(self) -> None:
        """Ends everything if a child failed; its exit code 2, the input's fault, is passed on."""
        for number, child in enumerate(self.children, start=1):
            code = child.poll()
            if not code or (code == 1 and self.trainer.received_sigterm):  # an agreed stop ends with 1, too
                continue
            self._end(f"process {number} of {len(self.children) + 1} {_ending(code)}.", 2 if code == 2 else 1)

    def _end(self, why: str, code: int = 1) -> None:
        for child in self.children:
            if child.poll() is None:
                child.kill()  # SIGTERM would not reach it in a collective
        others = " All processes of the run end here." if self.children else ""
        advice = f" {GO_ON}" if code != 2 and self.trainer.training else ""
        print(f"error: process {self.trainer.global_rank}: {why}{others}{advice}", file=sys.stderr, flush=True)
        sys.stdout.flush()
        os._exit(code)


def _ending(code: int) -> str:
    if code > 0:
        return f"ended with exit code {code}: its own message stands above"
    name = signal.Signals(-code).name
    memory = "; the system does this when memory runs out" if -code == signal.SIGKILL else ""
    return f"was ended by {name}{memory}"


class WatchedLauncher:
    """Starts the other processes of this machine, as Lightning's launcher does, and watches them.

    Under torchrun or SLURM nothing is started; what a process loses there is one message as well.
    """

    is_interactive_compatible = False  # Lightning asks: a notebook has no command line to start again

    def __init__(self, environment: ClusterEnvironment, processes: int, nodes: int) -> None:
        self.environment, self.processes, self.nodes = environment, processes, nodes
        self.children: list[subprocess.Popen] = []
        self._watch: ProcessWatch | None = None

    def launch(self, function: Callable, *args: Any, trainer: Trainer, **kwargs: Any) -> Any:
        """Starts the others and does this process's part; a lost connection is an `IncompleteRunError`."""
        self.environment.validate_settings(num_devices=self.processes, num_nodes=self.nodes)
        launcher = _launcher_of_this_process()  # before the children's setting is made
        if not self.environment.creates_processes_externally and not self.children:
            self._start_children()
        if "OMP_NUM_THREADS" not in os.environ:
            threads = max(usable_cores() // self.processes, 1)
            torch.set_num_threads(threads)
            os.environ["OMP_NUM_THREADS"] = str(threads)
        if self._watch is None:
            self._watch = ProcessWatch(trainer, self.children, launcher)
            self._watch.start()
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
        os.environ |= {
            "MASTER_ADDR": self.environment.main_address,
            "MASTER_PORT": str(self.environment.main_port),
            "NODE_RANK": str(self.environment.node_rank()),
            "LOCAL_RANK": str(self.environment.local_rank()),
            "WORLD_SIZE": str(self.processes * self.nodes),
        }
        for rank in range(1, self.processes):
            own = {"LOCAL_RANK": str(rank), _LAUNCHER: str(os.getpid())}
            self.children.append(subprocess.Popen(_this_command(), env={**os.environ, **own}))


class WatchedDDP(DDPStrategy):
    """Lightning's data-parallel strategy, started by `WatchedLauncher`."""

    _watched: WatchedLauncher | None = None

    @property
    def launcher(self) -> WatchedLauncher | None:
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
    """The setting trainer.strategy, once checked, with `WatchedDDP` for data-parallel processes; others stay."""
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
