"""Side-by-side measurements.

`python -m benchmarks --output FILE.json` measures the pairs, prints a table and writes JSON.
`python -m benchmarks gpu --output FILE.json` is a self-test of one GPU, in at most ten minutes.
`python -m benchmarks launches --output FILE.json` counts what a step launches on a GPU, without one.
"""

import sys
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser, auto_cli
from jsonargparse.typing import PositiveInt

from benchmarks.gpu import measure_gpu
from benchmarks.inputs import BenchmarkSettings, data_name, made_model, with_possible_steps
from benchmarks.launches import measure_launches
from benchmarks.output import number, origin, print_table, processor
from benchmarks.pairs import PAIRS, pair_summary, run_side
from common.errors import InputError, check_one_of
from common.files import write_json
from common.terminal import quiet_libraries


def measure_pairs(arguments: list[str]) -> None:
    """Measures the pairs asked for; the file is written anew after each run, so that a kill loses one run only."""
    parser = ArgumentParser(prog="python -m benchmarks", description=__doc__, exit_on_error=False)
    parser.add_argument("--output", type=Path, default=Path("benchmark.json"), help="JSON file to write")
    parser.add_argument("--only", action="append", metavar="NAME", help="measure this pair only; may be repeated")
    parser.add_argument("--repetitions", type=PositiveInt, default=3, help="runs of each side, in turn")
    parser.add_class_arguments(BenchmarkSettings)
    parsed = parser.parse_args(arguments)
    for name in parsed.only or ():
        check_one_of("--only", name, PAIRS)
    asked = BenchmarkSettings(**{field.name: parsed[field.name] for field in fields(BenchmarkSettings)})
    with made_model(asked) as made:
        settings = with_possible_steps(made)
        content: dict[str, Any] = {"pairs": [], "data": data_name(settings), "model": asked.model}
        kept = {name: getattr(settings, name) for name in ("warm_up_steps", "batch_size", "precision")}
        kept |= {"timed_steps": settings.steps, "repetitions": parsed.repetitions}
        content |= {"settings": kept, **origin(settings)}
        print(f"data: {content['data']}; model: {asked.model}; {settings.steps} timed steps")
        runs: dict[str, list[tuple[float, float]]] = {name: [] for name in parsed.only or PAIRS}
        for repetition in range(parsed.repetitions):
            measured = cache(lambda side: run_side(side, settings)[0])  # once for all pairs of a repetition
            for name, found in runs.items():
                ours, reference = PAIRS[name].compared(measured)
                found.append((ours, reference))
                content["pairs"] = [pair_summary(name, found) for name, found in runs.items() if found]
                write_json(parsed.output, content)
                figures = f"ours {number(ours)}, reference {number(reference)}, ratio {ours / reference:.3f}"
                print(f"{name} {repetition + 1}/{parsed.repetitions}: {figures}", flush=True)
    columns = {"name": "pair", **{name: name for name in ("ours", "reference", "ratio", "better", "unit")}}
    print_table(f"benchmarks: {processor()}, {settings.thread_count} threads", content["pairs"], columns)
    print(f"{parsed.output} holds every run.")


def main(arguments: list[str] | None = None) -> int:
    """Measures and returns the exit code: 0 finished, 1 this GPU computes something else, 2 the input is at fault."""
    given = sys.argv[1:] if arguments is None else arguments
    quiet_libraries()
    try:
        if given[:1] == ["gpu"]:
            return 0 if auto_cli(measure_gpu, args=given[1:], exit_on_error=False) else 1
        if given[:1] == ["launches"]:
            auto_cli(measure_launches, args=given[1:], exit_on_error=False)
        else:
            measure_pairs(given)
    except (InputError, ArgumentError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
