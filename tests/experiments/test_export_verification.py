"""When an export counts as saying what the run says."""

import pytest
import torch

from common.errors import VerificationError
from experiments.export import _compare


def test_logits_that_are_no_numbers_are_never_called_equal():
    finite, spoiled = torch.zeros(2, 3), torch.tensor([[0.0, torch.nan, 0.0]])
    with pytest.raises(VerificationError, match="at most nan from the run's"):
        _compare([finite, finite[:1]], [finite, spoiled], 1e-5, "the run's")
    with pytest.raises(VerificationError, match="the run's logits of 3 validation rows aren't all finite"):
        _compare([finite, spoiled], [finite, spoiled], 1e-5, "the run's")
