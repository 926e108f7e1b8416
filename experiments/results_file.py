"""Reading results.json and failure.json back, with what is relied on in them checked."""

import json
from pathlib import Path
from typing import Any

from common.errors import InputError
from common.files import is_plain_name

# What sweeps and reports read of every run's results.json; a dot goes one level down.
_NEEDED = (
    *("status", "seed", "backbone", "adapter", "average_rank", "wall_seconds", "peak_memory_bytes", "versions"),
    *("train_losses", "val_losses", "best_val_loss", "trainable_parameters.total"),
    *(f"metric.{name}" for name in ("name", "higher_is_better", "best", "best_epoch", "last")),
    *(f"data.{name}" for name in ("name", "train_rows", "validation_rows", "test_rows")),
)


def read_results(path: Path) -> dict[str, Any]:
    """A results.json.

    Raises:
        InputError: it isn't whole.
    """
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} can't be read ({error}): it was cut short or changed by hand. {_way_out(path)}"
        ) from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no results but a {type(content).__name__}. Delete this file and run again.")
    return content


def _way_out(path: Path) -> str:
    can_be_made_anew = ("sweep.yaml", "checkpoints/last.ckpt")
    if path.name != "results.json" or any((path.parent / name).exists() for name in can_be_made_anew):
        return (
            "Delete this file; the run itself is kept, and running the sweep (or fit with --ckpt_path last) again "
            "writes it anew."
        )
    return (
        "Put back a copy of this file, if you have one: the run has no last.ckpt to make it from, so it would have to "
        "be run again, after its folder is moved or deleted."
    )


def check_results(results: Any, where: str) -> None:
    """Refuses a run's results that lack something.

    Raises:
        InputError: names the file (`where`) and the first part that is missing.
    """
    for name in _NEEDED:
        part = results
        for step in name.split("."):
            if not isinstance(part, dict) or step not in part:
                raise InputError(
                    f"{where} isn't what a fit of this version writes: it has no {name}. Move this run elsewhere, or "
                    "delete the file and run it again."
                )
            part = part[step]


def check_trial(entry: Any, where: str) -> str:
    """Refuses an entry of a list of trials that lacks something, and returns the trial's name.

    Raises:
        InputError: names the file (`where`) and what is wrong.
    """
    if not isinstance(entry, dict) or not {"results", "overrides"} <= entry.keys():
        raise InputError(f"{where} isn't what a sweep writes. Delete this file and run the sweep again.")
    name = str(entry.get("name") or (entry["results"] or {}).get("run_name"))
    if not is_plain_name(name):
        raise InputError(f"{where} names the trial {name!r}; allowed: folders inside it.")
    if entry["results"] is not None:
        check_results(entry["results"], f"{where} (trial {name})")
    return name


def check_failure(failure: dict[str, Any], where: str) -> None:
    """Refuses a failure.json that lacks something.

    Raises:
        InputError: names the file (`where`).
    """
    if not (isinstance(failure.get("error"), str) and isinstance(failure.get("attempts"), int)):
        raise InputError(f"{where} isn't what a sweep writes: it has no error or attempts. Delete this file.")
