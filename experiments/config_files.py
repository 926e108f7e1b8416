"""YAML files: found by name, read strictly, written so that they are read alike, and compared."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar

import yaml

from common.errors import InputError
from common.files import no_access, read_text
from common.terminal import print_columns

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
RUN_FOLDER = "run_folder"  # stands in config.yaml, so that another run with these settings has its own
_LOGGERS = ("CSVLogger", "TensorBoardLogger", "WandbLogger", "MLFlowLogger")
_DEEPEST = 200  # the C library that reads YAML crashes where lists lie in each other many thousand times
_MOST_VALUES = 100_000  # in one file, with what aliases stand for counted each time


class GivenTwiceError(yaml.YAMLError):
    """One name has two values."""


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Takes 1e-4 for a number and a date for text, as the command line's parser does."""

    yaml_implicit_resolvers: ClassVar = {
        letter: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
        for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


class _Dumper(yaml.SafeDumper):
    """Puts text into quotation marks that would be read as a number or a date."""


for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+$"), list("-+0123456789")
    )


_Dumper.add_multi_representer(Enum, lambda dumper, choice: dumper.represent_data(choice.value))  # Timer's default


def locate_config(name: str) -> Path:
    """A config given by path, or by name in configs/ (with or without .yaml); `InputError` lists near names."""
    for path in (Path(name).expanduser(), CONFIGS / name, CONFIGS / f"{name}.yaml"):
        if path.is_file():
            return path
    names = [str(path.relative_to(CONFIGS)) for path in sorted(CONFIGS.rglob("*.yaml"))]
    known = {one.lower(): one for one in names}
    near = [known[one] for one in get_close_matches(name.lower(), known, n=3, cutoff=0.4)] or names
    raise InputError(
        f"config is {name!r}, but there is no such file here or in {CONFIGS}; there is {', '.join(near)}. "
        "Give one of them, or a path."
    )


def list_configs(arguments: list[str]) -> int:
    """Prints each shipped config with the first line of its comment."""
    paths = sorted(CONFIGS.rglob("*.yaml"), key=lambda path: (path.parent != CONFIGS, path))
    first = [path.read_text(encoding="utf-8").partition("\n")[0].strip("# ") for path in paths]
    print_columns([(str(path.relative_to(CONFIGS)), line) for path, line in zip(paths, first, strict=True)])
    return 0


def locate_configs(arguments: list[str]) -> tuple[list[str], list[Path]]:
    """The options with each `--config NAME` put first, so that what is typed wins, and their files."""
    options: list[str] = []
    paths: list[Path] = []
    words = iter(arguments)
    for word in words:
        flag, equals, value = word.partition("=")
        if flag not in ("--config", "-c"):
            options.append(word)
            continue
        name = value if equals else next(words, None)
        if name is None:
            raise InputError("--config needs the name or path of a YAML file, such as `--config quickstart.yaml`.")
        paths.append(locate_config(name))
    return [*(f"--config={_for_the_parser(path)}" for path in paths), *options], paths


def _for_the_parser(path: Path) -> str:
    content = read_yaml(path)
    if not content:
        raise InputError(f"{path} is empty; allowed: settings by name. Correct the file, or give another one.")
    trainer = group_of(content, "trainer")
    short = {
        name: made for name in ("logger", "callbacks") if (made := completed(trainer.get(name))) != trainer.get(name)
    }
    return dump_yaml({**content, "trainer": {**trainer, **short}}) if short else str(path)


def completed(asked: object) -> object:
    """A logger or callback (or a list of them) as a config names it, with a folder or a metric where it names none."""
    if isinstance(asked, list):
        return [completed(one) for one in asked]
    path = asked.get("class_path") if isinstance(asked, dict) else asked
    name = str(path).rpartition(".")[2].replace("MLflow", "MLFlow")
    settings = (asked.get("init_args") or {}) if isinstance(asked, dict) else {}
    if name in _LOGGERS and "save_dir" not in settings:
        return {"class_path": f"lightning.pytorch.loggers.{name}", "init_args": {"save_dir": RUN_FOLDER, **settings}}
    if name == "EarlyStopping" and "monitor" not in settings:
        return {"class_path": "callbacks.early_stopping.MetricStopping", "init_args": settings}
    return asked


