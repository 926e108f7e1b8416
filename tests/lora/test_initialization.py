"""How LoRA's factors start, against the laws they are drawn from."""

import math

import pytest
import torch
from torch import nn

from lora.factors import initial_factors


def test_initial_factors_have_their_distributions():
    torch.manual_seed(0)
    shape, rank = torch.Size([300, 400]), 50
    for rule in ("uniform", "kaiming"):
        A, B = initial_factors(rule, shape, rank)
        assert 0.99 / 20 < float(A.abs().max()) <= 1 / 20
        assert float(A.std()) == pytest.approx(1 / 20 / math.sqrt(3), rel=0.02)
        assert abs(float(A.mean())) < 1e-3
        assert not B.any()
    for std, expected in ((None, 1 / rank), (0.5, 0.5)):
        A, B = initial_factors("gaussian", shape, rank, std)
        assert float(A.std()) == pytest.approx(expected, rel=0.02)
        assert float((A.abs() > 2 * expected).float().mean()) == pytest.approx(0.0455, abs=0.006)  # of a normal law
        assert not B.any()
    for factor in initial_factors("both_gaussian", shape, rank):
        assert float(factor.std()) == pytest.approx(1, rel=0.02)
    assert [tuple(factor.shape) for factor in (A, B)] == [(50, 400), (300, 50)]


def test_kaiming_is_what_torch_and_so_peft_draws():
    torch.manual_seed(5)
    A, _ = initial_factors("kaiming", torch.Size([30, 40]), 6)
    torch.manual_seed(5)
    theirs = nn.init.kaiming_uniform_(torch.empty(6, 40), a=math.sqrt(5))
    torch.testing.assert_close(A, theirs)
