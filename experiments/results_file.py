"""Checks of a sweep's own files."""

from typing import Any

from common.errors import InputError
from common.files import is_plain_name
from experiments.results import RunResults
from experiments.results import read_json as read_results


def check_results(results: Any, where: str) -> None:
    """Refuses a run's results that lack something: see `RunResults.from_dict`."""
    RunResults.from_dict(results, where)


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


__all__ = ["check_failure", "check_results", "check_trial", "read_results"]
