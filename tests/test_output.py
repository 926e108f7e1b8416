"""Output that can't be written, and where predict writes its table."""

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from tempfile import NamedTemporaryFile

import pytest

from callbacks.predictions import write_table
from common.errors import InputError
from tests.command_line import run, write_config

ROOT = Path(__file__).parents[1]
STANDARD = ("-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", f"/proc/{os.getpid()}/fd/1")
_SPEAK = """
import sys
from common.terminal import keep_output_going
keep_output_going()
for _ in range(2000):
    print("é" * 50)
open(sys.argv[1], "w").write("done")
print("warned", file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("redirection", "said"),
    [
        ("| head -1", ["warned"]),
        (">/dev/full", ["warning: standard output can't be written (No space left on device); going on.", "warned"]),
        (">&-", ["warned"]),
        (">/dev/null 2>&-", []),
        (">&- 2>/dev/full", []),
    ],
)
def test_output_that_can_not_be_written_ends_nothing(tmp_path, redirection, said):
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", f'"$0" -c "$1" "$2" {redirection}', sys.executable, _SPEAK, tmp_path / "done"],
        cwd=ROOT,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
    )
    assert (tmp_path / "done").read_text() == "done"
    assert (done.returncode, done.stderr.splitlines()) == (0, said)


@pytest.mark.long
def test_a_fit_whose_reader_is_gone_goes_on(tmp_path, tiny_bert, cola_folder):
    config = write_config(tmp_path, tiny_bert, cola_folder)
    command = f"'{sys.executable}' cli.py fit --config '{config}' --runs_dir '{tmp_path}' --run_name é | true"
    subprocess.run(["bash", "-o", "pipefail", "-c", command], cwd=ROOT, check=True)
    assert (tmp_path / "é" / "results.json").exists()


def test_a_table_goes_through_links_and_into_pipes(tmp_path, capfd):
    path, link, pipe = (tmp_path / name for name in ("path", "link", "pipe"))
    link.symlink_to(path)
    write_table(link, "é\n")
    assert link.is_symlink() and path.read_text(encoding="utf-8") == "é\n"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    write_table(pipe, "a\n")
    reader.join(10)
    assert read == ["a\n"] and pipe.is_fifo()
    for name in STANDARD:
        write_table(Path(name), "b\n")
    assert capfd.readouterr().out == "b\n" * len(STANDARD)
    (tmp_path / "ring").symlink_to("ring")
    for place in (Path("/dev/full"), tmp_path, Path("/proc/nowhere/table"), tmp_path / "ring", tmp_path / "a\0b"):
        with pytest.raises(InputError, match=re.escape(repr(str(place))[1:-1])):
            write_table(place, "c\n")


def test_a_table_replaces_a_file_below_dev_and_never_the_file_that_standard_output_is(tmp_path):
    """Memory is a place for files, too, and what else was printed stays, whatever name stands for standard output."""
    with NamedTemporaryFile(dir="/dev/shm") as file:
        for text in ("longer\n", "b\n"):
            write_table(Path(file.name), text)
        assert Path(file.name).read_text() == "b\n"
    (tmp_path / "link").symlink_to("/dev/stdout")
    code = f"from callbacks.predictions import *; print('said', flush=True); write_table(Path('{tmp_path}/link'), 'a')"
    with (tmp_path / "log").open("w") as log:
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=log, check=True)
    assert (tmp_path / "log").read_text() == "said\na"


def test_a_table_never_replaces_what_it_is_made_of(finished_run, cola_folder, tmp_path, monkeypatch, capfd):
    sentences, link = tmp_path / "sentences.txt", tmp_path / "link.tsv"
    sentences.write_text("the cat sleeps\n")
    link.symlink_to(sentences)
    rows, checkpoint = Path(cola_folder) / "in_domain_dev.tsv", finished_run[1] / "tiny" / "checkpoints" / "last.ckpt"
    for read, output in ((sentences, sentences), (sentences, link), (sentences, rows), (sentences, checkpoint)):
        before = output.read_bytes()
        options = ("--ckpt_path", str(checkpoint), "--data.predict_file", str(read), "--output", str(output))
        assert run("predict", *finished_run, *options) == 2
        assert "reads; allowed: another file" in capfd.readouterr().err
        assert output.read_bytes() == before
    config, folder = finished_run[0], finished_run[1] / "tiny"
    for output in (folder / "checkpoints" / "best.ckpt", folder / "results.json", folder / "config.yaml", config):
        before = output.read_bytes()
        assert run("predict", *finished_run, "--ckpt_path", "best", "--output", str(output)) == 2
        assert "reads; allowed: another file" in capfd.readouterr().err
        assert output.read_bytes() == before
    assert run("predict", *finished_run, "--ckpt_path", "best", "--output", str(tmp_path)) == 2
    assert "a folder; allowed: a file" in capfd.readouterr().err
    monkeypatch.setenv("HOME", str(tmp_path))
    asked = ("--ckpt_path", "last", "--data.predict_file", str(sentences), "--output")
    assert run("predict", *finished_run, *asked, "~/table.tsv") == 0
    table = (tmp_path / "table.tsv").read_text()
    capfd.readouterr()
    for name in STANDARD:
        assert run("predict", *finished_run, *asked, name) == 0
        assert capfd.readouterr().out == table  # nothing else


def test_a_hang_up_stops_a_run_unless_nohup_is_given(monkeypatch):
    from experiments.stop_signals import StopSignals

    stopped: list[int] = []
    monkeypatch.setattr("experiments.stop_signals.os.kill", lambda process, number: stopped.append(number))
    for before, expected in ((signal.SIG_DFL, [signal.SIGTERM]), (signal.SIG_IGN, [])):
        stopped.clear()
        signal.signal(signal.SIGHUP, before)
        signals = StopSignals()
        signals.install()
        try:
            signal.raise_signal(signal.SIGHUP)
        finally:
            signals.restore()
        assert stopped == expected and signal.getsignal(signal.SIGHUP) == before
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def test_ctrl_c_while_libraries_are_imported_is_one_line(tmp_path):
    """numpy and torch make other errors of an interrupt in their imports."""
    code = (
        "import os, signal\ntry:\n    os.kill(os.getpid(), signal.SIGINT)\nexcept BaseException:\n    raise ImportError"
    )
    (tmp_path / "slow.py").write_text(code)
    command = "import cli; cli.VERBS['fit'] = 'slow:run'; cli.main(['fit'])"
    done = subprocess.run(
        [sys.executable, "-c", command],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "\nStopped by Ctrl-C.\n")
