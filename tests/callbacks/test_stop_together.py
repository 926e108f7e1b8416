"""What of Lightning's signal handling, which has no public way in, StopTogether builds on."""

import signal

import lightning
import pytest
from lightning.pytorch import Trainer

from callbacks.stop_together import StopTogether

CHANGED = (
    f"Lightning {lightning.__version__} no longer lets callbacks/stop_together.py replace its handlers of SIGTERM: "
    "several processes would wait for each other for ever when one is told to stop."
)


@pytest.mark.parametrize("name", ["_sigterm_notifier_fn", "_slurm_sigusr_handler_fn", "received_sigterm"])
def test_lightning_has_the_parts_that_are_replaced(name):
    connector = getattr(Trainer(accelerator="cpu", logger=False), "_signal_connector", None)
    assert hasattr(connector, name), f"{CHANGED} Trainer._signal_connector.{name} is gone."


def test_lightning_has_the_agreement_at_every_batch_that_is_left_out():
    assert hasattr(Trainer(accelerator="cpu", logger=False).fit_loop.epoch_loop, "_broadcast_sigterm_tensor")


def test_of_several_processes_the_handler_takes_a_note_and_the_loops_look_at_what_was_agreed(monkeypatch):
    trainer, callback = Trainer(accelerator="cpu", logger=False), StopTogether()
    monkeypatch.setattr(Trainer, "world_size", 2)
    callback._group = object()
    callback.setup(trainer, None, "fit")
    connector = trainer._signal_connector
    connector.register_signal_handlers()
    try:
        signal.raise_signal(signal.SIGTERM)
    finally:
        connector.teardown()
    assert callback._told and not trainer.received_sigterm, CHANGED
    agreed = []
    monkeypatch.setattr("torch.distributed.all_reduce", lambda told, operation, group: agreed.append(bool(told[0])))
    callback.on_validation_batch_end(trainer)
    assert agreed == [True] and trainer.received_sigterm, CHANGED


@pytest.mark.parametrize(("slowest", "batches"), [(0.25, 4), (5.0, 1), (1e-6, 100)])
def test_processes_ask_each_other_again_after_a_second_of_the_slowest_ones_batches(slowest, batches, monkeypatch):
    trainer, callback, calls = Trainer(accelerator="cpu", logger=False), StopTogether(), []
    monkeypatch.setattr(Trainer, "world_size", 2)
    monkeypatch.setattr(
        "torch.distributed.all_reduce", lambda agreed, *more, **others: calls.append(agreed[1].fill_(slowest))
    )
    for _ in range(1 + 2 * batches):
        callback.on_validation_batch_end(trainer)
    assert len(calls) == 3
