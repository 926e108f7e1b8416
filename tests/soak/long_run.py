"""A long run on a tiny model: does memory stay flat, do files and threads stay few, do TensorBoard's files stay small?

    python -m tests.soak.long_run --steps 2000

Every epoch trains, validates, draws its heat maps and writes checkpoints, as in any run. The exit code is 1 when a
figure is beyond its budget.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil
from lightning.pytorch import Callback
from scipy.stats import theilslopes

from common.files import write_json
from tests.command_line import run, write_config
from tests.tiny import save_cola, save_tiny_bert

# 50 KiB per 100 steps are 50 MiB in 100,000 steps; files and threads must not grow at all.
BUDGET = {
    "memory_kib_per_100_steps": 50.0,
    "more_open_files": 0,
    "more_threads": 0,
    "tensorboard_kib_per_step_logged": 2.0,
    "tensorboard_kib_per_epoch_with_pictures": 150.0,
}
STEPS_PER_EPOCH = 50
LEAST_STEPS = 200  # of fewer, warm-up leaves nothing


class Resources(Callback):
    """Notes resident memory, open files and threads every so many steps.

    Args:
        output: JSON file for the notes.
        every_n_steps: how often.
    """

    def __init__(self, output: str, every_n_steps: int = 25) -> None:
        self.output, self.every_n_steps = Path(output), every_n_steps
        self.notes: list[dict[str, int]] = []
        self._process = psutil.Process()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        if trainer.global_step % self.every_n_steps:
            return
        memory, files = self._process.memory_info().rss, self._process.num_fds()
        threads = self._process.num_threads()
        self.notes.append({"step": trainer.global_step, "memory": memory, "files": files, "threads": threads})

    def on_train_end(self, trainer, pl_module) -> None:
        write_json(self.output, self.notes)


def summarise(notes: list[dict[str, int]], event_bytes: int, epochs: int, picture_bytes: int) -> dict[str, float]:
    """The figures that have a budget.

    Args:
        notes: what `Resources` noted, without warm-up.
        event_bytes: TensorBoard's files without pictures.
        epochs: how many epochs drew pictures.
        picture_bytes: what the pictures take.
    """
    # the median slope over all pairs of notes, which no jump can move
    slope = theilslopes([note["memory"] for note in notes], [note["step"] for note in notes]).slope
    return {
        "memory_kib_per_100_steps": 100 * float(slope) / 1024,
        "more_open_files": notes[-1]["files"] - notes[0]["files"],
        "more_threads": notes[-1]["threads"] - notes[0]["threads"],
        "tensorboard_kib_per_step_logged": event_bytes / 1024 / notes[-1]["step"],
        "tensorboard_kib_per_epoch_with_pictures": picture_bytes / 1024 / (epochs + 1),  # and once at the start
    }


def measure(steps: int, folder: Path) -> dict[str, Any]:
    """Trains for so many steps in a folder and says what it took; the first quarter is warm-up."""
    data = save_cola(folder / "cola", train=8 * STEPS_PER_EPOCH, dev=64)
    config = write_config(folder, str(save_tiny_bert(folder / "bert")), str(data))
    epochs = -(-steps // STEPS_PER_EPOCH)
    noting = {"class_path": "tests.soak.long_run.Resources", "init_args": {"output": str(folder / "notes.json")}}
    options = ["--trainer.max_epochs", str(epochs), f"--trainer.callbacks={json.dumps(noting)}"]
    options += ["--rank_logging.pictures_every_n_epochs=1"]
    options += ["--trainer.log_every_n_steps=10", "--rank_logging.every_n_steps=10", "--update_norms.every_n_steps=10"]
    if code := run("fit", config, folder / "runs", *options):
        raise RuntimeError(f"the run ended with exit code {code}")
    notes = json.loads((folder / "notes.json").read_text())
    events = list((folder / "runs" / "tiny").glob("events.out.tfevents.*"))
    pictures = picture_bytes(events)
    steady = notes[len(notes) // 4 :]
    written = sum(path.stat().st_size for path in events) - pictures
    return {
        "steps": notes[-1]["step"],
        "epochs": epochs,
        "figures": summarise(steady, written, epochs, pictures),
        "budget": BUDGET,
        "from_to": [steady[0], steady[-1]],
        "notes": notes,
    }


def picture_bytes(events: list[Path]) -> int:
    """What the pictures take in TensorBoard's files."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    return sum(
        value.ByteSize()
        for path in events
        for event in EventFileLoader(str(path)).Load()
        for value in event.summary.value
        if value.metadata.plugin_data.plugin_name == "images"
    )


def main() -> int:
    """Runs it, prints a table and returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2000, help="optimizer steps (2000)")
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    options = parser.parse_args()
    if options.steps < LEAST_STEPS:
        parser.error(f"--steps is {options.steps}; allowed: {LEAST_STEPS} or more.")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with tempfile.TemporaryDirectory() as folder:
        result = measure(options.steps, Path(folder))
    if options.output:
        write_json(options.output, result)
    print(f"\n{result['steps']:,} steps, {result['epochs']} epochs; end of warm-up and end: {result['from_to']}")
    for name, figure in result["figures"].items():
        print(f"{name:42} {figure:10.3f}   budget {BUDGET[name]:g}{'' if figure <= BUDGET[name] else '   BEYOND'}")
    return int(any(figure > BUDGET[name] for name, figure in result["figures"].items()))


if __name__ == "__main__":
    sys.exit(main())
