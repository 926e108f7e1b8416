"""Grids against itertools, formulas against Python, and what bad grids get."""

import itertools
import re

import pytest
import yaml

from common.errors import InputError
from experiments.config_files import CONFIGS, load_yaml
from experiments.sweep.definition import make_trials, read_definition, with_settings
from experiments.sweep.expressions import evaluate
from experiments.sweep.grid import expand


def overrides(definition, base=None):
    trials = expand({"config": "quickstart.yaml", **definition}, lambda configs: base or {})
    return [trial.overrides for trial in trials]


def test_a_grid_is_the_product_in_the_order_of_the_file():
    grid = {"seed_everything": [0, 1, 2], "data.batch_size": [8, 16], "trainer.max_epochs": [1, 5]}
    expected = [dict(zip(grid, row)) for row in itertools.product(*grid.values())]
    assert overrides({"grid": grid}) == expected


def test_zipped_values_advance_together_and_multiply_the_grid():
    pairs = {"alpha_growth.alpha_min": [0.5, 0.1, 0.01], "alpha_growth.alpha_max": [3, 5, 10]}
    found = overrides({"grid": {"seed_everything": [0, 1]}, "zip": pairs})
    expected = [
        {"seed_everything": seed, "alpha_growth.alpha_min": low, "alpha_growth.alpha_max": high}
        for seed in (0, 1)
        for low, high in ((0.5, 3), (0.1, 5), (0.01, 10))
    ]
    assert found == expected


def test_listed_trials_multiply_the_grid():
    listed = [{"data.batch_size": 8}, {"data.batch_size": 16, "data.max_length": 64}]
    found = overrides({"grid": {"seed_everything": [0, 1]}, "trials": listed})
    assert found == [{"seed_everything": seed, **one} for seed in (0, 1) for one in listed]


def test_methods_have_their_own_configs_grids_and_settings():
    definition = {
        "config": "quickstart.yaml",
        "settings": {"trainer.max_epochs": 2},
        "grid": {"seed_everything": [0, 1]},
        "methods": {
            "small": {"grid": {"model.adapter.rank_max": [10, 12]}},
            "other": {"config": "debug.yaml", "settings": {"trainer.max_epochs": 1}},
        },
    }
    found = expand(definition, lambda configs: {})
    small = ("small", ("quickstart.yaml",), {"trainer.max_epochs": 2})
    other = ("other", ("debug.yaml",), {"trainer.max_epochs": 1})
    assert [(trial.method, trial.configs, trial.settings) for trial in found] == [small, small, other] * 2
    assert found[0].overrides == {"seed_everything": 0, "model.adapter.rank_max": 10}


@pytest.mark.parametrize("place", ["first", "last", "zip"])
def test_all_trials_of_a_seed_come_before_those_of_the_next(place):
    """Cut off after any whole seed, every method and setting can be compared on the seeds there are."""
    rates, seeds = {"model.optimizer.learning_rate": [1e-3, 1e-4]}, {"seed_everything": [7, 0]}
    grid = {"first": {**seeds, **rates}, "last": {**rates, **seeds}, "zip": rates}[place]
    definition = {"grid": grid, "methods": {"one": {}, "two": {}}} | ({"zip": seeds} if place == "zip" else {})
    found = [(seed, method, rate) for seed in (7, 0) for method in ("one", "two") for rate in (1e-3, 1e-4)]
    trials = expand({"config": "quickstart.yaml", **definition}, lambda configs: {})
    names = ("seed_everything", "model.optimizer.learning_rate")
    assert [(trial.overrides[names[0]], trial.method, trial.overrides[names[1]]) for trial in trials] == found


def test_derived_values_follow_the_trial_and_the_base_config():
    base = {"data.batch_size": 32}
    derived = {"model.adapter.alpha": "10 * model.adapter.rank", "data.max_length": "max(data.batch_size // 2, 7) + 1"}
    found = overrides({"grid": {"model.adapter.rank": [16, 64]}, "derived": derived}, base)
    assert [one["model.adapter.alpha"] for one in found] == [160, 640]
    assert [one["data.max_length"] for one in found] == [17, 17]


