"""Files that no run of ours wrote get one message that names them; names and labels stay text in every file."""

import csv
import itertools
import json
import re
from dataclasses import replace

import pytest

import cli
from common.errors import InputError
from common.files import write_text
from experiments.report.command import markdown, page, rate_layouts
from experiments.report.content import Pictures, make_study
from experiments.report.figures_ranks import RankSets, allocating, allocation_figures
from experiments.report.sections import gather
from experiments.report.sources import read_records
from tests.experiments import made_runs


def refused(capsys, folder, *told):
    """Whether a report of the folder ends with one short message that says all this."""
    assert cli.main(["report", str(folder), "--output", str(folder / "page")]) == 2
    message = capsys.readouterr().err
    assert "Traceback" not in message and len(message.splitlines()) <= 10
    for part in told:
        assert str(part) in message
    return True


@pytest.mark.parametrize(
    ("content", "expected"),
    [(None, "there is no folder or file"), ({}, "holds no runs"), ({"results.json": '{"trials": ['}, "can't be read")],
)
def test_bad_folders_get_one_message(tmp_path, capsys, content, expected):
    folder = tmp_path / "runs"
    if content is not None:
        folder.mkdir()
        for name, text in content.items():
            (folder / name).write_text(text)
    assert refused(capsys, folder, expected)


@pytest.fixture
def runs(tmp_path):
    """Two adaptive runs."""
    for seed in (0, 1):
        made_runs.write_adaptive_run(tmp_path / f"run{seed}", seed, 0.5, [4, 5, 2, 8])
    return tmp_path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *(("results.json", content) for content in (b"{}", b"[" * 100_000, b'{"run_name": "\\ud800"}')),
        *(("config.yaml", content) for content in (b"a: [1", b"a: \xe9", None)),
        *(("metrics.csv", b"step,val/loss\n" + rows) for rows in (b"4,\xff\n", b"x,1\n", b"1,2\n1,2,3,4\n")),
        ("metrics.csv", b"step,val/loss\n" + b"9" * 400 + b",1\n"),
        *(("ranks.json", content) for content in (b"{", b"{}")),
    ],
)
def test_a_damaged_or_missing_file_of_a_run_is_named(runs, capsys, name, content):
    path = runs / "run0" / name
    path.unlink() if content is None else path.write_bytes(content)
    assert refused(capsys, runs, path if content is not None else f"{path.parent} holds results, but no {name}")


WRONG = (None, "a", -1.5, [], {"a": "b"})


@pytest.mark.slow
@pytest.mark.parametrize("name", ["results.json", "ranks.json"])
def test_a_part_of_a_wrong_type_is_named_or_harmless(runs, name):
    """Each part of both files in turn, down to lists' first entries, with values of every other kind."""
    path = runs / "run0" / name
    whole = path.read_text()
    outcomes = set()
    for place, value in itertools.product(list(places(json.loads(whole))), WRONG):
        content = json.loads(whole)
        part = content
        for key in place[:-1]:
            part = part[key]
        part[place[-1]] = value
        path.write_text(json.dumps(content))
        try:
            study = make_study(read_records([runs]), None)
            markdown("runs", gather(study, [runs], [], Pictures(None))), rate_layouts(study.curves)
            for sets in map(RankSets.of, filter(allocating, study.groups) if name == "ranks.json" else ()):
                [draw() for _, _, draw in allocation_figures(sets, sets.extremes)]
        except InputError as error:
            assert str(path.parent) in str(error)
            outcomes.add("refused")
        else:
            outcomes.add("harmless")
    assert outcomes == {"refused", "harmless"}


def places(part, above=()):
    """The keys that lead to each value inside, lists by their first entry."""
    keys = part if isinstance(part, dict) else range(min(len(part), 1)) if isinstance(part, list) else ()
    for key in keys:
        yield (*above, key)
        yield from places(part[key], (*above, key))


