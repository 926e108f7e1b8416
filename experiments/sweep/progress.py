"""What a person sees of a sweep: a live table on a terminal, one line per trial anywhere else."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from statistics import mean

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from experiments.results import Metric, RunResults
from experiments.sweep.folder import LOG, State, SweepFolder
from experiments.sweep.grid import Trial

_ROWS = 20
_LOGS = 3  # running trials whose last line is shown
_OTHER_LINES = 9  # title, frame and header of the table, and a summary of up to three lines
_RESULT = 27  # characters that a result may take from a name: matthews correlation 0.1234
_FRAME = 29  # beside a name and a result: state, time and the lines between them
_SHORTEST_NAME = 24
_RUNNING = "running"
_UNDONE = (State.WAITING, State.BEGUN, State.PAUSED, State.STOPPED, State.ELSEWHERE)
_STYLES = {"finished": "green", "failed": "red", "collapsed": "yellow", "diverged": "yellow", _RUNNING: "bold cyan"}


class Progress:
    """Counts trials as they start and end, and shows them.

    `after_each` is called when a trial has ended, before that is shown. With `anew` all will be run, whatever the
    folder holds; where some `may_pause` for good, the time left is the most it can be.
    """

    def __init__(
        self,
        folder: SweepFolder,
        trials: list[Trial],
        at_once: int = 1,
        after_each: Callable[[], None] = lambda: None,
        anew: bool = False,
        may_pause: bool = False,
    ) -> None:
        self._told_time = "at most" if may_pause else "about"
        self.folder, self.trials, self.at_once, self._after_each = folder, trials, max(at_once, 1), after_each
        self._results: dict[str, RunResults] = {}  # of finished trials, by name
        self._started_at: dict[str, float] = {}
        self.states = {trial.name: str(State.WAITING) if anew else self._read_state(trial) for trial in trials}
        # trials print into their logs: this keeps writing to the terminal
        self._console, self._output = Console(file=sys.stdout), sys.stdout
        self._live = Live(self, console=self._console, refresh_per_second=1) if sys.stdout.isatty() else None

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Shows them while the context lasts."""
        with self._live or nullcontext():
            self.say(self.summary())
            yield

    @property
    def unfinished(self) -> list[Trial]:
        return [trial for trial in self.trials if self.folder.state(trial) is not State.FINISHED]

    def started(self, trial: Trial) -> None:
        self.states[trial.name] = _RUNNING
        self._started_at[trial.name] = time.monotonic()
        self.say(f"started   {trial.name}")

    def ended(self, trial: Trial, outcome: State) -> None:
        self._after_each()
        state = self._read_state(trial)
        self.states[trial.name] = str(outcome) if outcome in (State.STOPPED, State.ELSEWHERE) else state
        self.say(f"{self.states[trial.name]:9} {trial.name}  {self._figure(trial)}  {_clock(self._seconds(trial))}")
        self.say(f"          {self.summary()}")

    def summary(self) -> str:
        """Done, running, left, best so far, time left: one line."""
        states = list(self.states.values())
        running, waiting = states.count(_RUNNING), sum(state in _UNDONE for state in states)
        failed = f" ({states.count('failed')} failed)" if "failed" in states else ""
        parts = [f"{len(states) - running - waiting} of {len(states)} done{failed}"]
        parts += [f"{running} running", f"{waiting} left"]
        metrics = [(name, one.metric) for name, one in self._results.items() if one.metric.best is not None]
        if metrics:
            name, best = max(metrics, key=lambda one: (one[1].best or 0) * (1 if one[1].higher_is_better else -1))
            parts.append(f"best {_told(best)} ({name})")
        if self._results and running + waiting:
            parts.append(f"{self._told_time} {_clock(self._seconds_left())} left")
        return ", ".join(parts)

    def _seconds_left(self) -> float:
        """Each trial takes what finished ones of its method took on average, or what all did where none of it has."""
        finished = [trial for trial in self.trials if trial.name in self._results]
        left = 0.0
        for trial in self.trials:
            if self.states[trial.name] in (*_UNDONE, _RUNNING):
                alike = [other for other in finished if other.method == trial.method]
                left += mean(self._results[other.name].wall_seconds for other in alike or finished)
            if self.states[trial.name] == _RUNNING:
                left -= self._seconds(trial)
        return max(left, 0) / self.at_once

    def table(self, trials: list[Trial]) -> Table:
        """A row for each of these trials, at most as wide as the terminal, where long names are shortened.

        The title names the metric, if there is one for all.
        """
        metrics = {results.metric.name for results in self._results.values()}
        metric = f": {metrics.copy().pop().replace('_', ' ')}" if len(metrics) == 1 else ""
        table = Table(title=escape(self.folder.path.name) + metric, expand=False)
        for column in ("trial", "state", "result", "time"):
            table.add_column(column, overflow="ellipsis", no_wrap=True)
        notes = [Text(self._figure(trial, with_name=not metric)) for trial in trials]
        needed = min(max(map(len, notes), default=0), _RESULT)
        names = shortened([trial.name for trial in trials], max(self._console.width - _FRAME - needed, _SHORTEST_NAME))
        left = self._console.width - _FRAME - max(map(len, names), default=0)
        for trial, name, note in zip(trials, names, notes, strict=True):
            state, results = self.states[trial.name], self._results.get(trial.name)
            note.truncate(max(left, needed), overflow="ellipsis")
            wall = None if results is None else results.wall_seconds
            took = self._seconds(trial) if state == _RUNNING else wall
            # as Text: brackets in a name or an error are no markup
            cells = Text(name), Text(state, style=_STYLES.get(state, "")), note
            table.add_row(*cells, "" if took is None else _clock(took))
        return table

    def _seconds(self, trial: Trial) -> float:
        """For how long it has been running."""
        return time.monotonic() - self._started_at.get(trial.name, time.monotonic())

    def __rich__(self) -> Group:
        """As many rows as fit, around the running ones; below them what these have said last."""
        running = [place for place, trial in enumerate(self.trials) if self.states[trial.name] == _RUNNING]
        said = [_last_line(self.folder.trial_folder(self.trials[place]) / LOG) for place in running[:_LOGS]]
        rows = max(min(_ROWS, self._console.height - _OTHER_LINES - len(said)), 3)
        first = max(min((running[0] if running else 0) - rows // 2, len(self.trials) - rows), 0)
        logs = [Text(line, style="dim", no_wrap=True, overflow="ellipsis") for line in said if line]
        return Group(self.table(self.trials[first : first + rows]), *logs, Text(self.summary()))

    def _read_state(self, trial: Trial) -> str:
        if (results := self.folder.results(trial)) is None:
            return str(self.folder.state(trial))
        self._results[trial.name] = results
        return results.status

    def _figure(self, trial: Trial, with_name: bool = True) -> str:
        if (results := self._results.get(trial.name)) is not None and results.metric.best is not None:
            return _told(results.metric) if with_name else f"{results.metric.best:.4f}"
        failure = self.folder.failure(trial) if self.states[trial.name] == State.FAILED else None
        return "" if failure is None else failure.error

    def say(self, line: str) -> None:
        """Draws the live table at once, since a short trial may be over before its next drawing, or prints a line."""
        if self._live is None:
            print(line, file=self._output, flush=True)
        else:
            self._live.refresh()


def _last_line(path: Path) -> str:
    if not path.exists():
        return ""
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - 300, 0))
        lines = file.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""


def shortened(names: list[str], room: int) -> list[str]:
    """Names of at most `room` characters, cut at the place nearest to their middle that leaves them different."""
    starts = sorted(range(room), key=lambda start: abs(start - room // 2))
    ways = ([_cut(name, start, room) for name in names] for start in starts)
    middle = [_cut(name, room // 2, room) for name in names]
    return next((way for way in ways if len(set(way)) == len(set(names))), middle)


def _cut(name: str, start: int, room: int) -> str:
    """The name's first characters, as many as `start`, and its last ones, if it is too long for the room."""
    return name if len(name) <= room else f"{name[:start]}…{name[len(name) - (room - 1 - start) :]}"


def _told(metric: Metric) -> str:
    return f"{metric.name.replace('_', ' ')} {metric.best:.4f}"


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
