import shlex
from pathlib import Path

from experiments.closing_table import print_closing_table


def results(**changes):
    parameters = dict.fromkeys(("adapter", "allocation", "head", "total"), 7)
    throughput = {"train_samples_per_second": 1.0, "train_tokens_per_second": 2.0}
    metric = {"name": "accuracy", "best": 0.5, "best_epoch": 1, "last": None}
    figures = {"run_name": "run", "status": "finished", "metric": metric, "trainable_parameters": parameters}
    figures |= {"test": None, "budget": {"used": 32.0, "requested": 32.0}, "average_rank": 4.0}
    return {**figures, "throughput": throughput, "wall_seconds": 3.0, "peak_memory_bytes": 2**20, **changes}


def test_the_commands_it_prints_can_be_pasted(capsys):
    folder = Path("runs") / "a run; of mine" / "x"
    print_closing_table(results(), {"layer.0.query": 4, "layer.1.query": 5}, folder)
    lines = [shlex.split(line) for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert ["tensorboard", "--logdir", str(folder.parent)] in lines
    assert str(folder / "config.yaml") in next(line for line in lines if "predict" in line)


def test_ranks_that_are_all_the_same_have_a_map_too(capsys):
    print_closing_table(results(), {"layer.0.query": 4, "layer.1.query": 4}, Path("runs/run"))
    assert "4" in next(line for line in capsys.readouterr().out.splitlines() if "query" in line)