@pytest.mark.parametrize("trials", [3, [3], [{}], [{"results": None}]])
def test_a_summary_that_no_sweep_wrote_is_refused(tmp_path, capsys, trials):
    (tmp_path / "results.json").write_text(json.dumps({"trials": trials}))
    assert refused(capsys, tmp_path, "isn't what this version writes")


def test_a_damaged_failure_is_named(tmp_path, capsys):
    made_runs.write_run(tmp_path / "run0", made_runs.config(0.1, 0, 4), None)
    (tmp_path / "run0" / "failure.json").write_text("{")
    assert refused(capsys, tmp_path, "failure.json can't be read")


def test_a_sweep_in_which_no_run_was_sound_has_a_report(tmp_path):
    curves = {"a": (4, {1e-3: {0: 0.5}, 1e-2: {0: 0.5}})}
    made_runs.write_rate_sweep(tmp_path / "x", curves, change=lambda trial: trial["results"].update(status="collapsed"))
    assert cli.main(["report", str(tmp_path / "x")]) == 0


def test_names_that_no_file_can_have_or_that_look_alike_are_files_of_their_own(tmp_path):
    names = ["a b", "a_b", "A/B", "a\x00b", "x" * 300, "漢" * 100]
    curves = {name: (4, {1e-3: {0: 0.5}, 1e-2: {0: 0.6}}) for name in names}
    study = make_study(
        read_records([made_runs.write_rate_sweep(tmp_path / "x", dict.fromkeys("abcdef", curves["a b"]))]), None
    )
    layouts = rate_layouts([replace(curve, label=name) for curve, name in zip(study.curves, names, strict=True)])
    assert len({name.lower() for name in layouts}) == len(names)
    for name in layouts:
        write_text(tmp_path / f"{name}.json", "")


@pytest.mark.slow
def test_ranks_whose_layers_or_bounds_do_not_fit_are_named(runs, capsys):
    config, ranks = runs / "run0" / "config.yaml", runs / "run0" / "ranks.json"
    whole = config.read_text()
    config.write_text(whole.replace("rank_min: 2", "rank_min: low"))
    assert refused(capsys, runs, runs / "run0", "rank_min is 'low'")
    config.write_text(whole)
    ranks.write_text(ranks.read_text().replace("layer.1.", "layer.7."))
    assert refused(capsys, runs, "names other layers", runs / "run0", runs / "run1")


@pytest.mark.slow
def test_names_and_labels_are_text_in_markdown_and_in_spreadsheets(tmp_path):
    names = ['=HYPERLINK("x")', "+1+1", "-2+3", "@SUM(A1)", "<b>bold", "_all_ *of* it", "[a](http:x)", "a|b"]
    curves = {name: (rank, {1e-3: {0: 0.5, 1: 0.6}}) for rank, name in enumerate(names, start=1)}
    made_runs.write_rate_sweep(tmp_path / "<i>sweep", curves)
    assert cli.main(["report", str(tmp_path / "<i>sweep"), "--baseline", "a|b"]) == 0
    with (tmp_path / "<i>sweep" / "table.csv").open(newline="") as file:
        rows = {row["Method"]: row["Difference to baseline"] for row in csv.DictReader(file)}
    assert set(rows) == {f"'{name}" for name in names[:4]} | set(names[4:])
    assert rows.pop("a|b") == "baseline" and set(rows.values()) == {"+0.00 (2 pairs)"}
    text = (tmp_path / "<i>sweep" / "report.md").read_text()
    told = text.split("```")[0]  # the commands stand in a block of code
    assert "# &lt;i>sweep\n" in told and not re.search(r"<\w", told)
    for part in (r"| \_all\_ \*of\* it |", r"| [a]\(http:x) |", r"| a\|b |", r"Differences to a\|b:"):
        assert part in told


@pytest.mark.parametrize("write", [markdown, page])
def test_no_name_moves_a_terminals_cursor_or_ends_a_page(write):
    assert "a\ufffdb\ufffd[2Jc\ufffdd\ufffdé" in write("a\x00b\x1b[2Jc\x9bd\u202eé", [])
