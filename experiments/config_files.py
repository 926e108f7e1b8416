"""Finding configs by name, and telling what changed between two of them."""

from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from common.errors import InputError

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
CONFIGS = Path(__file__).resolve().parents[1] / "configs"


def locate_config(name: str) -> Path:
    """A config given by path, or by name in configs/ (with or without .yaml).

    Raises:
        InputError: no such file; the message lists near names.
    """
    for path in (Path(name).expanduser(), CONFIGS / name, CONFIGS / f"{name}.yaml"):
        if path.is_file():
            return path
    known = [str(path.relative_to(CONFIGS)) for path in sorted(CONFIGS.rglob("*.yaml"))]
    near = get_close_matches(name, known, n=3, cutoff=0.4) or known
    raise InputError(
        f"config is {name!r}, but there is no such file here or in {CONFIGS}; there is {', '.join(near)}. "
        "Give one of them, or a path."
    )


def locate_configs(arguments: list[str]) -> tuple[list[str], list[Path]]:
    """Replaces each `--config NAME` by the path of the file found, and lists these paths."""
    located: list[str] = []
    paths: list[Path] = []
    takes_value = False
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        if takes_value or (flag == "--config" and equals):
            paths.append(locate_config(argument if takes_value else value))
            located.append(str(paths[-1]) if takes_value else f"--config={paths[-1]}")
            takes_value = False
            continue
        takes_value = argument in ("--config", "-c")
        located.append(argument)
    if takes_value:
        raise InputError("--config needs the name or path of a YAML file, such as `--config quickstart.yaml`.")
    return located, paths


def read_yaml(path: Path) -> dict[str, Any]:
    """The settings in a YAML file; none in an empty one.

    Raises:
        InputError: no text, no YAML, or something else than settings by name.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise InputError(f"{path} can't be read as YAML: {error}. Correct the file.") from error
    if not isinstance(content, dict | None):
        raise InputError(f"{path} holds {content!r:.80}; allowed: settings by name. Correct the file.")
    return content or {}


def differences(before: dict[str, Any], after: dict[str, Any], prefix: str = "") -> list[str]:
    """Settings that differ between two configs, one line each: name: before -> after."""
    lines: list[str] = []
    for key in sorted({*before, *after}, key=str):
        old, new = before.get(key), after.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            lines += differences(old, new, f"{prefix}{key}.")
        elif old != new:
            lines.append(f"{prefix}{key}: {old} -> {new}")
    return lines


def flatten(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested config as one level of dotted names, values as plain numbers or text."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value if isinstance(value, bool | int | float | str) else str(value)
    return flat
