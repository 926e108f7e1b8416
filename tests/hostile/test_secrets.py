"""Tokens in the environment stay there: no file that a run, an export, a sweep or a report writes holds one."""

import pytest
import yaml

import cli
from tests.command_line import run, write_config

TOKEN = "hf_aMarkerThatNobodyElseHas0123456789"
NAMES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "PASSWORD", "GITHUB_TOKEN")


@pytest.fixture
def tokens(monkeypatch):
    for name in NAMES:
        monkeypatch.setenv(name, TOKEN)


def places_with_the_token(folder) -> list[str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return [str(path) for path in files if TOKEN.encode() in path.read_bytes() or TOKEN in path.name]


@pytest.mark.slow
def test_no_file_and_no_line_of_output_holds_a_token(tokens, tmp_path, tiny_bert, cola_folder, capfd):
    runs = tmp_path / "runs"
    config = write_config(tmp_path, tiny_bert, cola_folder)
    (tmp_path / "written").write_text(f"token: {TOKEN}")
    assert places_with_the_token(tmp_path) == [str(tmp_path / "written")]  # the search finds what is there
    (tmp_path / "written").unlink()
    grid = {"config": str(config), "settings": {"trainer.max_epochs": 1}, "grid": {"seed_everything": [0]}}
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(grid))
    assert cli.main(["sweep", "--config", str(tmp_path / "grid.yaml"), "--runs_dir", str(runs)]) == 0
    trial = str(runs / "grid" / "seed_everything_0")
    assert cli.main(["predict", trial]) == 0
    assert cli.main(["export", trial, "--format", "merged"]) == 0
    assert cli.main(["report", str(runs / "grid")]) == 0
    # and where things go wrong
    assert run("fit", config, runs, "--run_name", "bad", "--data.task", "colla", "--debug") == 2
    assert run("fit", config, runs, "--run_name", "bad", "--model.backbone", "owner/nothing", "--debug") == 2
    assert "results.json" in {path.name for path in runs.rglob("*.json")}
    assert places_with_the_token(tmp_path) == []
    shown = capfd.readouterr()
    assert TOKEN not in shown.out + shown.err
