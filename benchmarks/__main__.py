"""`python -m benchmarks --output FILE.json`: measures the pairs, prints a table, writes JSON."""

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.data import data_name, with_possible_steps
from benchmarks.machine import machine, versions
from benchmarks.models import made_model
from benchmarks.pair import Sides, summarise
from benchmarks.pairs import PAIRS
from benchmarks.settings import Settings, add_settings
from common.errors import InputError, one_of
from common.files import write_json
from common.terminal import quiet_libraries


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line.

    Raises:
        InputError: a number out of range, or an unknown pair.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("benchmark.json"), help="JSON file to write")
    parser.add_argument("--only", action="append", metavar="NAME", help="measure this pair only; may be repeated")
    parser.add_argument("--repetitions", type=int, default=3, help="runs of each side, ours and reference in turn")
    add_settings(parser)
    parsed = parser.parse_args(arguments)
    for name, least in (("repetitions", 1), ("steps", 0), ("warm_up_steps", 1), ("threads", 0), ("batch_size", 1)):
        if getattr(parsed, name) < least:
            raise InputError(f"{name} is {getattr(parsed, name)}; allowed: {least} or more.")
    for name in parsed.only or ():
        if name not in PAIRS:
            raise one_of("--only", name, sorted(PAIRS))
    if parsed.device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device is cuda, but PyTorch finds no GPU here; allowed: auto or cpu.")
    return parsed


def measure(parsed: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Measures the pairs asked for; the file is written anew after each run, so that a kill loses one run only."""
    with made_model(Settings.of(parsed)) as settings:
        return _measure_all(parsed, with_possible_steps(settings), console)


def _measure_all(parsed: argparse.Namespace, settings: Settings, console: Console) -> dict[str, Any]:
    content: dict[str, Any] = {
        "pairs": [],
        "machine": machine(settings),
        "versions": versions(),
        "data": data_name(settings),
        "model": parsed.model,
        "settings": {
            "timed_steps": settings.steps,
            "warm_up_steps": settings.warm_up_steps,
            "repetitions": parsed.repetitions,
            "batch_size": settings.batch_size,
            "precision": settings.precision,
        },
        "command": " ".join(["python -m benchmarks", *sys.argv[1:]]),
    }
    console.print(f"data: {content['data']}; model: {parsed.model}; {settings.steps} timed steps", highlight=False)
    runs: dict[str, list[Sides]] = {}
    for repetition in range(parsed.repetitions):
        for name in parsed.only or PAIRS:
            runs.setdefault(name, []).append(PAIRS[name].measure(settings, repetition))
            console.print(f"{name} {repetition + 1}/{parsed.repetitions}: {_both(*runs[name][-1])}", highlight=False)
            content["pairs"] = [summarise(name, PAIRS[name], found) for name, found in runs.items()]
            write_json(parsed.output, content)
    return content


def table(content: dict[str, Any]) -> Table:
    """The measured pairs as a table."""
    made = Table(title=f"benchmarks: {content['machine']['cpu']}, {content['machine']['threads']} threads")
    made.add_column("pair", no_wrap=True)
    for column in ("ours", "reference", "ratio"):
        made.add_column(column, justify="right", no_wrap=True)
    made.add_column("better")
    made.add_column("unit")
    for pair in content["pairs"]:
        figures = (_number(pair["ours"]), _number(pair["reference"]), f"{pair['ratio']:.3f}")
        made.add_row(pair["name"], *figures, pair["better"], pair["unit"])
    return made


def _both(ours: float, reference: float) -> str:
    return f"ours {_number(ours)}, reference {_number(reference)}, ratio {ours / reference:.3f}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def main(arguments: list[str] | None = None) -> int:
    """Runs the benchmarks and returns the exit code: 0 finished, 2 the input is at fault."""
    quiet_libraries()
    console = Console()
    try:
        parsed = parse(arguments)
        content = measure(parsed, console)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    console.print(table(content))
    console.print(f"{parsed.output} holds every run, and what was timed on each side.", highlight=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