@pytest.mark.parametrize("formula", ["2 ** 3 - 1 / 4", "sqrt(16) + round(2.6)", "-min(3, 2) % 5", "log10(1000)"])
def test_formulas_are_pythons_arithmetic(formula):
    import math

    assert evaluate({"x": formula}, {}, {})["x"] == eval(formula, {"sqrt": math.sqrt, "log10": math.log10})
    assert evaluate({"x": "round(5, -10**9)"}, {}, {})["x"] == 0  # Python works out 10 ** 10**9 first


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        ("__import__('os')", "not allowed"),
        ("model.rnk * 2", "model.rnk"),
        ("1 +", "invalid syntax"),
        ("1 / 0", "division by zero"),
        ("'a' * 3", "'a' is no finite number"),
        ("model.name * 3", "model.name is no finite number"),
        ("min(1, 2, key=3)", "min(1, 2, key=3) is not allowed"),
        ("9**9**9", "9 ** 387420489 is too large"),
        ("2**10**9", "2 ** 1000000000 is too large"),
        ("(-1)**0.5", "(-1) ** 0.5 is no finite number"),
        ("1e200 * 1e200", "1e+200 * 1e+200 is no finite number"),
        ("10.0 ** 400", "out of range"),
        ("2**62 * 4", "2 ** 62 * 4 is no finite number"),
        ("1 + " * 300 + "1", "1,201 characters"),
        ("-" * 990 + "1", "recursion"),
        ("(" * 400 + "1" + ")" * 400, "nested parentheses"),
    ],
)
def test_a_formula_that_cannot_be_worked_out_is_named(formula, expected):
    with pytest.raises(InputError, match=re.escape(expected)):
        evaluate({"x": formula}, {"model.rank": 2, "model.name": "made"}, {})


@pytest.mark.parametrize(
    ("definition", "expected"),
    [
        ({}, "the grid is empty"),
        ({"grid": {"seed_everything": []}}, "grid.seed_everything is []"),
        ({"zip": {"a": [1, 2], "b": [1]}}, "a has 2, b has 1"),
        ({"grid": {"a": [1]}, "zip": {"a": [2]}}, "a is set by two parts"),
        ({"grid": {"a": [1, 1]}}, "the same trial twice"),
        ({"grid": {f"a{axis}": list(range(10)) for axis in range(9)}}, "the grid has 1,000,000,000 trials"),
        ({"grid": {"a": [1]}, "derived": {"a": "2"}}, "both in the grid and derived"),
        ({"methods": {"one": {"grids": {}}}}, "'grids'"),
        ({"trials": []}, "trials is []"),
        ({"methods": {"results.json": {}, "b": {}}}, "called 'results.json'"),
        ({"methods": {"Sweep": {}, "b": {}}}, "called 'Sweep'"),
        ({"methods": {"report.html": {"settings": {"a": 1}}, "b": {}}}, "called 'report.html'"),
        ({"config": None, "grid": {"a": [1]}}, "config of the sweep file is None"),
    ],
)
def test_a_bad_grid_is_explained(definition, expected):
    with pytest.raises(InputError, match=re.escape(expected)):
        make_trials({"config": "quickstart.yaml", **definition})


def write(folder, content):
    path = folder / "made.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


def test_numbers_like_1e_4_are_numbers_and_names_tell_the_trials_apart(tmp_path):
    text = "config: quickstart.yaml\ngrid:\n  model.optimizer.learning_rate: [1e-4, 3.0e-4]\n  seed_everything: [0]\n"
    trials = make_trials(read_definition(write(tmp_path, text)))
    assert [trial.overrides["model.optimizer.learning_rate"] for trial in trials] == [1e-4, 3e-4]
    assert [trial.name for trial in trials] == [f"learning_rate_0.000{one}-seed_everything_0" for one in (1, 3)]


def test_the_config_of_one_run_is_no_sweep_file():
    with pytest.raises(InputError, match=r"python cli.py fit --config \S+quickstart.yaml"):
        read_definition(CONFIGS / "quickstart.yaml")


@pytest.mark.parametrize("text", ["", "- a", "config: [", "config: quickstart.yaml\ngrids: {}"])
def test_a_file_that_is_no_sweep_is_refused(tmp_path, text):
    with pytest.raises(InputError):
        read_definition(write(tmp_path, text))


def test_what_is_typed_holds_for_every_trial_unless_the_sweep_varies_it():
    definition = {
        "config": "quickstart.yaml",
        "grid": {"seed_everything": [0, 1]},
        "methods": {"a": {"settings": {"trainer.max_epochs": 9}}, "b": None},
    }
    trials = make_trials(with_settings(definition, {"trainer.max_epochs": 1}))
    assert len(trials) == 4 and all(trial.settings == {"trainer.max_epochs": 1} for trial in trials)
    with pytest.raises(InputError, match="the sweep varies it"):
        with_settings(definition, {"seed_everything": 3})


