"""What every side of a measurement is told."""

import os
from dataclasses import dataclass
from typing import Literal

from jsonargparse.typing import NonNegativeInt, PositiveInt

from common.machine import usable_cores

MODEL = "package:all-MiniLM-L6-v2"
MAX_LENGTH = 128
SEED = 42


@dataclass(frozen=True)
class BenchmarkSettings:
    """The settings that both sides of every pair share.

    Args:
        data_dir: folder of the data, as their data module reads it; the quickstart corpus if not given.
        data: what data_dir holds: cola, ag_news, or wikitext (language modelling on blocks of 128 tokens).
        model: package:NAME, a folder or a hub name; or an architecture with random weights: distilbert, distilgpt2,
            roberta-base, roberta-large.
        device: auto takes the GPU if there is one.
        precision: of both sides: 32-true, or bf16-mixed (autocast).
        batch_size: rows of a batch.
        steps: timed optimizer steps, at most those of one epoch; 0 for all of them.
        warm_up_steps: steps before them, not timed.
        threads: threads of PyTorch in each process; 0 for all cores.
    """

    data_dir: str | None = None
    data: Literal["cola", "ag_news", "wikitext"] = "cola"
    model: str = MODEL
    device: Literal["auto", "cpu"] = "auto"
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    batch_size: PositiveInt = 32
    steps: NonNegativeInt = 100
    warm_up_steps: PositiveInt = 10
    threads: NonNegativeInt = 0

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
        fixed = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(self.thread_count))
        device = "" if self.device == "cpu" else os.environ.get("CUDA_VISIBLE_DEVICES", "0")
        return {**fixed, "TOKENIZERS_PARALLELISM": "false", "CUDA_VISIBLE_DEVICES": device}
