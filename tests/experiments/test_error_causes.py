import resource

import pytest
import torch

from callbacks.checkpoints import WholeFileCheckpoints
from experiments.error_causes import input_error_behind


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
