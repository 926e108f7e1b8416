"""A sweep's question: asked beforehand, hashed with grid and commit, and answered as often wrongly as it says."""

import json
import re

import numpy as np
import pandas as pd
import pytest
import yaml

import cli
from common.code_version import code_version
from common.errors import InputError
from experiments.report.answer import answers, improvement, verdict
from experiments.report.content import make_study
from experiments.report.sources import read_records
from experiments.report.statistics import PairedDifference, deviation_limit, pairs_for_power, power
from experiments.sweep import question as question_module
from experiments.sweep.claim import check_claim, claim
from experiments.sweep.definition import read_definition
from experiments.sweep.folder import SweepFolder
from experiments.sweep.question import Question, fingerprint
from tests.command_line import write_config
from tests.experiments import made_runs
from tests.experiments.sweeps import write_sweep

ASKED = {"compare": ["ours", "fixed"], "figure": "test", "at_least": 1.0}
DEFINITION = {
    "config": "made.yaml",
    "question": ASKED,
    "grid": {"seed_everything": [0, 1]},
    "methods": {"ours": {}, "fixed": {}},
}
QUESTION = Question(("ours", "fixed"), "test", 1.0)
COMMIT = "0123456789ab"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"compare": ["ours", "fixd"]}, "'fixd'; allowed: fixed, ours. Did you mean 'fixed'"),
        ({"compare": ["ours", "ours"]}, "two methods"),
        ({"compare": [["ours"], "fixed"]}, "question.compare is ['ours']; allowed: fixed, ours"),
        ({"figure": "tset"}, "question.figure is 'tset'; allowed: best, last, test"),
        ({"at_least": 0}, "question.at_least is 0; allowed"),
        ({"at_least": True}, "question.at_least is True"),
        ({"at_least": 10**400}, "question.at_least is 1000"),
        ({"alpha": 0.05}, "allowed: {compare: [A, B]"),
        ("seed_everything", "searched is 'seed_everything'; allowed: a list of settings, out of none"),
        (["seed_everything"], "searched is 'seed_everything'; allowed: none"),
        ([["model.rank"]], "searched is ['model.rank']; allowed: none"),
    ],
)
def test_a_question_that_names_what_isnt_there_is_refused(tmp_path, change, told):
    path = tmp_path / "sweep.yaml"
    wrong = {"question": {**ASKED, **change}} if isinstance(change, dict) else {"searched": change}
    path.write_text(yaml.safe_dump({**DEFINITION, **wrong}))
    with pytest.raises(InputError, match=re.escape(told)):
        read_definition(path)


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """A folder whose question was registered before its trials ran, all with the registered commit."""
    monkeypatch.setattr(question_module, "code_version", lambda: COMMIT)
    folder = SweepFolder(tmp_path / "sweep")
    claim(folder, DEFINITION)
    registered = (folder.path / "sweep.yaml").read_text()
    (folder.path / "sweep.yaml").unlink()
    folder.path.rmdir()
    figures = {"ours": {0: 0.70, 1: 0.72, 2: 0.71}, "fixed": {0: 0.60, 1: 0.61, 2: 0.62}}
    with monkeypatch.context() as patch:
        made = made_runs.results
        versions = {"versions": {"rankwise": COMMIT}}
        patch.setattr(made_runs, "results", lambda *given, **changes: made(*given, **{**changes, **versions}))
        made_runs.write_rate_sweep(folder.path, {name: (16, {1e-3: seeds}) for name, seeds in figures.items()})
    (folder.path / "sweep.yaml").write_text(registered)
    return folder


def answer(folder):
    records = read_records([folder.path])
    study = make_study(records, None)
    return answers([folder.path], records, study.groups, study.compared)


def test_an_unchanged_question_is_confirmatory_and_stays_so_when_the_sweep_is_run_again(asked):
    before = (asked.path / "sweep.yaml").read_text()
    claim(asked, DEFINITION)
    assert (asked.path / "sweep.yaml").read_text() == before
    assert answer(asked) == [
        "Confirmatory (asked beforehand, unchanged): ours better than fixed by 1 (test): shown to be better (+10.00 "
        "[+7.52, +12.48], 3 seeds)."  # SciPy's ttest_rel
    ]


def test_what_was_changed_later_makes_it_exploratory(asked):
    claim(asked, {**DEFINITION, "grid": {"seed_everything": [0, 1, 2]}})  # as --extend does
    assert answer(asked)[0].startswith("Exploratory (question or grid were changed after trials had begun): ")
    content = yaml.safe_load((asked.path / "sweep.yaml").read_text())
    for commit, reason in (("fedcba987654", "other code than fedcba987654"), (f"{COMMIT}-dirty", "no commit")):
        registered = {"commit": commit, "sha256": fingerprint(content, commit)}
        (asked.path / "sweep.yaml").write_text(yaml.safe_dump({**content, "registered": registered}))
        assert answer(asked)[0].startswith("Exploratory (") and reason in answer(asked)[0]
    (asked.path / "sweep.yaml").write_text(yaml.safe_dump(DEFINITION))
    assert "wasn't registered" in answer(asked)[0]


