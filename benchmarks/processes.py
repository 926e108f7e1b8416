"""Each side measures alone, in a fresh process."""

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from io import StringIO
from multiprocessing import get_context

import torch

from benchmarks.settings import Settings
from benchmarks.sides import SIDES
from benchmarks.timing import Figures


@dataclass(frozen=True)
class Measured:
    """What a side measured, with how many threads and where."""

    figures: Figures
    threads: int
    device: str


@cache
def run_side(name: str, settings: Settings) -> Figures:
    """Runs one side in its own process and returns what it measured; once for all pairs with it.

    Raises:
        RuntimeError: the side ran with other threads or on another device than asked.
    """
    with _environment(settings), ProcessPoolExecutor(1, get_context("spawn")) as pool:
        measured = pool.submit(_measure, name, settings).result()
    if measured.threads != settings.thread_count:
        raise RuntimeError(f"{name} ran with {measured.threads} threads instead of {settings.thread_count}")
    if settings.device not in ("auto", measured.device):
        raise RuntimeError(f"{name} ran on {measured.device} instead of {settings.device}")
    return measured.figures


def _measure(name: str, settings: Settings) -> Measured:
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        figures = SIDES[name].measure(settings)
    return Measured(figures, torch.get_num_threads(), "cuda" if torch.cuda.is_available() else "cpu")


@contextmanager
def _environment(settings: Settings) -> Iterator[None]:
    """The environment that processes begin with meanwhile: torch reads the number of threads when it is imported."""
    before = dict(os.environ)
    os.environ.update(settings.environment())
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
