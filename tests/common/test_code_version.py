"""The version of the code, against what git says of a repository made here."""

import shutil
import subprocess

import pytest

from common import code_version as module

IDENTITY = ["-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=false"]


def git(folder, *arguments):
    done = subprocess.run(["git", "-C", str(folder), *IDENTITY, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def code(tmp_path, monkeypatch):
    """A folder of code, and a way to ask its version anew."""
    (tmp_path / "cli.py").write_text("first")
    monkeypatch.setattr(module, "_ROOT", tmp_path)
    return tmp_path, module.code_version.__wrapped__


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_commit_is_told_and_whether_files_differ_from_it(code):
    folder, ask = code
    git(folder, "init", "--quiet")
    git(folder, "add", "cli.py")
    git(folder, "commit", "--quiet", "-m", "first")
    git(folder, "tag", "v1")  # a tag is no commit
    commit = git(folder, "rev-parse", "HEAD")[:12]
    assert ask() == commit
    (folder / "runs").mkdir()
    (folder / "runs" / "results.json").touch()  # what a run writes is no change of the code
    assert ask() == commit
    (folder / "cli.py").write_text("second")
    assert ask() == f"{commit}-dirty"


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_a_repository_that_does_not_hold_the_code_is_not_its_version(code, monkeypatch):
    folder, ask = code
    git(folder, "init", "--quiet")
    git(folder, "commit", "--quiet", "--allow-empty", "-m", "someone else's")
    monkeypatch.setattr(module, "version", lambda name: f"{name} of the package")
    assert ask() == "rankwise of the package"


def test_without_git_and_package_nothing_is_claimed(code, monkeypatch):
    _, ask = code
    monkeypatch.setenv("PATH", "")
    assert ask() is None
