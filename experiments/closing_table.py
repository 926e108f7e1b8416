"""The last screen of a run: what came out, and what to do next."""

import shlex
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from callbacks.rank_pictures import rank_grid
from common.terminal import as_called, is_first_process
from experiments.results import Figure, RankFigures, RunResults


def print_closing_table(
    results: RunResults, ranks: dict[str, int], folder: Path, majority_share: float | None = None
) -> None:
    """Prints figures and the map of the discrete ranks, then the score, and below it the next commands.

    `majority_share` is the accuracy of always giving the most frequent label; None if nobody knows.
    """
    console = Console()
    if results.accuracy_by_tag:
        console.print(_tag_table(results.accuracy_by_tag))
    if results.budget is not None:
        console.print(_rank_table(ranks))
    console.print(_figures(results))
    lines = [
        f"{folder}/results.json holds every figure (fractions, not percent). Their course over time:",
        f"  tensorboard --logdir {shlex.quote(str(folder.parent))}",
        "",
        *_score(results, majority_share),
        *(f"  {as_called('python cli.py')} {command}" for command in _next_commands(results, folder)),
    ]
    console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)  # a name may hold brackets


def _score(results: RunResults, majority_share: float | None) -> list[str]:
    """The figure the run is judged by, in words."""
    metric = results.metric
    name = metric.name.replace("_", " ")
    test = results.test_figures.get(metric.name)
    score = metric.best if test is None else test
    if score is None:
        return ["No score: no validation gave a number."]
    split = "Validation" if test is None else "Test"
    lines = [f"{split} {name}: {_number(score)}{_of_epoch(results)}"]
    baseline = {"accuracy": majority_share, "matthews_correlation": 0.0}.get(metric.name)
    if results.status == "collapsed" or (baseline is not None and score <= baseline):
        than = "" if baseline is None else f", which scores {_number(baseline)}"
        lines.append(f"That is no better than the same answer for every row{than}.")
    return lines


def _of_epoch(results: RunResults) -> str:
    epoch = results.metric.best_epoch
    return "" if epoch is None else f" (best epoch: {epoch + 1} of {len(results.val_losses or ())})"


def _next_commands(results: RunResults, folder: Path) -> list[str]:
    run = shlex.quote(str(folder))
    there = [which for which in ("best", "last") if (folder / "checkpoints" / f"{which}.ckpt").exists()]
    if not there:
        return [f"report {run}"]
    which = "" if there[0] == "best" else " --ckpt_path last"
    kind = "merged" if results.adapter == "full fine-tuning" else "peft"
    predict = f'predict {run} --text "The cat sat on the mat."{which}'
    return [predict, f"export {run} --format {kind}{which}", f"report {run}"]


def _figures(results: RunResults) -> Table:
    metric, parameters = results.metric, results.trainable_parameters
    table = Table(title=escape(f"{results.run_name}: {results.status}"), show_header=False)
    name = metric.name.replace("_", " ")
    table.add_row(f"best {name}", f"{_number(metric.best)}{_of_epoch(results)}")
    table.add_row(f"last {name}", _number(metric.last))
    for key, value in results.test_figures.items():
        table.add_row(f"test {key.replace('_', ' ')} (best epoch)", _number(value))
    table.add_row(
        "trainable parameters",
        f"{parameters.total:,} (adapter {parameters.adapter:,}, allocation {parameters.allocation:,}, "
        f"head {parameters.head:,})",
    )
    last, best = results.ranks, results.at_best_epoch
    moved = best is not None and best.budget != last.budget
    _add_budget(table, "budget used (last epoch)" if moved else "budget used", last)
    if moved:
        _add_budget(table, "budget used (best epoch)", best)
    if last.average_rank is not None:
        table.add_row("average rank", f"{last.average_rank:.2f}")
    if (speed := results.throughput) is not None:
        samples, tokens = speed.train_samples_per_second, speed.train_tokens_per_second
        table.add_row("training speed", f"{samples:,.1f} samples/s, {tokens:,.0f} tokens/s")
    table.add_row("time", f"{results.wall_seconds:,.0f} s")
    if results.peak_memory_bytes is not None:
        table.add_row("peak memory", f"{results.peak_memory_bytes / 2**20:,.0f} MiB")
    return table


def _add_budget(table: Table, name: str, ranks: RankFigures | None) -> None:
    if ranks is not None and (budget := ranks.budget) is not None:
        equal = f"as much as rank {ranks.equal_area_rank:.2f} in every layer"
        table.add_row(name, f"{budget.used:,.0f} of {budget.requested:,.0f}, {equal}")


def _rank_table(ranks: dict[str, int]) -> Table:
    layers, projections, rows = rank_grid({path: float(rank) for path, rank in ranks.items()})
    table = Table(title="discrete ranks by layer", padding=(0, 0))
    table.add_column("projection")
    for layer in layers:
        table.add_column(str(layer), justify="right", min_width=3)
    low, high = min(ranks.values()), max(ranks.values())
    for projection, row in zip(projections, rows, strict=True):
        table.add_row(projection, *(_cell(rank, low, high) for rank in row))
    return table


def _cell(rank: float | None, low: int, high: int) -> Text:
    if rank is None:
        return Text("")
    share = (rank - low) / max(high - low, 1)
    return Text(
        f"{rank:.0f}", style=f"rgb({int(90 + 150 * share)},{int(90 + 60 * (1 - share))},{int(220 * (1 - share))})"
    )


def _tag_table(accuracies: dict[str, Figure]) -> Table:
    table = Table(title="test accuracy by phenomenon")
    table.add_column("phenomenon")
    table.add_column("accuracy", justify="right")
    known = [(name, value) for name, value in accuracies.items() if value is not None]
    for name, value in sorted(known, key=lambda item: -item[1]):
        table.add_row(Text(name.replace("_", " ")), f"{value:.3f}")
    return table


def print_evaluation(title: str, figures: dict[str, float]) -> None:
    """Prints the figures of a validate or test call."""
    if not is_first_process():
        return
    table = Table(title=escape(title), show_header=False)
    for name, value in figures.items():
        table.add_row(name, _number(value))
    Console().print(table)


def _number(value: Figure) -> str:
    return "none" if value is None else f"{value:.4f}"
