"""Commands in README and documents are understood: verbs, configs and options exist. None is carried out."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

import cli
from experiments.config_files import locate_config
from experiments.settings import parse
from experiments.sweep.definition import make_trials, read_definition

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_BLOCK = re.compile(r"^```\w*\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)  # of any language: fences come in pairs
_LEFT_OPEN = ("…", "$")  # what the reader fills in


def commands() -> list[str]:
    """What follows `python cli.py` in the blocks of all pages, each once."""
    lines = [line for page in PAGES for block in _BLOCK.findall(page.read_text("utf-8")) for line in joined(block)]
    found = {line.partition("python cli.py ")[2].strip() for line in lines}
    return sorted(command for command in found if command and not any(mark in command for mark in _LEFT_OPEN))


def joined(block: str) -> list[str]:
    return block.replace("\\\n", " ").splitlines()


def test_there_are_commands():
    assert len(commands()) > 40


@pytest.mark.parametrize("command", commands())
def test_a_command_is_understood(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    verb, *options = shlex.split(command, comments=True)
    assert verb in cli.VERBS
    if verb == "fit":
        parse([verb, *(option for option in options if option != "--print_config")])
    if verb == "sweep" and "ranks.yaml" not in options:  # that one stands in the tutorial
        read_definition(locate_config(options[options.index("--config") + 1]))


def test_the_tutorials_sweep_has_its_trials(tmp_path):
    page = (ROOT / "docs" / "tutorials" / "which_rank.md").read_text("utf-8")
    path = tmp_path / "ranks.yaml"
    path.write_text(re.search(r"```yaml\n(.*?)```", page, re.DOTALL)[1])
    assert len(make_trials(read_definition(path))) == 12


def test_the_readmes_yaml_is_the_config_it_names():
    page = (ROOT / "README.md").read_text("utf-8")
    shown, name = re.search(r"```yaml\n(.*?)```\s+This is `(.*?)`", page, re.DOTALL).groups()
    assert yaml.safe_load(shown) == yaml.safe_load((ROOT / name).read_text("utf-8"))