@pytest.mark.parametrize(("status", "kind"), [("paused", "Confirmatory"), ("waiting", "Exploratory (1 trials")])
def test_rates_that_were_stopped_early_arent_still_to_come(asked, status, kind):
    path = asked.path / "results.json"
    content = json.loads(path.read_text())
    overrides = {"model.optimizer.learning_rate": 0.1, "seed_everything": 0}
    content["trials"].append({"name": "ours-0.1-0", "method": "ours", "overrides": overrides, "results": None})
    content["trials"][-1]["status"] = status
    path.write_text(json.dumps(content))
    assert answer(asked)[0].startswith(kind)


@pytest.mark.parametrize("question", [{**ASKED, "at_least": 0.5}, None])
def test_a_question_cant_be_changed_once_trials_have_run(asked, question):
    later = {**DEFINITION, "question": question}
    before = (asked.path / "sweep.yaml").read_text()
    with pytest.raises(InputError, match=r"question is .*allowed: the question as it was asked"):
        check_claim(asked, later, {}, "command --extend", extend=True)
    assert (asked.path / "sweep.yaml").read_text() == before


def differences(generator, mean, deviation, pairs):
    return PairedDifference(pd.Series(generator.normal(mean, deviation, pairs)))


def shares(mean, deviation, pairs, draws=400):
    """How often simulated trials are called shown, ruled out and undecided."""
    generator = np.random.default_rng(0)
    told = [verdict(QUESTION, differences(generator, mean, deviation, pairs)) for _ in range(draws)]
    return [np.mean([word in one for one in told]) for word in ("shown", "ruled out", "undecided")]


@pytest.mark.parametrize(("deviation", "pairs"), [(2.0, 5), (1.0, 3), (0.5, 20)])
def test_without_a_difference_at_most_5_percent_are_shown(deviation, pairs):
    assert shares(0.0, deviation, pairs)[0] <= 0.05


@pytest.mark.parametrize("deviation", [0.5, 1.0, 2.0])
def test_at_the_promised_effect_the_promised_power_is_reached_and_it_is_seldom_ruled_out(deviation):
    pairs = pairs_for_power(deviation, 1.0)
    shown, ruled_out, undecided = shares(1.0, deviation, pairs)
    assert shown >= 0.76 and ruled_out <= 0.04  # 0.8 and 0.025 with two standard errors
    assert shown + ruled_out + undecided == pytest.approx(1)
    assert pairs == 2 or power(deviation, 1.0, pairs - 1) < 0.8


def test_seeds_counted_by_a_pilots_limit_have_the_power_in_80_percent_of_pilots():
    generator = np.random.default_rng(1)
    pilots = generator.normal(0, 1.5, (400, 5)).std(axis=1, ddof=1)
    reached = [power(1.5, 1.0, pairs_for_power(deviation_limit(one, 5), 1.0)) >= 0.8 for one in pilots]
    assert 0.75 <= np.mean(reached) <= 0.88


def test_an_undecided_answer_counts_the_seeds_that_decide():
    found = PairedDifference(pd.Series([2.0, -1.0, 1.5, -1.5, 0.5]))
    told = verdict(QUESTION, found)
    needed = 5 + int(told.split("; ")[1].split()[0])
    widths = {n: 2 * 2.0 * found.by_seed.std() / n**0.5 for n in (needed // 2, needed + 5)}  # t is about 2
    assert "undecided" in told and widths[needed // 2] > 1.0 > widths[needed + 5]
    assert "two are needed" in verdict(QUESTION, None)


def test_the_improvement_is_positive_where_lower_is_better(tmp_path):
    curves = {"ours": (16, {1e-3: {0: 18.0, 1: 19.0}}), "fixed": (16, {1e-3: {0: 20.0, 1: 20.0}})}
    study = make_study(read_records([made_runs.write_rate_sweep(tmp_path / "words", curves, "perplexity")]), None)
    found = improvement(Question(("ours", "fixed"), "best", 1.0), study.groups, study.compared)
    assert found.by_seed.tolist() == [2.0, 1.0]


@pytest.mark.slow
def test_a_dry_run_counts_seeds_from_a_pilot(tmp_path, tiny_bert, cola_folder, capsys):
    methods = {"ours": {}, "fixed": {"settings": {"data.batch_size": 4}}}
    config = write_config(tmp_path, tiny_bert, cola_folder)
    path = write_sweep(tmp_path, config, grid={"seed_everything": [0, 1]}, methods=methods, question=ASKED)
    pilot = {"ours": (16, {1e-3: {0: 0.70, 1: 0.72, 2: 0.71}}), "fixed": (16, {1e-3: {0: 0.70, 1: 0.71, 2: 0.72}})}
    trials = made_runs.write_rate_sweep(tmp_path / "pilot", pilot)
    assert cli.main(["sweep", "--config", str(path), "--runs_dir", str(tmp_path), "--dry_run"]) == 0
    assert "can't be told" in capsys.readouterr().out
    dry = ["sweep", "--config", str(path), "--runs_dir", str(tmp_path), "--dry_run", "--pilot", str(trials)]
    assert cli.main(dry) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert cli.main([*dry[:-1], "docs/results/rte_mpnet_equal_budget.json"]) == 2
    assert "question.compare is ['ours', 'fixed'], but the pilot" in capsys.readouterr().err
    assert "standard deviation 1.00 (80 % limit 2.12), so 80% power takes 10 seeds" in told
    assert "The sweep has 2: " in told and code_version() is not None
    write_sweep(tmp_path, config, grid={"seed_everything": [0, 1]}, methods=methods)
    assert cli.main(dry) == 2
    assert "but the sweep asks no question. Leave it out, or add" in capsys.readouterr().err
