"""Lightning's loggers and callbacks by name alone: what they need besides is the run's to say."""

import json
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

_RUN_FOLDER = "run_folder"  # stands in config.yaml, so that another run with these settings has its own
_LOGGERS = ("CSVLogger", "TensorBoardLogger", "WandbLogger", "MLFlowLogger")
_OPTIONS = ("--trainer.logger", "--trainer.callbacks", "--trainer.callbacks+")


def completed_options(options: list[str]) -> list[str]:
    """Typed options: see `completed`."""
    done: list[str] = []
    for word in options:
        flag, _, value = word.partition("=")
        if flag in _OPTIONS and value:
            word = f"{flag}={_completed_text(value)}"
        elif done and done[-1] in _OPTIONS:
            word = _completed_text(word)
        done.append(word)
    return done


def _completed_text(text: str) -> str:
    try:
        asked = json.loads(text)
    except ValueError:
        asked = text
    made = completed(asked)
    return text if made == asked else json.dumps(made)


def completed(asked: Any) -> Any:
    """A logger or callback (or a list of them) as a config names it, with a folder or a metric where it names none."""
    if isinstance(asked, list):
        return [completed(one) for one in asked]
    path = asked.get("class_path") if isinstance(asked, dict) else asked
    name = str(path).rpartition(".")[2].replace("MLflow", "MLFlow")
    settings = (asked.get("init_args") or {}) if isinstance(asked, dict) else {}
    if name in _LOGGERS and "save_dir" not in settings:
        return {"class_path": f"lightning.pytorch.loggers.{name}", "init_args": {"save_dir": _RUN_FOLDER, **settings}}
    if name == "EarlyStopping" and "monitor" not in settings:
        return {"class_path": "callbacks.early_stopping.MetricStopping", "init_args": settings}
    return asked


def put_into_folder(loggers: Any, folder: Path) -> None:
    """Makes the loggers that name no folder write into the run's."""
    for one in loggers if isinstance(loggers, list) else [loggers]:
        if isinstance(one, Namespace) and one.get("init_args.save_dir") == _RUN_FOLDER:
            one.init_args.save_dir = str(folder)
