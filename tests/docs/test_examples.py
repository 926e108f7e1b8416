"""The examples do what the documents say of them, on a tiny model."""

import ast
import re
from pathlib import Path

from examples import library
from tests import tiny

ROOT = Path(__file__).resolve().parents[2]


def test_the_library_example_trains_with_everything_its_method_needs(tmp_path, capsys):
    module = library.main(str(tiny.save_tiny_bert(tmp_path / "bert", hidden=32)), sentences=64, epochs=2)
    allocation = module.rank_allocation
    assert allocation.alpha == 3.0 and allocation.is_discrete
    ranks = ast.literal_eval(capsys.readouterr().out.splitlines()[-1])
    assert len(ranks) == 8 and 0 < sum(rank**2 for rank in ranks.values()) <= 8 * 20**2


def test_the_readme_shows_the_example_as_it_is():
    shown = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    lines = {line.strip() for line in (ROOT / "examples" / "library.py").read_text(encoding="utf-8").splitlines()}
    assert shown and shown[1].count("\n") >= 8
    assert not [line for line in shown[1].splitlines() if line.strip() and line.strip() not in lines]
