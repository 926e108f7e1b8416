"""Files of trials: a report made from one says and draws what the report of the runs themselves does."""

import json

import pytest
import yaml

import cli
from common.errors import InputError
from experiments.report.command import run_report
from experiments.report.groups import make_groups
from experiments.report.sources import read_records
from tests.experiments import made_runs

CURVES = {
    "rank_16": (16, {1e-4: {0: 0.7, 1: 0.72}, 1e-3: {0: 0.81, 1: 0.8}}),
    "full": (None, {1e-4: {0: 0.9, 1: 0.88}}),
}


@pytest.fixture
def mixed_runs(tmp_path):
    """Adaptive runs by hand, one of them failed, one that diverged and one of full fine-tuning."""
    folder, budget = tmp_path / "runs", {"requested": 100.0, "used": 98.0}
    final = {"total": 3.0, "relative": 0.1, "layers": {"a": 1.0}, "relative_layers": {"a": 0.1}}
    norms = {"final": final, "initial": None}
    for seed in (0, 1):
        name, ranks = folder / f"run{seed}", [4, 5, 2, 8 - seed]
        made_runs.write_adaptive_run(name, seed, 0.6 + seed / 7, ranks, update_norms=norms, budget=budget)
    made_runs.write_run(folder / "bad", made_runs.adaptive_config(2), None)
    (folder / "bad" / "failure.json").write_text(json.dumps({"error": "out of memory", "attempts": 1}))
    diverged = made_runs.results("gone", 3, None, status="diverged")
    made_runs.write_run(folder / "gone", made_runs.config(1e-3, 3, None), diverged)
    (folder / "gone" / "metrics.csv").write_text("step,train/epoch_loss,val/loss\n4,0.9,0.8\n9,inf,nan\n")
    for path in folder.glob("*/config.yaml"):
        path.write_text(
            path.read_text().replace("batch_size: 8", "batch_size: 8\n    data_dir: /home/somebody/corpora/news")
        )
    return folder


def report(source, output, *options):
    assert cli.main(["report", str(source), "--output", str(output), *options]) == 0
    return output


def said(folder):
    """report.md without its title, the commands, and where the data lay."""
    text = (folder / "report.md").read_text().split("\n", 1)[1].split("```")[0]
    return [line for line in text.splitlines() if not line.startswith("| data folder")]


def assert_same_reports(first, second):
    assert said(first) == said(second)
    names = sorted(path.name for path in (first / "figures").iterdir())
    assert names and names == sorted(path.name for path in (second / "figures").iterdir())
    for name in names:
        assert (first / "figures" / name).read_bytes() == (second / "figures" / name).read_bytes(), name
    assert (first / "table.csv").read_text() == (second / "table.csv").read_text()


@pytest.mark.slow
def test_a_sweep_over_rates_is_told_and_drawn_alike(tmp_path):
    sweep = made_runs.write_rate_sweep(tmp_path / "rates", CURVES)
    kept = tmp_path / "kept.json"
    first = report(sweep, tmp_path / "first", "--baseline", "full", "--trials", str(kept))
    second = report(kept, tmp_path / "second", "--baseline", "full")
    assert_same_reports(first, second)
    assert (first / "differences.csv").read_text() == (second / "differences.csv").read_text()
    assert (second / "report.md").read_text().startswith("# kept\n")


@pytest.mark.slow
def test_runs_with_ranks_failures_and_losses_that_are_no_numbers(mixed_runs, tmp_path):
    kept = tmp_path / "kept.json"
    first = report(mixed_runs, tmp_path / "first", "--trials", str(kept))
    assert_same_reports(first, report(kept, tmp_path / "second"))
    assert any("out of memory" in line for line in said(tmp_path / "second"))
    assert list((tmp_path / "second" / "figures").glob("ranks_*"))
    text = kept.read_text()
    content = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert "somebody" not in text and str(tmp_path) not in text
    assert "layers" not in json.dumps([trial["results"] for trial in content["trials"]])
    assert content["about"]["data"]["name"] == "made/news"
    with pytest.raises(InputError, match="--output FOLDER"):
        run_report([str(kept)])
    assert not kept.with_suffix("").exists()


NONE = '"overrides": {}, "results": null'


@pytest.mark.parametrize(
    ("content", "told"),
    [
        *((content, "no file of trials") for content in ("not json", "[1, 2]", "[" * 100_000, '{"trials": [1]}')),
        *((content, "no file of trials") for content in ('{"status": "finished"}', '{"trials": [{"name": "a"}]}')),
        ('{"trials": [{"name": "a", "overrides": {}}]}', "no file of trials"),
        (f'{{"trials": [{{"name": "../a", {NONE}}}]}}', "allowed: folders inside it"),
        ('{"trials": [{"name": "a", "overrides": {}, "results": {"seed": 1}}]}', "it has no data"),
        ('{"trials": []}', "holds no runs"),
        (f'{{"trials": [{{"name": "a", {NONE}, "ranks": {{"layers": {{}}}}}}]}}', "no file of trials"),
        (f'{{"trials": [{{"name": "a", {NONE}, "metrics": {{"val/loss": [1]}}}}]}}', "no file of trials"),
        (f'{{"about": [], "trials": [{{"name": "a", {NONE}}}]}}', "no file of trials"),
    ],
)
def test_other_files_are_refused(tmp_path, content, told):
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(InputError, match=told):
        run_report([str(path), "--output", str(tmp_path / "page")])
    assert not (tmp_path / "page").exists()


