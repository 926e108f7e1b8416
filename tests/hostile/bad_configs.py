"""Every setting with every kind of wrong value: `python -m tests.hostile.bad_configs` tries them all.

Settings come from the parser itself, class by class, so that a new one is tried without being listed here.
"""

import argparse
import contextlib
import copy
import io
import math
import os
import random
import resource
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

import cli
from experiments.settings import parse

# A value of every YAML type, and numbers at and beyond every edge.
BAD_VALUES: dict[str, Any] = {
    **{"text": "no such thing", "empty text": "", "long text": "x" * 5000, "NUL": "a\x00b"},
    **{"climbing path": "../../escaped", "list": [1, "a"], "empty list": [], "mapping": {"a": 1}},
    **{"null": None, "true": True, "false": False, "zero": 0, "one": 1, "minus one": -1, "huge": 10**18},
    **{"fraction": 1.5, "small fraction": 1e-300, "minus half": -0.5, "beyond int64": 2**64, "beyond float": 1e308},
    **{"nan": math.nan, "infinity": math.inf, "minus infinity": -math.inf},
}
# Good values here start other processes or wait for other machines; bad ones are tried by the command line's own tests.
STARTS_PROCESSES = {"trainer.devices", "trainer.num_nodes"}
SECONDS = 30
GIBIBYTES = 12  # of address space: a setting that asks for more fails here, and spares the machine


@dataclass(frozen=True)
class Field:
    """One setting of one base config.

    Attributes:
        base: which config.
        path: keys from the top.
    """

    base: str
    path: tuple[str, ...]

    @property
    def name(self) -> str:
        """As it is given on the command line."""
        return ".".join(key for key in self.path if key != "init_args")


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Attributes:
        kind: refused (exit code 2, one message), ran (0, files whole), or fault.
        detail: the message.
    """

    kind: str
    detail: str = ""


class TooLongError(Exception):
    """A run that did not end in time."""


def base_configs(folder: Path) -> dict[str, dict[str, Any]]:
    """Complete configs that together hold every adapter, data module and model class, one short epoch each."""
    from tests import tiny

    bert, gpt2 = str(tiny.save_tiny_bert(folder / "bert")), str(tiny.save_tiny_gpt2(folder / "gpt2"))
    cola, news = str(tiny.save_cola(folder / "cola", 16, 8)), str(tiny.save_ag_news(folder / "news", 24, 8))
    table, wiki = str(tiny.save_table(folder / "table", 24)), str(tiny.save_wikitext(folder / "wiki", "raw", 12, 4))
    text = str(Path(wiki) / "wiki.train.raw")
    adaptive = {"rank_min": 2, "rank_max": 8, "rank_average": 5}
    glue = ("GLUEDataModule", {"task": "cola", "data_dir": cola})
    classify, speak = ("TextClassificationModule", bert), ("LanguageModellingModule", gpt2)
    little = {"train_sentences": 32, "validation_sentences": 16, "test_sentences": 16}
    nested = {"rank_min": 2, "rank_max": 4}
    parts: dict[str, tuple[tuple[str, str], dict[str, Any], tuple[str, dict[str, Any]]]] = {
        "AdaptiveLoRAXS": (classify, adaptive, glue),
        "LoRAXS": (classify, {"rank": 4}, ("TableDataModule", {"data_dir": table})),
        "NestedLoRAXS": (
            classify, nested, ("AGNewsDataModule", {"data_dir": news, "validation_rows": 8, "train_rows": 16}),
        ),
        "LoRA": (classify, {"rank": 4, "lora_alpha": 8}, ("QuickstartDataModule", little)),
        "AdaptiveLoRA": (speak, adaptive | {"lora_alpha": 8}, ("WikiTextDataModule", {"data_dir": wiki})),
        "NestedLoRA": (
            speak, nested | {"lora_alpha": 8}, ("PlainTextDataModule", {"train_file": text, "validation_file": text}),
        ),
        "PEFTAdapter": (classify, {"method": "lora", "settings": {"r": 4, "lora_alpha": 8}}, glue),
        "none": (classify, {}, glue),
    }  # fmt: skip
    return {name: _complete(folder, name, *part) for name, part in parts.items()}


def _complete(
    folder: Path, adapter: str, model: tuple[str, str], settings: dict[str, Any], data: tuple[str, dict[str, Any]]
) -> dict[str, Any]:
    place = "lightning_modules" if adapter == "PEFTAdapter" else "lora"
    chosen = None if adapter == "none" else {"class_path": f"{place}.{adapter}", "init_args": settings}
    size = {"max_length": 32} if model[0].startswith("Text") else {"block_size": 16}
    config = {
        "seed_everything": 1,
        "model": {
            "class_path": f"lightning_modules.{model[0]}",
            "init_args": {"backbone": model[1], "adapter": chosen},
        },
        "data": {"class_path": f"datamodules.{data[0]}", "init_args": {"batch_size": 8, **size, **data[1]}},
        "trainer": {"max_epochs": 1, "accelerator": "cpu", "devices": 1, "logger": False},
    }
    path = folder / "base.yaml"
    path.write_text(yaml.safe_dump(config))
    plain = parse(["fit", "--config", str(path), "--runs_dir", str(folder / "runs")]).plain
    return {**plain, "overwrite": True, "ckpt_path": None}


def fields(bases: dict[str, dict[str, Any]]) -> list[Field]:
    """Every setting of every class once, and the nodes above them."""
    found: dict[tuple[str, ...], Field] = {}
    for base, config in bases.items():
        for path, owner in _paths(config):
            found.setdefault((*owner, *path), Field(base, path))
    return list(found.values())


def _paths(
    node: Any, path: tuple[str, ...] = (), owner: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Paths below a node, each with the classes it lies in."""
    if path:
        yield path, owner
    if isinstance(node, dict):
        inner = (*owner, node["class_path"]) if "class_path" in node else owner
        for key, value in node.items():
            yield from _paths(value, (*path, key), inner)


