"""Kills runs at random moments, resumes them, and compares every bit.

    python -m tests.soak.kills --kills 20

Each run is killed one to three times and then left alone; weights, optimizer, metrics.csv, results.json (times aside),
ranks.json and TensorBoard's scalars must be those of a run that nothing disturbed. Tiny model, CPU, no hub. The exit
code is 1 if anything differs.
"""

import argparse
import importlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import cli
from common.files import write_json
from common.terminal import quiet_libraries
from tests.command_line import differences, outcome, write_config
from tests.soak.kill_moments import CRASH, HOOKS, SIGNALS, WRITING, kill_while_writing
from tests.tiny import save_cola, save_tiny_bert

_NOISY = ["--model.adapter.tau", "0.3", "--model.adapter.allocation", "bounded"]
_BUDGET = ["--budget_schedule.memory_start=100", "--budget_schedule.memory_end=300"]
_MOVING = ["--budget_schedule.epochs_memory_start=1", "--budget_schedule.epochs_memory_start_to_end=1"]
VARIANTS = {
    "softmax": [],
    "noise": _NOISY,
    "accumulation": ["--trainer.accumulate_grad_batches", "2"],
    "budget": [*_BUDGET, *_MOVING],
    "everything": [*_NOISY, *_BUDGET, *_MOVING, "--trainer.accumulate_grad_batches", "2"],
    "max_steps": ["--trainer.max_steps", "12"],
}  # all with dropout, three epochs of five steps, the last with discrete ranks
INTERVALS: tuple[list[str], ...] = (["--checkpoint_every_n_minutes=0"], ["--checkpoint_every_n_steps=2"], [])


@dataclass(frozen=True)
class Kill:
    """One way to end a run: a hook, a random time (`timer`), or a moment of writing a file."""

    where: str
    how: str
    number: float  # the step, the share of the training time, or which of the files written

    @classmethod
    def drawn(cls, draw: random.Random) -> "Kill":
        kind = draw.choice(("hook", "hook", "timer", "timer", "writing"))
        if kind == "writing":
            return cls(draw.choice(WRITING), "SIGKILL", draw.randint(1, 12))
        if kind == "timer":
            return cls("timer", draw.choice(sorted(SIGNALS)), draw.random())
        return cls(draw.choice(tuple(HOOKS)), draw.choice((*sorted(SIGNALS), CRASH)), draw.randint(0, 14))


