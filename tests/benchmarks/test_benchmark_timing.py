import pytest

from benchmarks import timing
from benchmarks.timing import StepWindow, median_seconds


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves on."""
    time = {"now": 0.0}
    monkeypatch.setattr(timing, "now", lambda: time["now"])

    def pass_time(seconds):
        time["now"] += seconds

    return pass_time


def run_epochs(window, clock, epochs, steps):
    """Epochs of steps of one second each, with something else between them."""
    for _ in range(epochs):
        window.epoch_started()
        for _ in range(steps):
            clock(1.0)
            window.step_ended()
        window.epoch_ended()
        clock(50.0)


# a warm-up may end within an epoch or with it, or be longer
@pytest.mark.parametrize(
    ("warm_up", "timed", "epochs", "steps"), [(3, 10, 2, 10), (4, 4, 4, 4), (5, 4, 4, 4), (9, 4, 4, 4)]
)
def test_the_window_holds_its_steps_and_nothing_between_epochs(clock, warm_up, timed, epochs, steps):
    window = StepWindow(warm_up, timed)
    run_epochs(window, clock, epochs, steps)
    assert window.complete
    assert window.seconds == timed


def test_a_window_that_was_not_filled_says_so(clock):
    window = StepWindow(warm_up_steps=1, steps=4)
    run_epochs(window, clock, epochs=1, steps=4)
    assert not window.complete
    assert window.seconds == 3.0


def test_ways_take_turns_and_the_first_time_warms_up(clock):
    seconds = {"a": iter([100.0, 1.0, 5.0, 2.0]), "b": iter([3.0, 3.0, 3.0, 3.0])}
    order = []

    def way(name):
        order.append(name)
        clock(next(seconds[name]))

    assert median_seconds({name: lambda name=name: way(name) for name in seconds}, 3) == {"a": 2.0, "b": 3.0}
    assert order == ["a", "b"] * 4
