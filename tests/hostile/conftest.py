"""A finished run to attack, and the file that code which was never to be run would write."""

from pathlib import Path

import pytest

import cli
from tests.command_line import run, write_config


@pytest.fixture(scope="package")
def finished(tmp_path_factory, tiny_bert, cola_folder) -> Path:
    """A runs folder with config tiny.yaml and one finished run `tiny`, exported in PEFT's and the native format."""
    runs_dir = tmp_path_factory.mktemp("runs")
    config = write_config(runs_dir, tiny_bert, cola_folder)
    assert run("fit", config, runs_dir, "--trainer.max_epochs", "1") == 0
    for kind in ("peft", "native"):
        assert cli.main(["export", str(runs_dir / "tiny"), "--format", kind]) == 0
    return runs_dir


@pytest.fixture
def marker(tmp_path) -> Path:
    return tmp_path / "marker"
