import pytest

from benchmarks import timing
from benchmarks.timing import StepWindow


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves on."""
    time = {"now": 0.0}
    monkeypatch.setattr(timing, "now", lambda: time["now"])

    def pass_time(seconds):
        time["now"] += seconds

    return pass_time


def run_epochs(window, clock, epochs, steps, between):
    """Epochs of steps of one second each, with something else between them."""
    for _ in range(epochs):
        window.epoch_started()
        for _ in range(steps):
            clock(1.0)
            window.step_ended()
        window.epoch_ended()
        clock(between)


def test_the_window_holds_its_steps_and_nothing_between_epochs(clock):
    window = StepWindow(warm_up_steps=3, steps=10)
    run_epochs(window, clock, epochs=2, steps=10, between=100.0)
    assert window.complete
    assert window.seconds == 10.0


def test_a_warm_up_may_end_with_an_epoch_or_be_longer(clock):
    for warm_up_steps in (4, 5, 9):
        window = StepWindow(warm_up_steps, steps=4)
        run_epochs(window, clock, epochs=4, steps=4, between=50.0)
        assert window.seconds == 4.0


def test_a_window_that_was_not_filled_says_so(clock):
    window = StepWindow(warm_up_steps=1, steps=4)
    run_epochs(window, clock, epochs=1, steps=4, between=0.0)
    assert not window.complete
    assert window.seconds == 3.0
