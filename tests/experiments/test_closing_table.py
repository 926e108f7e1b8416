"""What a run and a sweep print last, with brackets in names: they are no markup, and commands can be pasted."""

import json
import shlex

import pytest
from rich.console import Console

from experiments import closing_table
from experiments.closing_table import print_closing_table
from experiments.results import RunResults
from experiments.sweep.folder import LOG, SweepFolder
from experiments.sweep.grid import Trial
from experiments.sweep.progress import Progress, shortened
from tests.experiments import made_runs


@pytest.fixture
def wide(monkeypatch):
    """Consoles wide enough that nothing is wrapped."""
    monkeypatch.setattr(closing_table, "Console", lambda: Console(width=300))


def shown_results(content, ranks, folder):
    print_closing_table(RunResults.from_dict(content, "made"), ranks, folder)


def test_names_and_folders_are_printed_as_they_are(wide, tmp_path, capsys):
    folder = tmp_path / "my [red]runs [" / "data]" / "run[bold]"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "best.ckpt").touch()
    shown_results(made_runs.results("run[bold]", 0, 0.5), {}, folder)
    shown = capsys.readouterr().out
    assert "run[bold]: finished" in shown and f"{folder}/results.json" in shown
    command = next(line for line in shown.splitlines() if "predict" in line)
    assert shlex.split(command)[3] == str(folder)
    assert shlex.split(next(line for line in shown.splitlines() if "tensorboard" in line))[2] == str(folder.parent)


@pytest.mark.parametrize(("there", "offered"), [("last.ckpt", " --ckpt_path last"), ("best.ckpt", "")])
def test_the_checkpoint_that_is_offered_is_there(wide, tmp_path, capsys, there, offered):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / there).touch()
    unvalidated = made_runs.results("run", 0, 0.5)
    unvalidated["metric"] |= {"best": None, "best_epoch": None, "last": None}
    shown_results(unvalidated | {"test": None}, {}, tmp_path)
    last = capsys.readouterr().out.splitlines()[-4:]
    assert last == [
        "No score: no validation gave a number.",
        f'  python cli.py predict {tmp_path} --text "The cat sat on the mat."{offered}',
        f"  python cli.py export {tmp_path} --format peft{offered}",
        f"  python cli.py report {tmp_path}",
    ]


@pytest.mark.parametrize(
    ("status", "figures", "metric", "majority", "said"),
    [
        ("finished", None, "accuracy", 0.5, "Validation accuracy: 0.5000 (best epoch: 2 of 2)|no better than"),
        ("finished", None, "accuracy", 0.499, "Validation accuracy: 0.5000 (best epoch: 2 of 2)|python cli.py predict"),
        ("finished", {"matthews_correlation": -0.01}, None, 0.9, "Test matthews correlation: -0.0100|0.0000"),
        ("collapsed", {"f1": 0.4}, None, None, "Test f1: 0.4000|no better than the same answer for every row."),
    ],
)
def test_the_score_comes_last_and_is_told_from_a_majority(
    wide, tmp_path, capsys, status, figures, metric, majority, said
):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "best.ckpt").touch()
    content = made_runs.results("run", 0, 0.5) | {"status": status, "test": figures}
    content["metric"] |= {"name": metric or next(iter(figures)), "best": 0.5, "best_epoch": 1}
    print_closing_table(RunResults.from_dict(content, "made"), {}, tmp_path, majority)
    shown = capsys.readouterr().out.splitlines()
    score, below = said.split("|")
    place = next(place for place, line in enumerate(shown) if line.startswith(score))
    assert below in shown[place + 1] and len(shown) - place == 4 + ("no better" in shown[place + 1])


def shown_progress(progress, width):
    console = Console(width=width, height=24)
    progress._console = console
    with console.capture() as captured:
        console.print(progress)
    return captured.get()


def test_brackets_in_a_log_or_a_failure_do_not_end_the_live_table(tmp_path):
    trials = [Trial("trial_[a]", "", (), {}), Trial("trial_[b]", "", (), {})]
    folder = SweepFolder(tmp_path / "sweep[x]")
    for trial in trials:
        folder.trial_folder(trial).mkdir(parents=True)
    (folder.trial_folder(trials[0]) / LOG).write_text("reading [/data/news]\n")
    folder.record_failure(trials[1], "OSError: no file [/data/words]")
    progress = Progress(folder, trials, 1)
    progress.started(trials[0])
    shown = shown_progress(progress, 200)
    for part in ("sweep[x]", "trial_[a]", "reading [/data/news]", "trial_[b]", "no file [/data/words]"):
        assert part in shown


def test_the_live_table_fits_a_small_terminal(tmp_path):
    folder = SweepFolder(tmp_path / "sweep")
    trials = [Trial(f"learning_rate_0.001_adapter.allocation_bounded_seed_{n}", "", (), {}) for n in range(40)]
    for trial in trials:
        folder.trial_folder(trial).mkdir(parents=True)
    finished = made_runs.results("one", 0, 0.5, wall_seconds=4000.0)
    (folder.trial_folder(trials[0]) / "results.json").write_text(json.dumps(finished))
    for trial in trials[1:4]:
        (folder.trial_folder(trial) / LOG).write_text("epoch 1  " + "word " * 50 + "\n")
    folder.record_failure(trials[4], "OSError: " + "no " * 60)
    progress = Progress(folder, trials, 3)
    for trial in trials[1:4]:
        progress.started(trial)
    lines = shown_progress(progress, 80).splitlines()
    assert len(lines) <= 24 and all(len(line) <= 80 for line in lines)
    done, running = (next(line for line in lines if f"seed_{n} " in line) for n in (0, 1))
    assert "learning_rat…" in done and "1:06:40" in done and "0.5000" in done
    assert "sweep: accuracy" in lines[0]
    assert next(line for line in lines if "seed_4 " in line).count("│") == 5
    assert "running" in running and "word" not in running
    assert sum(line.startswith("epoch 1  word") for line in lines) == 3


def test_names_in_the_live_table_stay_different_and_whole_where_there_is_room(tmp_path):
    trials = [
        Trial(f"learning_rate_{rate}-seed_everything_{seed}", "", (), {}) for rate in (0.001, 0.004) for seed in (0, 1)
    ]
    folder = SweepFolder(tmp_path / "sweep")
    for trial in trials:
        folder.trial_folder(trial).mkdir(parents=True)
        (folder.trial_folder(trial) / "results.json").write_text(json.dumps(made_runs.results("one", 0, -0.0534)))
    progress = Progress(folder, trials, 1)
    wide, narrow = shown_progress(progress, 80), shown_progress(progress, 60)
    assert all(f" {trial.name} " in wide for trial in trials) and wide.count(" -0.0534 ") >= 4
    cut = [line.split("│")[1].strip() for line in narrow.splitlines() if line.startswith("│")]
    assert len(set(cut)) == 4
    assert all(len(line) <= 60 for line in narrow.splitlines())


def test_a_name_is_cut_in_the_middle_unless_another_place_keeps_names_apart():
    assert shortened(["abcdefghij"], 10) == ["abcdefghij"]
    assert shortened(["abcdefghijk", "xbcdefghijk"], 7) == ["abc…ijk", "xbc…ijk"]
    assert shortened(["abcdeXghijk", "abcdeYghijk"], 7) == ["…Xghijk", "…Yghijk"]
    assert shortened(["abcdefghijk"] * 2, 7) == ["abc…ijk"] * 2