@pytest.mark.parametrize("path", sorted((CONFIGS / "sweeps").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_sweep_opens_with_its_command_trials_and_time_and_expands(path):
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert f"python cli.py sweep --config sweeps/{path.name}" in "\n".join(header)
    assert any(line.startswith("# time:") for line in header) and any(line.startswith("# expected:") for line in header)
    said = next(int(re.match(r"# trials:\s+(\d+)", line)[1]) for line in header if line.startswith("# trials:"))
    assert len(make_trials(read_definition(path))) == said


GRID = "config: quickstart.yaml\ngrid: {seed_everything: [0, 1]}\n"


@pytest.mark.parametrize(
    "text", ["trials: 3", *(f"methods: {it}" for it in ("[a, b]", "a", "{a: x}", "{a: [x]}", "{a: {settings: [1]}}"))]
)
def test_a_part_of_the_wrong_form_is_refused_whatever_is_typed(tmp_path, text):
    for typed in ({}, {"trainer.max_epochs": 1}):
        with pytest.raises(InputError, match="allowed:"):
            make_trials(with_settings(read_definition(write(tmp_path, f"{GRID}{text}\n")), typed))


def test_a_setting_is_the_same_with_and_without_init_args(tmp_path):
    text = """
config: quickstart.yaml
grid: {model.init_args.optimizer.init_args.learning_rate: [0.1, 0.2]}
derived: {model.init_args.optimizer.head_learning_rate: 2 * model.optimizer.learning_rate}
methods: {a: {settings: {data.init_args.batch_size: 4}}, b: null}
"""
    definition = read_definition(write(tmp_path, text))
    trials = make_trials(definition)
    expected = [
        {"model.optimizer.learning_rate": rate, "model.optimizer.head_learning_rate": 2 * rate} for rate in (0.1, 0.2)
    ]
    assert [trial.overrides for trial in trials] == expected * 2
    assert trials[0].settings == {"data.batch_size": 4}
    with pytest.raises(InputError, match="the sweep varies it"):
        with_settings(definition, {"model.init_args.optimizer.learning_rate": 0.5})


def test_a_date_is_text(tmp_path):
    definition = read_definition(write(tmp_path, f"{GRID}settings: {{data.dataset_revision: 2024-05-01}}\n"))
    typed = load_yaml("2024-05-02")
    assert make_trials(definition)[0].settings == {"data.dataset_revision": "2024-05-01"}
    trials = make_trials(with_settings(definition, {"model.revision": typed}))
    assert trials[0].settings["model.revision"] == "2024-05-02"


@pytest.mark.parametrize("name", ["run_name", "runs_dir", "ckpt_path", "overwrite", "config", "trainer.fast_dev_run"])
def test_what_the_sweep_says_itself_cannot_be_set(tmp_path, name):
    for text, typed in ((f"config: quickstart.yaml\ngrid: {{{name}: [a, b]}}", {}), (GRID, {name: "last"})):
        with pytest.raises(InputError, match=f"{name} is set for the trials"):
            make_trials(with_settings(read_definition(write(tmp_path, text)), typed))


def test_names_stay_unique_short_and_plain(tmp_path):
    adapters = [{"class_path": "lora.LoRAXS", "init_args": {"rank": rank, "targets": ["x" * 150]}} for rank in (1, 2)]
    grid = {"model.adapter": adapters, "data.data_dir": ["/a b", "/a_b"]}
    names = [trial.name for trial in make_trials({"config": "quickstart.yaml", "grid": grid})]
    assert len(set(names)) == 4
    assert all(len(name) <= 120 and re.fullmatch(r"[A-Za-z0-9._+-]+", name) for name in names)


def test_names_that_differ_in_case_alone_are_two_folders_everywhere(tmp_path):
    text = "config: quickstart.yaml\ngrid: {seed_everything: [0]}\nmethods: {A: {}, a: {}, b: {}}\n"
    names = [trial.name for trial in make_trials(read_definition(write(tmp_path, text)))]
    assert len({name.lower() for name in names}) == 3
    assert names[2] == "b-seed_everything_0"
