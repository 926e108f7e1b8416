"""What every side of a measurement is told."""

import os
from dataclasses import dataclass
from typing import Literal

from common.errors import InputError
from common.machine import usable_cores

MODEL = "package:all-MiniLM-L6-v2"
MAX_LENGTH = 128
SEED = 42
CLOCK = "RANKWISE_BENCHMARK_CLOCK"

Precision = Literal["32-true", "bf16-mixed"]


@dataclass(frozen=True)
class BenchmarkSettings:
    """The settings that both sides of every pair share.

    Args:
        data_dir: folder of the data, as their data module reads it; the quickstart corpus if not given.
        data: what data_dir holds: cola, ag_news, or wikitext (language modelling on blocks of 128 tokens).
        model: package:NAME, a folder or a hub name; or an architecture with random weights: tiny, minilm,
            distilbert, distilgpt2, roberta-base, roberta-large.
        device: auto takes the GPU if there is one.
        precision: of both sides: 32-true, or bf16-mixed (autocast).
        batch_size: rows of a batch.
        steps: timed optimizer steps; 0 for an epoch of all whole batches.
        warm_up_steps: steps before them, not timed.
        threads: threads of PyTorch in each process, and of its compiler; 0 for all cores.
        clock: wall, or processor: the seconds that processors worked for a side, which other work on the machine
            changes less.
        repetition: number of the run, from 0; each is measured anew.

    Raises:
        InputError: a number out of range.
    """

    data_dir: str | None = None
    data: Literal["cola", "ag_news", "wikitext"] = "cola"
    model: str = MODEL
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Precision = "32-true"
    batch_size: int = 32
    steps: int = 100
    warm_up_steps: int = 10
    threads: int = 0
    clock: Literal["wall", "processor"] = "wall"
    repetition: int = 0

    def __post_init__(self) -> None:
        for name, least in (("steps", 0), ("warm_up_steps", 1), ("threads", 0), ("batch_size", 1)):
            at_least(name, getattr(self, name), least)

    @property
    def models_language(self) -> bool:
        """Whether sides train on language modelling; else on the classification of texts."""
        return self.data == "wikitext"

    @property
    def thread_count(self) -> int:
        """Threads of each measured process."""
        return self.threads or usable_cores()

    @property
    def all_steps(self) -> int:
        """Optimizer steps of a measured run, timed or not."""
        return self.warm_up_steps + self.steps

    def environment(self) -> dict[str, str]:
        """The environment of a measured process: the same number of threads and one device for every side."""
        threads = str(self.thread_count)
        counted = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TORCHINDUCTOR_COMPILE_THREADS")
        fixed = {**dict.fromkeys(counted, threads), "TOKENIZERS_PARALLELISM": "false", CLOCK: self.clock}
        if self.device == "cpu":
            fixed["CUDA_VISIBLE_DEVICES"] = ""
        return {"CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0"), **fixed}


def at_least(name: str, value: int, least: int) -> None:
    """Raises `InputError` for a number below the least one allowed."""
    if value < least:
        raise InputError(f"{name} is {value}; allowed: {least} or more.")
