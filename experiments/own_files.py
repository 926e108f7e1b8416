"""What may be deleted of a run's or a sweep's folder: files known to be written there, and nothing behind a link."""

import os
from collections.abc import Iterable
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path

from common.errors import InputError

_OF_AN_EXPORT = (
    *("README.md", "config.yaml", "checksums.json", "backbone_sketch.json", "chat_template.jinja"),
    *("native.safetensors", "adapter_model.safetensors", "model*.safetensors", "model.safetensors.index.json"),
    *(f"{of}config.json" for of in ("", "adapter_", "generation_", "tokenizer_")),
    *("tokenizer.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt"),
    "*.model",  # of a tokenizer
)
OF_A_REPORT = (
    *("report.html", "report.md", "table.csv", "differences.csv", "figures/*.png", "figures/*.svg", "figures/*.pdf"),
    *("seed2/*.json", ".*.partial", "figures/.*.partial", "seed2/.*.partial"),
)
OF_A_RUN = (
    *OF_A_REPORT,
    *("config.yaml", "metrics.csv", "results.json", "results.previous.json", "paused.json", "ranks.json"),
    *("ranks.previous.json", "rank_map.png", "predictions.tsv", "hparams.yaml", "events.out.tfevents.*"),
    *(".lock", ".*.partial"),
    *(f"lightning_logs/version_*/{name}" for name in ("metrics.csv", "hparams.yaml", "events.out.tfevents.*")),
    ".locks/sweep",  # of a sweep that was refused here
    *(f"checkpoints/{name}" for name in ("best.ckpt", "last.ckpt", "previous.ckpt", "epoch=*.ckpt", ".*.partial")),
    *(f"exports/{kind}/{name}" for kind in ("peft", "merged", "native") for name in _OF_AN_EXPORT),
)


def own_files(folder: Path, patterns: Iterable[str], advice: str) -> list[Path]:
    """All files below a folder, if each is known to be written there: see `patterns`, paths with * in their parts.

    `InputError`: names a file or an empty folder that matches no pattern, or a link; `advice` says what to do.
    """
    known = [pattern.split("/") for pattern in patterns]
    found = [Path(place) / name for place, folders, files in os.walk(folder) for name in (*folders, *files)]
    for path in (folder, *found):
        if path.is_symlink():
            raise InputError(f"{path} is a link, and nothing behind a link is deleted. {advice}")
        if path.is_dir() and not os.access(path, os.W_OK | os.X_OK):
            raise InputError(f"{path} can't be written to, so nothing was deleted, here or beside it. {advice}")
    files = [path for path in found if not path.is_dir()]
    empty = [path for path in found if path.is_dir() and not any(path.iterdir())]
    for path in (*files, *empty):
        parts = path.relative_to(folder).parts
        patterns_here = [pattern[: len(parts)] if path in empty else pattern for pattern in known]
        if not any(len(one) == len(parts) and all(map(fnmatch, parts, one)) for one in patterns_here):
            raise InputError(f"{path} isn't known to be written by a sweep or a run, so nothing was deleted. {advice}")
    return files


def delete(folder: Path, files: list[Path]) -> None:
    """Deletes files, config.yaml as the last one because it tells what they are; then each folder left empty."""
    for path in sorted(files, key=lambda path: path.name == "config.yaml"):
        path.unlink(missing_ok=True)
    for place, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):  # what isn't empty stays
            Path(place).rmdir()
