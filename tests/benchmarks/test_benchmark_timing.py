import pytest

from benchmarks import timing
from benchmarks.inputs import BenchmarkSettings
from benchmarks.timing import StepWindow


def test_the_window_holds_its_steps_and_nothing_else(monkeypatch):
    time = [0.0]
    monkeypatch.setattr(timing, "now", lambda: time[0])
    window = StepWindow(BenchmarkSettings(steps=4, warm_up_steps=2, batch_size=8))
    time[0] += 100.0  # start-up
    counted = []
    for _ in range(6):
        counted.append(window.timing)
        time[0] += 1.0 if window.timing else 50.0
        window.step_ended()
    time[0] += 100.0  # a checkpoint
    assert counted == [False] * 2 + [True] * 4 and not window.timing
    figures = window.figures()
    assert (figures["samples_per_second"], figures["seconds_per_step"]) == (8.0, 1.0)
    assert figures["peak_memory_bytes"] > 2**20


def test_a_window_that_was_not_filled_has_no_figures():
    window = StepWindow(BenchmarkSettings(steps=4, warm_up_steps=1))
    for _ in range(4):
        window.step_ended()
    with pytest.raises(ValueError):
        window.figures()