def changed(config: dict[str, Any], changes: dict[tuple[str, ...], Any]) -> dict[str, Any]:
    """A copy with other values at some paths."""
    copied = copy.deepcopy(config)
    for path, value in changes.items():
        node = copied
        for key in path[:-1]:
            node = node[key]
        node[path[-1]] = value
    return copied


def attempt(config: dict[str, Any], folder: Path) -> Outcome:
    """Runs a config in this process and judges what came of it."""
    path = folder / "case.yaml"
    path.write_text(yaml.safe_dump(config, allow_unicode=True))
    out, err = io.StringIO(), io.StringIO()
    before = os.getcwd()
    (folder / "here").mkdir(exist_ok=True)
    os.chdir(folder / "here")  # a relative runs_dir stays below
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), _alarm():
            code = cli.main(["fit", "--config", str(path)])
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return Outcome("fault", f"{type(error).__name__}: {str(error)[:300]} [{_place(error)}]")
    finally:
        os.chdir(before)
    return _judge(code, err.getvalue())


def _place(error: BaseException) -> str:
    """The innermost line of this project, and the innermost of all."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "site-packages" not in frame.filename]
    return "; ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in (*ours[-1:], frames[-1]))


def _judge(code: int, error: str) -> Outcome:
    lines = [line for line in error.splitlines() if not line.startswith("warning: ")]
    message = "\n".join(lines)
    if code == 0 or (code == 1 and message.startswith("error: the run diverged")):
        return Outcome("ran", message)
    if code == 2 and message.startswith("error: ") and "Traceback" not in message and len(message) < 20_000:
        return Outcome("refused", message)
    return Outcome("fault", f"exit code {code}: {message[:500]}")


@contextlib.contextmanager
def _alarm() -> Iterator[None]:
    def stop(signum: int, frame: Any) -> None:
        raise TooLongError(f"not done after {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def main() -> int:
    """Tries every setting with every value and prints what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="settings whose name holds this text")
    parser.add_argument("--part", default="1/1", help="K/N: every N-th case from the K-th")
    options = parser.parse_args()
    first, count = map(int, options.part.split("/"))
    os.environ["HF_HUB_OFFLINE"] = "1"
    resource.setrlimit(resource.RLIMIT_AS, (GIBIBYTES << 30, GIBIBYTES << 30))
    tally: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["RANKWISE_CACHE"] = str(folder / "cache")
        bases = base_configs(folder)
        known = [field for field in fields(bases) if options.only in field.name]
        cases = [(field, label) for field in known for label in BAD_VALUES if field.name not in STARTS_PROCESSES]
        random.Random(0).shuffle(cases)  # a run that is cut short has still seen a bit of everything
        cases = cases[first - 1 :: count]
        print(f"{len(known)} settings, {len(cases)} cases", flush=True)
        for field, label in cases:
            outcome = attempt(changed(bases[field.base], {field.path: BAD_VALUES[label]}), folder)
            tally[outcome.kind] += 1
            if outcome.kind == "fault":
                print(f"{field.base}: {field.name} = {label}: {outcome.detail}", flush=True)
    print(dict(tally))
    return 1 if tally["fault"] else 0


if __name__ == "__main__":
    sys.exit(main())
