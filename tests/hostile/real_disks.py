"""Runs on file systems that are really full or read-only: `unshare -rm python -m tests.hostile.real_disks FOLDER`.

In namespaces of its own, a process may mount file systems that nobody else sees and that end with it. FOLDER holds
tiny.yaml and runs/tiny, a finished run of three epochs. One line of JSON for each case goes to standard output.
"""

import contextlib
import hashlib
import io
import json
import subprocess
import sys
from pathlib import Path

import cli

SIZES = (40, 80, 120, 160)  # KiB: full before the first checkpoint, and later


def fit(folder: Path, runs: Path, *options: str) -> dict[str, object]:
    """The exit code of a fit, and what it said on standard error but for warnings."""
    said = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        code = cli.main(["fit", "--config", str(folder / "tiny.yaml"), "--runs_dir", str(runs), *options])
    return {"code": code, "said": "\n".join(line for line in said.getvalue().splitlines() if "warning" not in line)}


def mount(place: Path, options: str, source: str | None = None) -> None:
    """Mounts an empty file system in memory, or `source` once more."""
    kind = ["-t", "tmpfs", "tmpfs"] if source is None else ["--bind", source]
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "-o", options, *kind, str(place)] if kind[0] == "-t" else ["mount", *kind, str(place)])
    if source is not None:
        subprocess.run(["mount", "-o", f"remount,bind,{options}", str(place)], check=True)


def checksums(folder: Path) -> dict[str, str]:
    """Of each file."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def tell(case: str, found: dict[str, object]) -> None:
    """Writes a case's line."""
    print(json.dumps({"case": case, **found}), flush=True)


def read_only(folder: Path) -> None:
    """Begins, goes on with and overwrites a run where nothing can be written."""
    place = folder / "read_only"
    mount(place, "ro", str(folder / "runs"))
    before = checksums(place)
    for case, options in (
        ("begin", ["--run_name", "another"]),
        ("resume", ["--ckpt_path", "last", "--trainer.max_epochs", "4"]),
        ("overwrite", ["--overwrite"]),
    ):
        found = fit(folder, place, *options)
        tell(case, {**found, "kept": checksums(place) == before})


def full(folder: Path) -> None:
    """Trains until the disk is full, makes it larger, and goes on."""
    for size in SIZES:
        place = folder / f"full_{size}"
        mount(place, f"size={size}k")
        found = fit(folder, place)
        subprocess.run(["mount", "-o", "remount,size=64m", str(place)], check=True)
        whole = (place / "tiny" / "checkpoints" / "last.ckpt").exists()
        again = fit(folder, place, *(["--ckpt_path", "last"] if whole else ["--overwrite"]))
        subprocess.run(["cp", "-r", str(place / "tiny"), str(folder / f"after_{size}")], check=True)
        tell(f"full {size}", {**found, "resumed": whole, "again": again["code"], "then": again["said"]})


if __name__ == "__main__":
    read_only(Path(sys.argv[1]))
    full(Path(sys.argv[1]))
