"""What a person sees of a sweep: a live table on a terminal, one line per trial anywhere else."""

import sys
import time
from pathlib import Path
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from experiments.results_file import read_results
from experiments.sweep.folder import State, SweepFolder
from experiments.sweep.grid import Trial
from experiments.sweep.trial_run import FAILURE, LOG, Outcome, shown_results

_ROWS = 20
_UNDONE = (State.WAITING, State.BEGUN, Outcome.STOPPED, Outcome.ELSEWHERE)
_STYLES = {"finished": "green", "failed": "red", "collapsed": "yellow", "diverged": "yellow", "running": "bold cyan"}


class Progress:
    """Counts trials as they start and end, and shows them.

    Args:
        folder: the sweep's folder.
        trials: all trials of this call.
        at_once: how many run at the same time, for the time left.
    """

    def __init__(self, folder: SweepFolder, trials: list[Trial], at_once: int) -> None:
        self.folder, self.trials, self.at_once = folder, trials, max(at_once, 1)
        self.states = {trial.name: _shown_state(folder, trial) for trial in trials}
        self.started_at: dict[str, float] = {}
        self.best: tuple[str, str, float, bool] | None = None  # trial, metric, value, whether higher is better
        self._seconds: list[float] = []  # of finished trials
        for trial in trials:
            self._note_results(trial)
        # trials print into their logs: this keeps writing to the terminal
        self._console = Console(file=sys.stdout)
        self._live = Live(self, console=self._console, refresh_per_second=1) if sys.stdout.isatty() else None
        self._output = sys.stdout

    def __enter__(self) -> "Progress":
        if self._live is not None:
            self._live.start()
        self._say(self.summary())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def started(self, trial: Trial) -> None:
        """A trial begins."""
        self.states[trial.name] = "running"
        self.started_at[trial.name] = time.monotonic()
        self._say(f"started   {trial.name}")

    def ended(self, trial: Trial, outcome: Outcome) -> None:
        """A trial has ended, one way or the other."""
        self.states[trial.name] = (
            str(outcome) if outcome in (Outcome.STOPPED, Outcome.ELSEWHERE) else (_shown_state(self.folder, trial))
        )
        self._note_results(trial)
        seconds = time.monotonic() - self.started_at.get(trial.name, time.monotonic())
        self._say(f"{self.states[trial.name]:9} {trial.name}  {self._figure(trial)}  {_clock(seconds)}")
        self._say(f"          {self.summary()}")

    def summary(self) -> str:
        """Done, running, left, best so far, time left: one line."""
        states = list(self.states.values())
        running, waiting = states.count("running"), sum(state in _UNDONE for state in states)
        failed = states.count("failed")
        parts = [f"{len(states) - running - waiting} of {len(states)} done" + (f" ({failed} failed)" if failed else "")]
        parts += [f"{running} running", f"{waiting} left"]
        if self.best is not None:
            name, metric, value, _ = self.best
            parts.append(f"best {metric.replace('_', ' ')} {value:.4f} ({name})")
        if self._seconds and running + waiting:
            spent = sum(time.monotonic() - self.started_at[name] for name, state in self.states.items()
                        if state == "running" and name in self.started_at)  # fmt: skip
            mean = sum(self._seconds) / len(self._seconds)
            left = max(mean * (running + waiting) - spent, 0) / self.at_once
            parts.append(f"about {_clock(left)} left")
        return ", ".join(parts)

    def __rich__(self) -> Group:
        table = Table(title=escape(self.folder.path.name), expand=False)
        for column in ("trial", "state", "result", "time"):
            table.add_column(column, overflow="fold" if column == "trial" else "ellipsis", no_wrap=column != "trial")
        for trial in self._shown():
            state = self.states[trial.name]
            seconds = time.monotonic() - self.started_at[trial.name] if state == "running" else None
            note = _last_line(self.folder.trial_folder(trial) / LOG) if state == "running" else self._figure(trial)
            clock = "" if seconds is None else _clock(seconds)
            # as Text: brackets in a name, a log or an error are no markup
            table.add_row(Text(trial.name), Text(state, style=_STYLES.get(state, "")), Text(note), clock)
        return Group(table, Text(self.summary()))

    def _shown(self) -> list[Trial]:
        """As many rows as fit: around the running ones."""
        rows = max(min(_ROWS, self._console.height - 8), 3)
        running = [place for place, trial in enumerate(self.trials) if self.states[trial.name] == "running"]
        first = max(min((running[0] if running else 0) - rows // 2, len(self.trials) - rows), 0)
        return self.trials[first : first + rows]

    def _figure(self, trial: Trial) -> str:
        results = shown_results(self.folder, trial)
        if results is not None and results["metric"]["best"] is not None:
            metric = results["metric"]
            return f"{metric['name'].replace('_', ' ')} {metric['best']:.4f}"
        failure = self.folder.trial_folder(trial) / FAILURE
        return failure_text(failure) if failure.exists() else ""

    def _note_results(self, trial: Trial) -> None:
        results = shown_results(self.folder, trial)
        if results is None:
            return
        self._seconds.append(results["wall_seconds"])
        metric = results["metric"]
        if metric["best"] is None:
            return
        higher = metric["higher_is_better"]
        sign = 1 if higher else -1
        if self.best is None or sign * metric["best"] > sign * self.best[2]:
            self.best = (trial.name, metric["name"], metric["best"], higher)

    def _say(self, line: str) -> None:
        if self._live is None:
            print(line, file=self._output, flush=True)


def failure_text(path: Path) -> str:
    """Why a trial failed, in one line."""
    return str(read_results(path)["error"])


def _shown_state(folder: SweepFolder, trial: Trial) -> str:
    results = shown_results(folder, trial)
    return results["status"] if results is not None else str(folder.state(trial))


def _last_line(path: Path) -> str:
    if not path.exists():
        return ""
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - 300, 0))
        lines = file.read().decode(errors="replace").strip().splitlines()
    return lines[-1][:80] if lines else ""


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