@pytest.mark.slow
def test_only_a_file_of_trials_is_written_over(tmp_path):
    sweep = made_runs.write_rate_sweep(tmp_path / "rates", CURVES)
    before = (sweep / "results.json").read_bytes()
    for place in (sweep / "results.json", sweep):
        with pytest.raises(InputError, match=r"--trials is .*no file of trials. Choose another name"):
            run_report([str(sweep), "--output", str(tmp_path / "page"), "--trials", str(place)])
    assert (sweep / "results.json").read_bytes() == before and not (tmp_path / "page").exists()
    kept = tmp_path / "kept.json"
    for _ in range(2):
        report(sweep, tmp_path / "page", "--trials", str(kept))
    assert len(read_records([kept])) == 6


@pytest.mark.slow
def test_trials_of_one_name_from_two_sweeps_are_all_kept(tmp_path):
    sweeps = [made_runs.write_rate_sweep(tmp_path / name / "rates", CURVES) for name in ("first", "second")]
    for folder in sweeps[1].glob("*/config.yaml"):
        folder.write_text(folder.read_text() + f"runs_dir: {tmp_path}\n")
    kept = tmp_path / "kept.json"
    assert run_report([*map(str, sweeps), "--output", str(tmp_path / "page"), "--trials", str(kept)]) == 0
    assert len(read_records(sweeps)) == len(read_records([kept])) == len(read_records([kept, kept])) == 12
    assert str(tmp_path) not in kept.read_text()


def write_seeds(folder, seeds, data_dir, **settings):
    """Runs that differ in nothing but the seed; `settings` are the trainer's."""
    for seed in seeds:
        content = {**made_runs.config(1e-3, seed, 16), "trainer": settings}
        content["data"]["init_args"]["data_dir"] = data_dir
        made_runs.write_run(folder / f"run{seed}", content, made_runs.results(f"run{seed}", seed, 0.8))
    return folder


def kept_file(folder):
    path = folder.with_suffix(".json")
    report(folder, folder.parent / "page", "--trials", str(path))
    return path


def seeds_of(*sources):
    return [[record.seed for record in group.records] for group in make_groups(read_records(list(sources)))]


@pytest.mark.parametrize("data_dir", [None, "data/news", "/home/somebody/corpora/news"])
def test_new_seeds_in_a_folder_join_the_rows_of_a_file(tmp_path, data_dir):
    file = kept_file(write_seeds(tmp_path / "first", (0, 1), data_dir))
    elsewhere = data_dir and data_dir.replace("somebody", "somebody_else")
    assert seeds_of(file, write_seeds(tmp_path / "second", (2, 3), elsewhere)) == [[0, 1, 2, 3]]


@pytest.mark.parametrize(("told", "rows"), [("float32", [[0, 1]]), ("bfloat16", [[0], [1]])])
def test_runs_from_before_a_setting_existed_differ_only_from_those_that_changed_it(tmp_path, told, rows):
    runs = write_seeds(tmp_path / "runs", (0, 1), None)
    later = runs / "run1" / "config.yaml"
    settings = yaml.safe_load(later.read_text())
    settings["model"]["init_args"]["backbone_dtype"] = told
    later.write_text(yaml.safe_dump(settings))
    assert seeds_of(runs) == seeds_of(kept_file(runs)) == rows


@pytest.mark.slow
def test_data_from_other_folders_is_another_row_in_files_as_in_folders(tmp_path):
    folders = [write_seeds(tmp_path / name, seeds, f"/data/{name}") for name, seeds in (("a", (0, 1)), ("b", (2,)))]
    files = [kept_file(folder) for folder in folders]
    assert seeds_of(*folders) == seeds_of(*files) == seeds_of(files[0], folders[1]) == [[0, 1], [2]]


def test_one_batch_is_not_all_batches(tmp_path):
    runs = write_seeds(tmp_path / "runs", (0,), None, limit_train_batches=1)
    write_seeds(runs, (1,), None, limit_train_batches=1.0)
    assert seeds_of(runs) == seeds_of(kept_file(runs)) == [[0], [1]]


def test_no_path_of_any_setting_and_no_error_names_the_machines_folders(tmp_path):
    runs = tmp_path / "runs"
    for seed in (0, 1):
        settings = made_runs.config(1e-3, seed, 16)
        settings["model"]["init_args"]["backbone"] = "/home/somebody/models/small"
        settings["data"]["init_args"]["train_file"] = f"/home/somebody/tables/part{seed}.csv"
        outcome = made_runs.results(f"run{seed}", seed, 0.8, backbone="/home/somebody/models/small")
        made_runs.write_run(runs / f"run{seed}", settings, None if seed else outcome)
    told = "there is no /home/somebody/tables/part1.csv"
    (runs / "run1" / "failure.json").write_text(json.dumps({"error": told, "attempts": 1}))
    file = kept_file(runs)
    assert "somebody" not in file.read_text()
    first, second = read_records([file])
    assert [record.config["data.train_file"] for record in (first, second)] == ["part0.csv", "part1.csv"]
    assert (first.results.backbone, second.error) == ("small", "there is no part1.csv")
