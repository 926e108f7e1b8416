"""Paths of the machine that trained, shortened to what tells them apart: a published file names no folder above."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

DATA_FOLDER = "data.data_dir"

Config = dict[str, Any]


def short_paths(configs: Iterable[Config]) -> dict[str, str]:
    """Each path in the configs (the data folder, or what is absolute) below the folder that holds its setting's."""
    found: dict[str, set[str]] = {}
    for config in configs:
        for name, value in config.items():
            if _is_path(name, value):
                found.setdefault(name, set()).add(value)
    short: dict[str, str] = {}
    for paths in found.values():
        root = os.path.commonpath([os.path.dirname(_whole(path)) for path in paths])
        short |= {path: os.path.relpath(_whole(path), root) for path in paths}
    return short


def shorten(settings: Config, short: dict[str, str]) -> Config:
    """The settings with their paths replaced, as `short_paths` gave them."""
    return {name: short.get(value, value) if isinstance(value, str) else value for name, value in settings.items()}


def shorten_text(text: str, short: dict[str, str]) -> str:
    """A message with the paths in it replaced."""
    for path in sorted(short, key=len, reverse=True):
        text = text.replace(path, short[path])
    return text


def as_long_as(settings: Config, others: Iterable[Config]) -> Config:
    """The settings with paths cut to as many folders as shortened paths of the same settings have in `others`."""
    lengths: dict[str, int] = {}
    for other in others:
        for name in settings.keys() & other.keys():
            if _is_path(name, settings[name]) and isinstance(other[name], str):
                lengths[name] = max(lengths.get(name, 0), len(Path(other[name]).parts))
    cut = {name: str(Path(*Path(_whole(settings[name])).parts[-length:])) for name, length in lengths.items()}
    return {**settings, **cut}


def _is_path(name: str, value: Any) -> bool:
    if not isinstance(value, str) or value == "None":
        return False
    return name == DATA_FOLDER or os.path.isabs(os.path.expanduser(value))


def _whole(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))
