"""Ends one of two processes in many ways at random moments and says what became of the other one.

    python -m tests.soak.process_deaths --times 3

Prints one line per way: how often, exit codes of the first process, the longest time until both were gone, whether a
message said why. Processes that are left after two and a half minutes count as a hang.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from tests.command_line import write_config
from tests.tiny import save_cola, save_tiny_bert

PROJECT = Path(__file__).parents[2]
HANG_SECONDS = 150
FIRST, SECOND = 0, 1


def send(process: int, number: int) -> Callable[[list[int]], None]:
    return lambda ids: os.kill(ids[process], number)


def interrupt_both(ids: list[int]) -> None:
    for process in ids:  # what a terminal does on Ctrl-C
        os.kill(process, signal.SIGINT)


# what happens, and whether training is under way or still being prepared
WAYS: dict[str, tuple[Callable[[list[int]], None], bool]] = {
    "SIGKILL to the second, training": (send(SECOND, signal.SIGKILL), True),
    "SIGKILL to the second, starting": (send(SECOND, signal.SIGKILL), False),
    "SIGKILL to the first, training": (send(FIRST, signal.SIGKILL), True),
    "SIGKILL to the first, starting": (send(FIRST, signal.SIGKILL), False),
    "SIGTERM to the first, training": (send(FIRST, signal.SIGTERM), True),
    "SIGTERM to the first, starting": (send(FIRST, signal.SIGTERM), False),
    "SIGTERM to the second, training": (send(SECOND, signal.SIGTERM), True),
    "Ctrl-C, training": (interrupt_both, True),
}


def is_alive(process: int) -> bool:
    status = Path(f"/proc/{process}/stat")
    try:
        return status.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def child_of(process: int) -> int | None:
    found = subprocess.run(["pgrep", "-P", str(process)], capture_output=True, text=True).stdout.split()
    return int(found[0]) if found else None


def wait_for(condition: Callable[[], object], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)


def one_death(config: Path, runs_dir: Path, way: str) -> tuple[int | str, float, bool, bool]:
    """Exit code of the first, seconds until both were gone, whether words were left, whether last.ckpt is readable."""
    act, training = WAYS[way]
    command = [sys.executable, "cli.py", "fit", "--config", str(config), "--runs_dir", str(runs_dir)]
    settings = ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.max_epochs", "100"]
    shutil.rmtree(runs_dir / "tiny", ignore_errors=True)
    log = runs_dir / "log.txt"
    with log.open("w") as output:
        first = subprocess.Popen([*command, *settings], cwd=PROJECT, stdout=output, stderr=output)
    wait_for(lambda: child_of(first.pid) or first.poll() is not None, 120)
    ids = [first.pid, child_of(first.pid) or first.pid]
    if training:
        wait_for((runs_dir / "tiny" / "metrics.csv").exists, 120)
    time.sleep(random.uniform(0, 4))
    if first.poll() is not None:
        raise RuntimeError(f"the run ended by itself:\n{log.read_text()}")
    started = time.monotonic()
    act(ids)
    wait_for(lambda: first.poll() is not None and not is_alive(ids[1]), HANG_SECONDS)
    seconds, hangs = time.monotonic() - started, any(map(is_alive, ids))
    for process in filter(is_alive, ids):
        os.kill(process, signal.SIGKILL)
    code = first.wait()
    words = log.read_text()
    return "hang" if hangs else code, seconds, "error:" in words or "Stopped" in words, _whole(runs_dir)


def _whole(runs_dir: Path) -> bool:
    path = runs_dir / "tiny" / "checkpoints" / "last.ckpt"
    return path.exists() and "state_dict" in torch.load(path, weights_only=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=3, help="How often each way is tried.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of the random moments.")
    parser.add_argument("--only", default="", help="Ways whose name holds this.")
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        backbone = save_tiny_bert(Path(folder) / "bert")
        config = write_config(Path(folder), str(backbone), str(save_cola(Path(folder) / "cola")))
        print("what | times | exit codes | longest | words | last.ckpt", flush=True)
        for way in (way for way in WAYS if arguments.only in way):
            made = [one_death(config, Path(folder), way) for _ in range(arguments.times)]
            codes = sorted({str(code) for code, *_ in made})
            longest = max(seconds for _, seconds, *_ in made)
            words, whole = sum(one[2] for one in made), sum(one[3] for one in made)
            print(f"{way} | {len(made)} | {', '.join(codes)} | {longest:.1f} s | {words} | {whole}", flush=True)


if __name__ == "__main__":
    main()