def read_yaml(path: Path) -> dict[str, Any]:
    """The settings in a YAML file, none in an empty one; `InputError` if it holds something else: see `load_yaml`."""
    try:
        content = load_yaml(read_text(path))
    except (yaml.YAMLError, ValueError, OSError) as error:
        raise no_access(path, error) or InputError(
            f"{path} can't be read as YAML: {error}. Correct the file."
        ) from error
    if not isinstance(content, dict | None):
        raise InputError(f"{path} holds {content!r:.80}; allowed: settings by name. Correct the file.")
    counts = Counter(_names(content or {}))
    if twice := [name for name, count in counts.items() if count > 1]:
        raise InputError(f"{path} gives {twice[0]!r} twice, in different spellings. Leave one out.")
    return content or {}


def _names(content: Mapping[object, object], prefix: str = "") -> Iterator[str]:
    """Each setting as on the command line."""
    for key, value in content.items():
        name = prefix if key == "init_args" else f"{prefix}{key}."
        yield from _names(value, name) if isinstance(value, dict) and value else [short_name(name)[:-1]]


def short_name(name: str) -> str:
    """A setting's name without the `init_args` of classes."""
    return name.replace(".init_args.", ".")


def group_of(content: object, *names: str) -> dict[str, Any]:
    """The settings below these names; none where there are none."""
    for name in names:
        content = content.get(name) if isinstance(content, dict) else None
    return content if isinstance(content, dict) else {}


def load_yaml(text: str) -> Any:
    """The content of YAML text.

    `yaml.YAMLError`: it isn't YAML, has one name twice, a number of too many digits, or aliases that stand for
    themselves or for too much.
    """
    try:
        return _loaded(text)
    except (ValueError, RecursionError) as error:
        raise yaml.YAMLError(str(error)) from error


def _loaded(text: str) -> Any:
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise yaml.YAMLError(f"lists or settings lie in each other more than {_DEEPEST} times")
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _count(node, {})
        return loader.construct_document(node)
    finally:
        loader.dispose()


def dump_yaml(content: object) -> str:
    """YAML text that `load_yaml` and the command line's parser read alike."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def _count(node: yaml.Node, known: dict[yaml.Node, int | None]) -> int:
    """How many values a node stands for; `known` has those counted before, and None for those under way."""
    if node in known:
        if (count := known[node]) is None:
            raise yaml.YAMLError(f"an alias in line {node.start_mark.line + 1} stands for something that holds itself")
        return count
    known[node] = None
    inner = node.value if isinstance(node, yaml.SequenceNode) else []
    if isinstance(node, yaml.MappingNode):
        inner = [part for pair in node.value for part in pair]
        names: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in names:
                    raise GivenTwiceError(f"{key.value!r} is given twice, again in line {key.start_mark.line + 1}")
                names.add(key.value)
    known[node] = count = 1 + sum(_count(part, known) for part in inner)
    if count > _MOST_VALUES:
        raise yaml.YAMLError(f"it holds more than {_MOST_VALUES:,} values, with what aliases stand for")
    return count


def differences(before: Mapping[str, object], after: Mapping[str, object]) -> list[str]:
    """Settings that differ between two configs, one line each: name: before -> after; null is as good as absent."""
    old, new = flatten(before), flatten(after)
    known = {name: (old.get(name, "None"), new.get(name, "None")) for name in sorted({*old, *new})}
    return [f"{name}: {one} -> {other}" for name, (one, other) in known.items() if one != other]


def flatten(config: Mapping[str, object], prefix: str = "") -> dict[str, bool | int | float | str]:
    """A nested config as one level of dotted names, values as plain numbers or text."""
    flat: dict[str, bool | int | float | str] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value if isinstance(value, bool | int | float | str) else str(value)
    return flat
