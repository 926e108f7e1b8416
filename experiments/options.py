"""The options that a run has, by the names they are typed with: for help, and for what was mistyped."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from docstring_parser import parse as parse_docstring
from lightning.pytorch import Trainer

from common.terminal import print_columns
from experiments.arguments import DESCRIPTIONS, LINKED, MEANINGS, NAMED_CALLBACKS
from experiments.config_files import locate_config
from experiments.setting_values import parameters_of

# What people type, and what it may be called here; of several the run has only some.
_USUAL_NAMES = {
    "lr": ("model.optimizer.learning_rate",),
    "bs": ("data.batch_size",),
    "epochs": ("trainer.max_epochs",),
    "num_train_epochs": ("trainer.max_epochs",),
    "steps": ("trainer.max_steps",),
    "rank": ("model.adapter.rank_average", "model.adapter.rank_max", "model.adapter.rank"),
    "r": ("model.adapter.rank_average", "model.adapter.rank"),
    "alpha": ("model.adapter.lora_alpha", "alpha_growth.alpha_max"),
    "seed": ("seed_everything",),
    "gpus": ("trainer.devices", "trainer.accelerator"),
    "name": ("run_name",),
    "output_dir": ("runs_dir", "run_name"),
    "resume": ("ckpt_path",),
    "checkpoint": ("ckpt_path",),
    "dataset": ("data",),
}


@dataclass(frozen=True)
class Option:
    """One option: as typed without its dashes, the value it has, and the first sentences of what it means."""

    name: str
    value: Any
    meaning: str


def options_of(values: Mapping[str, Any]) -> dict[str, list[Option]]:
    """All options by the heading of their group, of the classes that parsed settings name."""
    shown = {**values, "config": "NAME"}
    groups = {"run": [Option(name, shown[name], MEANINGS[name]) for name in MEANINGS if name in shown]}
    for name in ("model", "data"):
        groups |= dict(_of_class(name, values[name]))
    for name, owner in {**NAMED_CALLBACKS, "trainer": Trainer}.items():
        groups |= dict(_of_group(name, owner, values[name], name))
    return groups


def _of_class(name: str, value: Mapping[str, Any]) -> Iterator[tuple[str, list[Option]]]:
    owner = resolve_name(value["class_path"])
    yield from _of_group(name, owner, value.get("init_args") or {}, f"{name}: {value['class_path']}")


def _of_group(name: str, owner: type, values: Mapping[str, Any], heading: str) -> Iterator[tuple[str, list[Option]]]:
    meanings = _meanings(owner)
    options: list[Option] = []
    inner: list[tuple[str, list[Option]]] = []
    for key, parameter in parameters_of(owner).items():
        if key not in values:  # the class hands it on to its base itself
            continue
        value, place = values[key], f"{name}.{key}"
        if isinstance(value, Mapping) and "class_path" in value:
            inner += _of_class(place, value)
        elif isinstance(hint := parameter.annotation, type) and is_dataclass(hint):
            inner += _of_group(place, hint, value, place)
        elif name != "data" or key not in LINKED:
            options.append(Option(place, value, meanings.get(key, "")))
    yield heading, options
    yield from inner


def _meanings(owner: type) -> dict[str, str]:
    """What the docstrings of a class and its bases say of each argument, in one line."""
    found: dict[str, str] = {}
    for place in reversed(owner.__mro__[:-1]):
        for text in (place.__doc__, vars(place).get("__init__", place).__doc__):
            said = parse_docstring(text or "").params
            found |= {one.arg_name: " ".join((one.description or "").split()) for one in said}
    return found


def print_help(verb: str, values: Mapping[str, Any], source: str) -> None:
    """Prints every option in one line, by group, with the value it has; `source` says where that comes from."""
    print(f"python cli.py {verb} [options]: {DESCRIPTIONS[verb]}\nThe options and values of {source}:")
    for heading, options in options_of(values).items():
        print(f"\n{heading}")
        print_columns([(f"  --{one.name} {_shown(one.value)}", one.meaning) for one in options])
    print("\n--data.help CLASS, --model.help CLASS or --model.adapter.help CLASS tells all of another class.")


def _shown(value: object) -> str:
    text = {None: "null", True: "true", False: "false"}.get(value) if isinstance(value, bool | None) else str(value)
    return text if text is not None and len(text) <= 30 else f"{text:.29}…"


def explain_unknown(verb: str, typed: str, values: Mapping[str, Any]) -> str:
    """What a word that is no option, such as --lr or --lr=1, probably stands for; a config's name must be one."""
    all_listed = f"`python cli.py {verb} --help` lists all."
    if not typed.startswith("-"):
        is_run = (Path(typed) / "config.yaml").is_file()
        config, more = (f"{typed}/config.yaml", " --ckpt_path last") if is_run else (typed, "")
        if verb == "fit":
            locate_config(config)
        hint = f"Did you mean `--config {config}{more}`?" if verb == "fit" else all_listed
        return f"{typed!r} stands alone, but {verb} expects options there. {hint}"
    word = typed.lstrip("-").partition("=")[0]
    last = word.rpartition(".")[2]
    names = [one.name for options in options_of(values).values() for one in options] + ["data", "model"]
    ends = [name.rpartition(".")[2] for name in names]
    close = get_close_matches(last, ends, n=2, cutoff=0.7)
    found = [
        *(name for name in _USUAL_NAMES.get(last, ()) if name in names),
        *(name for name, end in zip(names, ends, strict=True) if end == last),
        *get_close_matches(word, names, n=2, cutoff=0.8),
        *(name for name, end in zip(names, ends, strict=True) if end in close),
    ]
    hint = " or ".join(f"--{name}" for name in list(dict.fromkeys(found))[:3])
    return f"there is no option --{word}.{f' Did you mean {hint}?' if hint else ''} {all_listed}"
