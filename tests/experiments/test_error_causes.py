import resource

import numpy as np
import pytest
import torch

from callbacks.checkpoints import WholeFileCheckpoints
from common.errors import IncompleteRunError
from experiments.error_causes import input_error_behind, out_of_memory, told_as_input_errors


def test_a_limit_that_torchs_writer_meets_is_the_users_to_lift(tmp_path):
    """torch says "unexpected pos" on top of what the system said, as with a full disk or a quota."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(RuntimeError) as raised:
            WholeFileCheckpoints().save_checkpoint({"weights": torch.zeros(100_000)}, tmp_path / "last.ckpt")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "no space left to write" in str(input_error_behind(raised.value))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ask", [lambda: torch.empty(2**55), lambda: np.empty(2**55), lambda: bytearray(2**62)])
def test_memory_that_runs_out_is_one_message_of_what_needs_less(ask):
    with pytest.raises(IncompleteRunError, match=r"^out of memory: .*\n.*--data.batch_size"), told_as_input_errors():
        ask()
    assert out_of_memory(RuntimeError("shapes differ")) is None


def test_parameters_that_a_step_does_not_use_are_told_to_the_user_of_data_parallel_training(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1)
    try:
        model = torch.nn.ModuleDict({"used": torch.nn.Linear(2, 2), "unused": torch.nn.Linear(2, 2)})
        model.forward = lambda x: model["used"](x)
        parallel = torch.nn.parallel.DistributedDataParallel(model)
        with pytest.raises(RuntimeError) as raised:
            for _ in range(2):
                parallel(torch.ones(1, 2)).sum().backward()
    finally:
        torch.distributed.destroy_process_group()
    assert "--trainer.strategy ddp_find_unused_parameters_true" in str(input_error_behind(raised.value))
