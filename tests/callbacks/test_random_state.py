import random
from types import SimpleNamespace

import numpy
import pytest
import torch

from callbacks.random_state import RandomState
from common.files import atomic_write

FIT = SimpleNamespace(fn="fit")
ONE = SimpleNamespace(world_size=1, global_rank=0, state=FIT)


def draw() -> list[float]:
    """Numbers from every generator, normal ones too: numpy and python keep the second of a pair."""
    drawn = [torch.rand(3), torch.randn(3), numpy.random.rand(3)]
    return [*numpy.concatenate(drawn), numpy.random.randn(), random.random(), random.gauss(0, 1)]


def disturb():
    torch.manual_seed(5)
    numpy.random.seed(5)
    random.seed(5)


@pytest.fixture(autouse=True)
def _leave_as_found():
    states = torch.get_rng_state(), numpy.random.get_state(), random.getstate()
    yield
    torch.set_rng_state(states[0])
    numpy.random.set_state(states[1])
    random.setstate(states[2])


def saved_and_read(tmp_path):
    checkpoint: dict = {}
    RandomState().on_save_checkpoint(ONE, None, checkpoint)
    atomic_write(tmp_path / "a.ckpt", lambda file: torch.save(checkpoint, file))
    return torch.load(tmp_path / "a.ckpt", weights_only=True)


def test_generators_go_on_as_if_nothing_had_happened_once_and_not_before_training(tmp_path):
    draw()  # leaves one normal number of a pair behind
    checkpoint = saved_and_read(tmp_path)
    expected = draw()
    disturb()
    after_setup = torch.get_rng_state()
    callback = RandomState()
    callback.on_load_checkpoint(ONE, None, checkpoint)
    assert torch.equal(torch.get_rng_state(), after_setup)
    callback.on_train_start(ONE, None)
    assert draw() == expected
    callback.on_train_start(ONE, None)
    assert draw() != expected


@pytest.mark.parametrize("world_size", [2, 3])
def test_states_of_another_number_of_processes_are_left_alone(tmp_path, world_size):
    checkpoint = saved_and_read(tmp_path)
    callback = RandomState()
    callback.on_load_checkpoint(SimpleNamespace(world_size=world_size, global_rank=1, state=FIT), None, checkpoint)
    disturb()
    before = torch.get_rng_state()
    callback.on_train_start(ONE, None)
    assert torch.equal(torch.get_rng_state(), before)