class Bench:
    """The folder with a tiny model, its data and the runs, and what undisturbed runs came to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = write_config(folder, str(save_tiny_bert(folder / "bert")), str(save_cola(folder / "cola")))
        self._expected: dict[str, Any] = {}
        self.seconds = 1.0  # from the beginning of training to the end of the run

    def run(self, name: str, variant: str, *options: str, kill: Kill | None = None) -> int:
        """Runs `fit` in a process of its own; returns its exit code, or minus the signal that ended it."""
        announced = self.folder / f"{name}.begun"
        announced.unlink(missing_ok=True)
        callbacks = [{"class_path": "tests.soak.kill_moments.Announce", "init_args": {"path": str(announced)}}]
        if kill is not None and kill.where in HOOKS:
            arguments = {"hook": kill.where, "step": int(kill.number), "how": kill.how}
            callbacks.append({"class_path": "tests.soak.kill_moments.KillAt", "init_args": arguments})
        command = ["fit", "--config", str(self.config), "--runs_dir", str(self.folder / "runs"), "--run_name", name]
        process = os.fork()
        if process == 0:
            if kill is not None and kill.where in WRITING:
                kill_while_writing(kill.where, int(kill.number))
            self._child([*command, *VARIANTS[variant], *options, f"--trainer.callbacks={json.dumps(callbacks)}"])
        if kill is not None and kill.where == "timer" and _wait_for(announced, process):
            time.sleep(kill.number * self.seconds)
            os.kill(process, SIGNALS[kill.how])
        begun = time.monotonic()
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        if kill is None and announced.exists():
            self.seconds = min(time.monotonic() - begun, time.time() - announced.stat().st_mtime)
        return code

    def _child(self, arguments: list[str]) -> None:
        with (self.folder / "log.txt").open("a") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            print(f"--- {' '.join(arguments)}", flush=True)
            try:
                code = cli.main(arguments)
            except BaseException as error:
                print(f"{type(error).__name__}: {error}", flush=True)
                code = 1
            sys.stdout.flush()
            os._exit(code)

    def outcome(self, name: str) -> dict[str, Any]:
        """All that a run leaves, times aside."""
        folder = self.folder / "runs" / name
        return {**outcome(folder), "tensorboard": tensorboard_scalars(folder)}

    def expected(self, variant: str) -> dict[str, Any]:
        """What an undisturbed run of this variant leaves."""
        if variant not in self._expected:
            code = self.run(variant, variant)
            assert code == 0, f"an undisturbed run ended with {code}: see {self.folder / 'log.txt'}"
            self._expected[variant] = self.outcome(variant)
        return self._expected[variant]

    def disturbed(self, name: str, variant: str, kills: list[Kill], draw: random.Random) -> dict[str, Any]:
        """Kills a run at each of these moments, then lets it end, and says how it differs."""
        expected, codes = self.expected(variant), []
        for kill in kills:
            options = [*draw.choice(INTERVALS), *self._way_on(name)]
            codes.append(self.run(name, variant, *options, kill=kill))
        last = self.run(name, variant, *self._way_on(name))
        different = differences(expected, self.outcome(name)) if last == 0 else [f"exit code {last}"]
        left = [path.name for path in (self.folder / "runs" / name).rglob("*.partial")]
        different += [f"{path} is left behind" for path in left]
        happened = [{**vars(kill), "exit_code": code} for kill, code in zip(kills, codes, strict=True)]
        return {"run": name, "variant": variant, "kills": happened, "different": different}

    def _way_on(self, name: str) -> list[str]:
        """What the refusal of an occupied folder tells the user to type; nothing for the first start."""
        folder = self.folder / "runs" / name
        if not folder.exists():
            return []
        return ["--ckpt_path", "last"] if (folder / "checkpoints" / "last.ckpt").exists() else ["--overwrite"]


def tensorboard_scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) of every scalar as TensorBoard shows it, several event files of a resumed run joined."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def _wait_for(path: Path, process: int) -> bool:
    while not path.exists():
        if os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return False
        time.sleep(0.005)
    return True


def kill_runs(bench: Bench, kills: int, draw: random.Random) -> list[dict[str, Any]]:
    """Kills one run after the other until there were so many kills; prints a line for each."""
    records: list[dict[str, Any]] = []
    while sum(_count(record) for record in records) < kills:
        variant = list(VARIANTS)[len(records) % len(VARIANTS)]
        moments = [Kill.drawn(draw) for _ in range(draw.randint(1, 3))]
        records.append(bench.disturbed(f"run_{len(records)}", variant, moments, draw))
        print(_line(records[-1]), flush=True)
    return records


def _count(record: dict[str, Any]) -> int:
    return sum(kill["exit_code"] != 0 for kill in record["kills"])  # a late one finds the run finished


def _line(record: dict[str, Any]) -> str:
    kills = [f"{kill['where']} {kill['number']:.3g} {kill['how']} ({kill['exit_code']})" for kill in record["kills"]]
    verdict = "identical" if not record["different"] else f"DIFFERS: {'; '.join(record['different'][:4])}"
    return f"{record['run']:8} {record['variant']:13} {', '.join(kills)}: {verdict}"


def main(arguments: list[str] | None = None) -> int:
    """Runs the kills, prints a line for each run, and returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="how many kills at least")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--folder", type=Path, default=None, help="where to run; a temporary folder if not given")
    parser.add_argument("--output", type=Path, default=None, help="JSON file to write")
    settings = parser.parse_args(arguments)
    quiet_libraries()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in ("transformers", "experiments.command_line", "lightning_modules", "datamodules", "lora"):
        importlib.import_module(name)  # once, for all the forked runs
    torch.set_num_threads(1)  # a fork has no other threads
    with tempfile.TemporaryDirectory(prefix="kills") as folder:
        records = kill_runs(Bench(settings.folder or Path(folder)), settings.kills, random.Random(settings.seed))
    failed = sum(bool(record["different"]) for record in records)
    done = sum(_count(record) for record in records)
    print(f"{done} kills in {len(records)} runs; {failed} of them ended otherwise than undisturbed runs")
    if settings.output is not None:
        write_json(settings.output, {"kills": done, "runs": records, "seed": settings.seed})
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
