"""The rules of CONTRIBUTING.md that a reader of the code relies on: which way imports point, names, sizes."""

import ast
import re
import sys
import tomllib
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# what each package may import, besides itself
BELOW = {
    "common": [],
    "lora": ["common"],
    "datamodules": ["lora", "common"],
    "callbacks": ["datamodules", "lora", "common"],
    "lightning_modules": ["callbacks", "datamodules", "lora", "common"],
    "experiments": ["lightning_modules", "callbacks", "datamodules", "lora", "common"],
    "benchmarks": ["experiments", "lightning_modules", "callbacks", "datamodules", "lora", "common"],
}
PACKAGE_OF = {"yaml": "pyyaml", "sklearn": "scikit_learn"}
FILES = {name: sorted((ROOT / name).rglob("*.py")) for name in BELOW}
TREES = {path: ast.parse(path.read_text("utf-8")) for paths in FILES.values() for path in paths}


def imported(path, inside_functions=True):
    nodes = ast.walk(TREES[path]) if inside_functions else TREES[path].body
    for node in nodes:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
        yield from (name.partition(".")[0] for name in names)


@pytest.mark.parametrize("package", BELOW)
def test_imports_point_one_way(package):
    others = {*BELOW, "cli", "tests"} - {package, *BELOW[package]}
    assert not [(path.name, name) for path in FILES[package] for name in imported(path, False) if name in others]


def test_what_is_imported_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    asked = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    declared = {re.match(r"[\w-]+", one)[0].lower().replace("-", "_") for one in asked}
    found = {PACKAGE_OF.get(name, name) for path in TREES for name in imported(path)}
    assert found - declared - {*BELOW, *sys.stdlib_module_names} == set()


def test_no_two_public_classes_or_functions_have_one_name_and_no_file_is_long():
    defined = [node.name for tree in TREES.values() for node in tree.body if hasattr(node, "name")]
    twice = {name for name, count in Counter(defined).items() if count > 1 and not name.startswith("_")}
    assert twice == {"main"}  # of each program
    assert max(len(path.read_text("utf-8").splitlines()) for path in TREES) <= 300
