"""A long run on a tiny model: does memory stay flat, do files and threads stay few, do TensorBoard's files stay small?

python -m benchmarks.long_run --steps 2000

Every epoch trains, validates, draws its heat maps and writes checkpoints, as in any run. Exit code 1 when a figure is
beyond its budget.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import yaml
from lightning.pytorch import Callback

import cli
from benchmarks.tiny_model import save_tiny_model
from common.errors import InputError
from common.files import write_json

# 50 KiB per 100 steps are 50 MiB in 100,000 steps; files and threads must not grow at all.
BUDGET = {
    "memory_kib_per_100_steps": 50.0,
    "more_open_files": 0,
    "more_threads": 0,
    "tensorboard_kib_per_step_logged": 2.0,
    "tensorboard_kib_per_epoch_with_pictures": 150.0,
}
_STEPS_PER_EPOCH = 50
_BATCH_SIZE = 8


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

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step % self.every_n_steps:
            return
        self.notes.append(
            {
                "step": trainer.global_step,
                "memory": self._process.memory_info().rss,
                "files": self._process.num_fds(),
                "threads": self._process.num_threads(),
            }
        )

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        write_json(self.output, self.notes)


def slope(steps: Sequence[float], values: Sequence[float]) -> float:
    """How much a value grows per step: the median over all pairs of notes (Theil and Sen), which no jump can move."""
    pairs = [
        (values[later] - values[sooner]) / (steps[later] - steps[sooner])
        for sooner in range(len(steps))
        for later in range(sooner + 1, len(steps))
    ]
    return statistics.median(pairs)


def summarise(notes: list[dict[str, int]], event_bytes: int, epochs: int, picture_bytes: int) -> dict[str, float]:
    """The figures that have a budget.

    Args:
        notes: what `Resources` noted; the first quarter is warm-up and left out.
        event_bytes: TensorBoard's files without pictures.
        epochs: how many epochs drew pictures.
        picture_bytes: what the pictures take.
    """
    steady = notes[len(notes) // 4 :]
    steps = [note["step"] for note in steady]
    return {
        "memory_kib_per_100_steps": 100 * slope(steps, [note["memory"] for note in steady]) / 1024,
        "more_open_files": steady[-1]["files"] - steady[0]["files"],
        "more_threads": steady[-1]["threads"] - steady[0]["threads"],
        "tensorboard_kib_per_step_logged": event_bytes / 1024 / notes[-1]["step"],
        "tensorboard_kib_per_epoch_with_pictures": picture_bytes / 1024 / (epochs + 1),  # and once at the start
    }


def measure(steps: int, folder: Path) -> dict[str, Any]:
    """Trains for so many steps in a folder and says what it took."""
    model = save_tiny_model(folder / "model")
    data = _save_data(folder / "data")
    config = folder / "long_run.yaml"
    config.write_text(yaml.safe_dump(_config(steps, model, data, folder)))
    code = cli.main(["fit", "--config", str(config), "--runs_dir", str(folder / "runs")])
    if code:
        raise RuntimeError(f"the run ended with exit code {code}")
    notes = json.loads((folder / "notes.json").read_text())
    events = list((folder / "runs" / "long_run").glob("events.out.tfevents.*"))
    pictures = _picture_bytes(events)
    written = sum(path.stat().st_size for path in events) - pictures
    epochs = -(-steps // _STEPS_PER_EPOCH)
    figures = summarise(notes, written, epochs, pictures)
    steady = notes[len(notes) // 4]
    ends = {
        "memory_mib": [round(note["memory"] / 2**20, 1) for note in (steady, notes[-1])],
        "files": [steady["files"], notes[-1]["files"]],
        "threads": [steady["threads"], notes[-1]["threads"]],
    }
    return {
        "steps": notes[-1]["step"],
        "epochs": epochs,
        "figures": figures,
        "budget": BUDGET,
        "from_to": ends,
        "notes": notes,
    }


def _picture_bytes(events: list[Path]) -> int:
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    return sum(
        value.ByteSize()
        for path in events
        for event in EventFileLoader(str(path)).Load()
        for value in event.summary.value
        if value.metadata.plugin_data.plugin_name == "images"
    )


def _config(steps: int, model: Path, data: Path, folder: Path) -> dict[str, Any]:
    ranks = {"rank_min": 2, "rank_max": 8, "rank_average": 5}
    adapter = {"class_path": "lora.AdaptiveLoRAXS", "init_args": ranks}
    notes = {"class_path": "benchmarks.long_run.Resources", "init_args": {"output": str(folder / "notes.json")}}
    return {
        "model": {
            "class_path": "lightning_modules.TextClassificationModule",
            "init_args": {"backbone": str(model), "adapter": adapter},
        },
        "data": {
            "class_path": "datamodules.TableDataModule",
            "init_args": {"data_dir": str(data), "batch_size": _BATCH_SIZE, "max_length": 32, "validation_rows": 64},
        },
        "trainer": {
            "max_epochs": -(-steps // _STEPS_PER_EPOCH),
            "accelerator": "cpu",
            "devices": 1,
            "log_every_n_steps": 10,
            "callbacks": [notes],
        },
        "rank_logging": {"every_n_steps": 10},
        "update_norms": {"every_n_steps": 10},
    }


def _save_data(folder: Path) -> Path:
    """Sentences with and without a `not`, so many that an epoch has 50 steps."""
    folder.mkdir(parents=True)
    words = ["the", "a", "cat", "dog", "bird", "sees", "hears", "sleeps", "big", "small", "old", "often", "and"]
    rows = ["text,label"]
    for row in range(_STEPS_PER_EPOCH * _BATCH_SIZE + 64):
        text = [words[(row * 7 + place * place) % len(words)] for place in range(4 + row % 9)]
        rows.append(" ".join(["not", *text] if row % 2 else text) + f",{row % 2}")
    (folder / "train.csv").write_text("\n".join(rows) + "\n")
    return folder


def main() -> int:
    """Runs it, prints a table and returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2000, help="optimizer steps (2000)")
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    options = parser.parse_args()
    if options.steps < 200:
        raise InputError(f"--steps is {options.steps}; allowed: 200 or more, or there is nothing left after warm-up.")
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
    try:
        sys.exit(main())
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
