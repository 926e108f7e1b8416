"""What every side of a measurement is told."""

import os
from argparse import ArgumentParser, Namespace
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

MODEL = "package:all-MiniLM-L6-v2"
MAX_LENGTH = 128
SEED = 42

DATA = ("cola", "ag_news", "wikitext")
DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("32-true", "bf16-mixed")
Precision = Literal["32-true", "bf16-mixed"]


@dataclass(frozen=True)
class Settings:
    """The settings that both sides of every pair share.

    Args:
        data_dir: folder of the data, as their data module reads it; the quickstart corpus if not given.
        data: what data_dir holds: cola, ag_news, or wikitext (language modelling on blocks of 128 tokens).
        model: what `--model.backbone` of cli.py takes; in the measured processes a folder for an architecture.
        device: auto, cpu or cuda.
        precision: 32-true, or bf16-mixed (autocast).
        batch_size: rows of a batch.
        steps: timed optimizer steps; 0 for an epoch of all whole batches.
        warm_up_steps: steps before them, not timed.
        threads: threads of PyTorch in each process; 0 for all cores.
    """

    data_dir: str | None = None
    data: str = "cola"
    model: str = MODEL
    device: str = "auto"
    precision: Precision = "32-true"
    batch_size: int = 32
    steps: int = 100
    warm_up_steps: int = 10
    threads: int = 0

    @property
    def models_language(self) -> bool:
        """Whether sides train on language modelling; else on the classification of texts."""
        return self.data == "wikitext"

    @property
    def thread_count(self) -> int:
        """Threads of each measured process."""
        return self.threads or available_cores()

    @property
    def timed_rows(self) -> int:
        """Rows of the timed steps."""
        return self.steps * self.batch_size

    def arguments(self) -> list[str]:
        """These settings as command-line arguments."""
        values = {name: value for name, value in asdict(self).items() if value is not None}
        if self.data_dir is not None:  # a measured process runs in the project's folder
            values["data_dir"] = str(Path(self.data_dir).expanduser().absolute())
        return [part for name, value in values.items() for part in (f"--{name}", str(value))]

    def environment(self) -> dict[str, str]:
        """The environment of a measured process: the same number of threads and one device for every side."""
        threads = str(self.thread_count)
        fixed = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "false"}
        if self.device == "cpu":
            fixed["CUDA_VISIBLE_DEVICES"] = ""
        return {"CUDA_VISIBLE_DEVICES": "0", **os.environ, **fixed}

    @classmethod
    def of(cls, parsed: Namespace) -> "Settings":
        """The settings among parsed arguments."""
        return cls(**{field.name: getattr(parsed, field.name) for field in fields(cls)})


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def add_settings(parser: ArgumentParser) -> None:
    """Adds the arguments that `Settings` needs."""
    default: dict[str, Any] = {field.name: field.default for field in fields(Settings)}
    parser.add_argument("--data_dir", default=None, help="folder of the data (the quickstart corpus if not given)")
    parser.add_argument("--data", choices=DATA, default=default["data"], help="what --data_dir holds")
    parser.add_argument(
        "--model",
        default=MODEL,
        help="package:NAME, a folder or a hub name; or an architecture with random weights: minilm, distilbert, "
        "distilgpt2, roberta-base, roberta-large",
    )
    parser.add_argument("--device", choices=DEVICES, default=default["device"], help="auto: the GPU if there is one")
    parser.add_argument("--precision", choices=PRECISIONS, default=default["precision"], help="of both sides")
    parser.add_argument("--batch_size", type=int, default=default["batch_size"], help="rows of a batch")
    parser.add_argument("--steps", type=int, default=default["steps"], help="timed steps; 0: one epoch of all rows")
    parser.add_argument("--warm_up_steps", type=int, default=default["warm_up_steps"], help="steps before them")
    parser.add_argument("--threads", type=int, default=default["threads"], help="threads of a process; 0: all cores")
