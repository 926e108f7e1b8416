"""Commands in README and documents: those that use a run are carried out on a tiny one.

`fit` and `sweep` are not: most need a model from the hub, a data set or hours. Their settings are parsed instead.
"""

import re
import shlex
import shutil
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

import cli
from experiments.config_files import locate_config
from experiments.report import command as report_command
from experiments.settings import parse
from experiments.sweep import command as sweep_command
from experiments.sweep.definition import make_trials, read_definition, with_settings

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_BLOCK = re.compile(r"^```\w*\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)  # of any language: fences come in pairs
_INLINE = re.compile(r"`([^`\n]+(?:\n[^`\n]+)?)`")
NAMES = ("cola_adaptive", "runs/cola_adaptive", "runs/NAME", "cola", "letters", "quickstart")  # of runs
_LEFT_OPEN = ("…", "$", "SOURCE", " X ")  # what the reader fills in
_OPENING = re.compile(r"^(?:\.venv/bin/)?(python -m|pytest|make|pip install) ([\w./-]+)")


def lines() -> list[str]:
    """Each line of the blocks of all pages, and each piece of inline code."""
    found: list[str] = []
    for page in PAGES:
        text = page.read_text("utf-8")
        found += [line for block in _BLOCK.findall(text) for line in block.replace("\\\n", " ").splitlines()]
        found += [" ".join(code.split()) for code in _INLINE.findall(_BLOCK.sub("", text))]
    return [line.strip() for line in found]


def commands(*verbs: str) -> list[str]:
    """What follows `python cli.py` with one of these verbs, each once."""
    asked = [part for line in lines() for part in re.findall(r"python cli\.py ([^&]*)", line)]
    found = [re.sub(r"\s+#.*", "", part).strip() for part in asked if not any(mark in part for mark in _LEFT_OPEN)]
    return sorted({command for command in found if command.partition(" ")[0] in verbs})


def test_every_verb_is_known():
    used = {line.partition("python cli.py ")[2].split(" ")[0] for line in lines() if "python cli.py " in line}
    assert used - {"VERB", ""} <= {*cli.VERBS, "--help", "--version"}
    assert len(commands(*cli.VERBS)) > 60


@pytest.mark.parametrize("command", commands("fit"))
def test_the_settings_of_a_fit_exist(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    words = [word for word in shlex.split(command) if word not in ("--print_config", "--help")]
    assert parse(words).verb == "fit"  # an unknown setting is refused


@pytest.mark.parametrize("command", [command for command in commands("sweep") if "ranks.yaml" not in command])
def test_a_sweep_and_the_settings_of_its_trials_exist(command):
    options, rest = sweep_command._parser().parse_known_args(shlex.split(command)[1:])
    trials = make_trials(with_settings(read_definition(locate_config(options.config)), sweep_command._settings(rest)))
    configs = [f"--config={path}" for path in trials[0].configs]
    assert parse(["fit", *configs, *rest]).verb == "fit"


@pytest.mark.parametrize("command", commands("report"))
def test_the_options_and_files_of_a_report_exist(command):
    for source in report_command._parser().parse_args(shlex.split(command)[1:]).sources:
        assert source.suffix != ".json" or (ROOT / source).is_file() or "/" not in str(source), source


@pytest.fixture(scope="module")
def places(finished_run, tmp_path_factory) -> dict[str, str]:
    """A finished run, its exports and files of texts, by the names that stand for such in the pages."""
    folder = tmp_path_factory.mktemp("commands")
    run = folder / "tiny"
    shutil.copytree(finished_run[1] / "tiny", run)
    assert cli.main(["export", str(run), "--format", "peft", "--output", str(folder / "peft")]) == 0
    (folder / "lines.txt").write_text("the cat sees a dog\nbig birds hear small cats\n")
    files = dict.fromkeys(("sentences.txt", "new_letters.txt", "FILE"), str(folder / "lines.txt"))
    exports = dict.fromkeys(("runs/cola_adaptive/exports/peft", "DIR", "FOLDER"), str(folder / "peft"))
    return {"RUN": str(run), **files, **exports}


def uses() -> list[str]:
    """Commands that use a run, each once whatever the run is called."""
    asked = map(shlex.split, commands("validate", "test", "predict", "export"))
    return sorted({shlex.join("RUN" if word in NAMES else word for word in words) for words in asked})


@pytest.mark.slow
@pytest.mark.parametrize("command", uses())
def test_a_command_that_uses_a_run_does_so(command, places, tmp_path, capfd):
    asked = [places.get(word, word) for word in shlex.split(command.replace(" --output FOLDER", ""))]
    if asked[0] == "export":
        asked += ["--output", str(tmp_path / "export")]
    assert cli.main(asked) == 0, capfd.readouterr().err


def test_modules_tests_targets_and_extras_exist():
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    opened = [match.groups() for line in lines() if (match := _OPENING.match(line))]
    assert len(opened) > 40
    for program, name in opened:
        if program == "python -m":
            # asked for pip, setuptools' hook would give Python's own distutils to the compilations of later tests
            assert name == "pip" or find_spec(name) is not None, name
        elif program == "pytest":
            assert (ROOT / name).exists(), name
        elif program == "make":
            assert name in targets, name
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    assert {name for line in lines() for name in re.findall(r"-e '\.\[(\w+)\]'", line)} <= set(extras)


def test_each_fault_names_tests_that_exist():
    rows = [line for line in (ROOT / "docs" / "faults.md").read_text("utf-8").splitlines() if line.startswith("| ")]
    named = [re.findall(r"`([\w/]+\.py)::(\w+)`", row) for row in rows[2:]]
    assert len(named) > 60 and all(named)
    for file, name in (test for tests in named for test in tests):
        assert re.search(rf"^def {name}\(", (ROOT / "tests" / file).read_text("utf-8"), re.MULTILINE), (file, name)


def test_the_tutorials_sweep_has_its_trials(tmp_path):
    page = (ROOT / "docs" / "tutorials" / "which_rank.md").read_text("utf-8")
    path = tmp_path / "ranks.yaml"
    path.write_text(re.search(r"```yaml\n(.*?)```", page, re.DOTALL)[1])
    assert len(make_trials(read_definition(path))) == 12


def test_the_readmes_yaml_is_the_config_it_names():
    page = (ROOT / "README.md").read_text("utf-8")
    shown, name = re.search(r"```yaml\n(.*?)```\s+This is `(.*?)`", page, re.DOTALL).groups()
    assert yaml.safe_load(shown) == yaml.safe_load((ROOT / name).read_text("utf-8"))
