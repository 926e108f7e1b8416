"""Makes the pictures of terminal and browser in docs/screenshots/ again: python -m tests.docs.screenshots RUNS

RUNS is a folder with a finished run `quickstart`. A small sweep is run for the pictures of its live table and of its
HPARAMS, and the report is that of a published study. The pictures of pages need Chromium; without it they are left out.
"""

import argparse
import io
import os
import pty
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml
from rich.console import Console
from rich.text import Text

PICTURES = Path(__file__).resolve().parents[2] / "docs" / "screenshots"
STUDY = "docs/results/sst2_minilm_equal_budget.json"
COLUMNS, LINES = 80, 24
PAGES = {  # name of the picture: TensorBoard's tab, width and height in pixels
    "tensorboard_overview": ("custom_scalars", 1400, 1000),
    "tensorboard_images": ("images", 1400, 1000),
}
_REDRAWN = re.compile(r"\r?(?:\x1b\[\d*[AK])+")  # what a live table writes before it is drawn once more
_SWEEP = {
    "config": "quickstart.yaml",
    "settings": {
        "data.train_sentences": 96,
        "data.validation_sentences": 40,
        "data.test_sentences": 40,
        "trainer.max_epochs": 1,
    },
    "grid": {"model.optimizer.learning_rate": [0.001, 0.004], "seed_everything": [0, 1]},
}


def terminal(words: list[str], columns: int = COLUMNS, lines: int = LINES) -> str:
    """What a program writes to a terminal of this size, with its colours."""
    size = {"COLUMNS": str(columns), "LINES": str(lines), "TERM": "xterm-256color"}
    ours, theirs = pty.openpty()
    with subprocess.Popen(words, stdout=theirs, stderr=theirs, stdin=theirs, env={**os.environ, **size}) as program:
        os.close(theirs)
        written = b""
        try:
            while part := os.read(ours, 65536):
                written += part
        except OSError:  # Linux says so when the program has closed its end
            pass
    os.close(ours)
    if program.returncode:
        raise SystemExit(f"{' '.join(words)} ended with {program.returncode}:\n{written.decode()[-2000:]}")
    return written.decode()


def save_terminal(name: str, command: str, text: str) -> None:
    """The text as a picture of a terminal, under the command that was typed: as much as there is room for."""
    lines = _REDRAWN.split(text)[-1].replace("\r\n", "\n").strip("\n").splitlines()[: LINES - 1]
    console = Console(record=True, width=COLUMNS, height=LINES, file=io.StringIO(), force_terminal=True)
    console.print(f"$ {command}", highlight=False)
    console.print(Text.from_ansi("\n".join(lines)))
    console.save_svg(str(PICTURES / f"{name}.svg"), title="Rankwise")


def live_table(folder: Path) -> str:
    """The table of a running sweep, as it stood when half of the trials had ended."""
    file = folder / "small.yaml"
    file.write_text(yaml.safe_dump(_SWEEP))
    written = terminal([sys.executable, "cli.py", "sweep", "--config", str(file), "--runs_dir", str(folder)])
    frames = [frame for frame in _REDRAWN.split(written) if "running" in frame and "finished" in frame]
    return frames[len(frames) // 2]


@contextmanager
def tensorboard(folder: Path) -> Iterator[str]:
    """The address of a TensorBoard that shows a folder."""
    program = [sys.executable, "-m", "tensorboard.main", "--logdir", folder.name, "--port", "0", "--load_fast", "false"]
    # below the folder's own: pages show the path as it was given
    with subprocess.Popen(program, stderr=subprocess.PIPE, text=True, cwd=folder.resolve().parent) as server:
        assert server.stderr is not None
        address = next(found[0] for line in server.stderr if (found := re.search(r"http://\S+", line)))
        time.sleep(10)  # until the runs are read
        yield address
        server.terminate()


def photograph(browser: str, name: str, address: str, width: int, height: int) -> None:
    """A page as it looks in a window of this size."""
    with tempfile.TemporaryDirectory() as profile:
        options = ["--headless", "--hide-scrollbars", "--disable-gpu", "--disable-background-networking"]
        options += [f"--user-data-dir={profile}"]
        options += [f"--window-size={width},{height}", "--virtual-time-budget=30000"]
        options += ["--no-sandbox"] if os.geteuid() == 0 else []
        picture = f"--screenshot={PICTURES / f'{name}.png'}"
        subprocess.run([browser, *options, picture, address], check=True, stderr=subprocess.DEVNULL)


def main() -> None:
    """Makes all pictures that can be made here."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--browser", default=shutil.which("chromium") or shutil.which("google-chrome"))
    options = parser.parse_args()
    PICTURES.mkdir(exist_ok=True)
    save_terminal("help", "python cli.py --help", terminal([sys.executable, "cli.py", "--help"]))
    answer = [sys.executable, "cli.py", "test", str(options.runs / "quickstart")]
    save_terminal("test", "python cli.py test quickstart", terminal(answer))
    with tempfile.TemporaryDirectory() as folder:
        save_terminal("sweep", "python cli.py sweep --config small.yaml", live_table(Path(folder)))
        if options.browser is not None:
            with tensorboard(Path(folder) / "small") as address:
                photograph(options.browser, "tensorboard_hparams", f"{address}#hparams", 1400, 500)
    if options.browser is None:
        print("Chromium was not found: install it, or give --browser. The pictures of pages stay as they are.")
        return
    with tempfile.TemporaryDirectory() as folder:
        terminal([sys.executable, "cli.py", "report", STUDY, "--baseline", "fixed", "--output", folder])
        page = (Path(folder) / "report.html").as_uri()
        photograph(options.browser, "report_desktop", page, 1200, 1400)
        photograph(options.browser, "report_phone", page, 390, 1400)
    with tensorboard(options.runs) as address:
        for name, (tab, width, height) in PAGES.items():
            photograph(options.browser, name, f"{address}#{tab}", width, height)


if __name__ == "__main__":
    main()
