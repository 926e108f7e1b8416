"""The examples do what the documents say of them, on a tiny model."""

import ast
import json
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


def test_the_notebook_trains_and_answers(tmp_path, capsys):
    """Its cells one after the other, with a tiny model instead of its own."""
    cells = json.loads((ROOT / "examples" / "quickstart.ipynb").read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    given = {"backbone": str(tiny.save_tiny_bert(tmp_path / "bert", hidden=32)), "sentences": 64, "epochs": 2}
    names = dict(given)
    for cell in code:
        if "parameters" in cell["metadata"].get("tags", ()):
            set_there = {node.id for node in ast.walk(ast.parse("".join(cell["source"]))) if isinstance(node, ast.Name)}
            assert set_there == given.keys()
        else:
            exec(compile("".join(cell["source"]), "quickstart.ipynb", "exec"), names)
    assert names["module"].rank_allocation.is_discrete and len(names["ranks"]) == 8
    assert 0 <= names["figures"][0]["test/accuracy"] <= 1
    answers = capsys.readouterr().out.splitlines()[-2:]
    assert [answer[5:] for answer in answers] == [f"acceptable: {text}" for text in names["texts"]]
    assert all(cell["outputs"] == [] for cell in code)  # none that would become stale
