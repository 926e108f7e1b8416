import csv
import math
import re

import pytest

from callbacks.metrics_table import MetricsTable


def read(folder) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [{key: value for key, value in row.items() if value} for row in csv.DictReader(file)]


def filled(folder) -> MetricsTable:
    table = MetricsTable(folder)
    table.log_metrics({"train/loss": 0.5}, step=0)
    table.log_metrics({"alpha": 1}, step=0)
    table.log_metrics({"train/loss": 0.25, "alpha": 1.5}, step=1)
    return table


def test_metrics_of_one_step_share_a_row_which_is_on_file_once_the_step_is_over(tmp_path):
    table = filled(tmp_path)
    first = {"step": "0", "train/loss": "0.5", "alpha": "1"}
    assert read(tmp_path) == [first]
    table.finalize("success")
    assert read(tmp_path) == [first, {"step": "1", "train/loss": "0.25", "alpha": "1.5"}]


def test_rows_are_appended_without_rewriting_the_file(tmp_path):
    table = filled(tmp_path)
    file = (tmp_path / "metrics.csv").stat().st_ino
    for step in range(2, 30):
        table.log_metrics({"train/loss": 0.1}, step=step)
    assert (tmp_path / "metrics.csv").stat().st_ino == file
    assert [row["step"] for row in read(tmp_path)] == [str(step) for step in range(29)]


def test_a_new_metric_is_a_new_column_and_old_rows_stay(tmp_path):
    table = filled(tmp_path)
    table.log_metrics({"val/accuracy": 0.75}, step=2)
    table.log_metrics({"train/loss": 0.2}, step=3)
    lines = (tmp_path / "metrics.csv").read_text().splitlines()
    assert lines == ["step,train/loss,alpha,val/accuracy", "0,0.5,1,", "1,0.25,1.5,", "2,,,0.75"]


def test_a_step_that_logs_again_after_a_flush_is_not_lost(tmp_path):
    table = filled(tmp_path)
    table.save()
    table.log_metrics({"alpha": 9.0}, step=1)
    table.log_metrics({"alpha": 2.0}, step=2)
    assert read(tmp_path)[1] == {"step": "1", "train/loss": "0.25", "alpha": "9"}


@pytest.mark.parametrize("value", [1 / 3, 1e-300, 2.0, -7, math.nan, math.inf])
def test_values_read_back_as_they_were(tmp_path, value):
    table = MetricsTable(tmp_path)
    table.log_metrics({"x": value}, step=0)
    table.save()
    again = float(read(tmp_path)[0]["x"])
    assert again == value or (math.isnan(again) and math.isnan(value))


def test_going_on_forgets_the_rows_from_that_step_on(tmp_path):
    table = MetricsTable(tmp_path)
    for step in range(6):
        table.log_metrics({"train/loss": step / 8}, step=step)
    table.finalize("failed")
    again = MetricsTable(tmp_path)
    again.continue_from(4)
    again.finalize("failed")  # refused before its first step: nothing is lost
    assert [row["step"] for row in read(tmp_path)] == ["0", "1", "2", "3", "4", "5"]
    again.log_metrics({"train/loss": 0.5}, step=4)
    assert [row["step"] for row in read(tmp_path)] == ["0", "1", "2", "3"]
    again.log_metrics({"val/loss": 0.25}, step=5)
    again.finalize("success")
    rows = read(tmp_path)
    assert [row["step"] for row in rows] == ["0", "1", "2", "3", "4", "5"]
    assert rows[3]["train/loss"] == "0.375"
    assert rows[5] == {"step": "5", "val/loss": "0.25"}


@pytest.mark.parametrize("torn", ["2", "2,0.7", "2,0.", "\x00\x00"])
def test_a_torn_last_line_is_dropped(tmp_path, torn):
    filled(tmp_path).finalize("failed")
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write(torn)
    table = MetricsTable(tmp_path)
    table.continue_from(10)
    table.log_metrics({"train/loss": 0.5}, step=2)
    table.save()
    assert read(tmp_path)[2:] == [{"step": "2", "train/loss": "0.5"}]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("1,0.25,1.5,\n", "", r"has lost rows .* steps 1\."),
        ("0.25", "0.75", r"has damaged rows .* steps 1\."),
        ("0.25", "\udcff", r"has damaged rows .* steps 1\."),  # no UTF-8
        ("1,0.25", "1\x00,0.25", r"has lost rows .* steps 1\."),
        ("train/loss", "train/lass", r"has damaged rows .* steps 0, 1, 2\."),
        (None, None, r"has lost rows .* steps 0, 1, 2\."),
        ("step,", "stop,", r"has lost rows .* steps 0, 1, 2\."),
        ("1,0.25", '1,"0.25' + "x" * 200_000, r"has lost rows .* steps 1, 2\."),  # one cell, longer than csv reads
        ("1,0.25", "1" * 5000 + ",0.25", r"has lost rows .* steps 1\."),
        ("3,0.5", "3,0.5", None),
        ("step,", "\ufeffstep,", None),  # a spreadsheet's mark
    ],
)
def test_rows_that_were_lost_or_damaged_since_the_checkpoint_are_named(tmp_path, capsys, old, new, said):
    table = filled(tmp_path)
    table.log_metrics({"train/loss": 0.125}, step=2)
    table.log_metrics({"train/loss": 0.5}, step=3)
    table.save()
    table.log_metrics({"val/loss": 0.5}, step=3)  # the last row has more than when the checkpoint was written
    table.finalize("failed")
    text = table.path.read_text()
    assert old is None or old in text
    table.path.write_bytes(text.replace(old, new).encode(errors="surrogateescape")) if old else table.path.unlink()
    again = MetricsTable(tmp_path)
    again.continue_from(4, table.checksums | {3: 1})
    warning = capsys.readouterr().err
    assert re.search(said, warning) if said else not warning
    again.log_metrics({"train/loss": 0.5}, step=4)
    again.finalize("success")
    assert read(tmp_path)[-1]["step"] == "4"


@pytest.mark.parametrize("content", [None, "", "step\n", "step,x"])
def test_going_on_without_rows_starts_the_table(tmp_path, content):
    if content is not None:
        (tmp_path / "metrics.csv").write_text(content)
    table = MetricsTable(tmp_path)
    table.continue_from(3)
    assert table.path.exists() == (content is not None)
    table.log_metrics({"y": 1.0}, step=3)
    table.finalize("success")
    assert read(tmp_path) == [{"step": "3", "y": "1"}]


def test_a_new_run_takes_nothing_from_a_file_that_was_there_and_without_a_figure_leaves_none(tmp_path):
    MetricsTable(tmp_path).finalize("success")
    path = tmp_path / "metrics.csv"
    assert not path.exists()
    path.write_text("step,train/loss\n0,9.0\n")
    table = MetricsTable(tmp_path)
    table.log_metrics({"train/loss": 1.5}, 0)
    table.finalize("success")
    assert path.read_text() == "step,train/loss\n0,1.5\n"
