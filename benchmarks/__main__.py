"""Side-by-side measurements.

`python -m benchmarks --output FILE.json` measures the pairs, prints a table and writes JSON.
`python -m benchmarks gpu --output FILE.json` is a self-test of one GPU, in at most ten minutes.
`python -m benchmarks launches --output FILE.json` counts what a step launches on a GPU, without one.
"""

import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentParser, Namespace
from rich.console import Console
from rich.table import Column, Table

from benchmarks import gpu, launches
from benchmarks.data import data_name, with_possible_steps
from benchmarks.machine import origin, processor
from benchmarks.models import made_model
from benchmarks.pairs import PAIRS, pair_summary
from benchmarks.settings import BenchmarkSettings, at_least
from common.errors import InputError, one_of
from common.files import write_json
from common.terminal import quiet_libraries


def read_arguments(arguments: list[str]) -> tuple[Namespace, BenchmarkSettings]:
    """The command line of the pairs, and the settings among it.

    Raises:
        InputError: a number out of range, or an unknown pair.
    """
    parser = ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("benchmark.json"), help="JSON file to write")
    parser.add_argument("--only", action="append", metavar="NAME", help="measure this pair only; may be repeated")
    parser.add_argument("--repetitions", type=int, default=3, help="runs of each side, ours and reference in turn")
    parser.add_class_arguments(BenchmarkSettings, skip={"repetition"})
    parsed = parser.parse_args(arguments)
    at_least("repetitions", parsed.repetitions, 1)
    for name in parsed.only or ():
        if name not in PAIRS:
            raise one_of("--only", name, sorted(PAIRS))
    if parsed.device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device is cuda, but PyTorch finds no GPU here; allowed: auto or cpu.")
    names = [field.name for field in fields(BenchmarkSettings) if field.name != "repetition"]
    return parsed, BenchmarkSettings(**{name: parsed[name] for name in names})


def measure_pairs(arguments: list[str]) -> None:
    """Measures the pairs asked for; the file is written anew after each run, so that a kill loses one run only."""
    parsed, asked = read_arguments(arguments)
    with made_model(asked) as made:
        settings = with_possible_steps(made)
        content: dict[str, Any] = {
            "pairs": [],
            "data": data_name(settings),
            "model": asked.model,
            "settings": {"timed_steps": settings.steps, "repetitions": parsed.repetitions}
            | {name: getattr(settings, name) for name in ("warm_up_steps", "batch_size", "precision")},
            **origin(settings),
        }
        print(f"data: {content['data']}; model: {asked.model}; {settings.steps} timed steps")
        runs: dict[str, list[tuple[float, float]]] = {name: [] for name in parsed.only or PAIRS}
        for repetition in range(parsed.repetitions):
            for name, found in runs.items():
                found.append(PAIRS[name].measure(replace(settings, repetition=repetition)))
                content["pairs"] = [pair_summary(name, found) for name, found in runs.items() if found]
                write_json(parsed.output, content)
                ours, reference = found[-1]
                figures = f"ours {_number(ours)}, reference {_number(reference)}, ratio {ours / reference:.3f}"
                print(f"{name} {repetition + 1}/{parsed.repetitions}: {figures}", flush=True)
    Console().print(table(content["pairs"], f"benchmarks: {processor()}, {settings.thread_count} threads"))
    print(f"{parsed.output} holds every run, and what was timed on each side.")


def table(pairs: list[dict[str, Any]], title: str) -> Table:
    """The measured pairs as a table."""
    numbers = (Column(name, justify="right") for name in ("ours", "reference", "ratio"))
    made = Table("pair", *numbers, "better", "unit", title=title)
    for pair in pairs:
        figures = (_number(pair["ours"]), _number(pair["reference"]), f"{pair['ratio']:.3f}")
        made.add_row(pair["name"], *figures, pair["better"], pair["unit"])
    return made


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def main(arguments: list[str] | None = None) -> int:
    """Measures and returns the exit code: 0 finished, 1 this GPU computes something else, 2 the input is at fault."""
    given = sys.argv[1:] if arguments is None else arguments
    quiet_libraries()
    try:
        if given[:1] == ["gpu"]:
            return 0 if gpu.measure_gpu(given[1:]) else 1
        if given[:1] == ["launches"]:
            launches.measure_launches(given[1:])
        else:
            measure_pairs(given)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
