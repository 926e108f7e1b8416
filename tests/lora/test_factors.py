"""Factors against exact singular values, scikit-learn, and the laws that random ones are drawn from."""

import math

import numpy
import pytest
import torch
from sklearn.decomposition import TruncatedSVD

from common.errors import InputError
from lora.factors import factorise, initial_factors, random_factors, svd_factors

SHAPES = [(24, 40), (40, 24), (32, 32)]


def spectrum(out: int, into: int, values: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """A weight (out, in) with these singular values."""
    generator = torch.Generator().manual_seed(seed)
    U, _ = torch.linalg.qr(torch.randn(out, len(values), generator=generator, dtype=torch.float64))
    V, _ = torch.linalg.qr(torch.randn(into, len(values), generator=generator, dtype=torch.float64))
    return ((U * values.double()) @ V.T).float()


def decaying(out: int, into: int, seed: int = 0) -> torch.Tensor:
    """Singular values 10, 8, 6.4, …: clear gaps all the way."""
    return spectrum(out, into, 10 * 0.8 ** torch.arange(min(out, into)), seed)


def same_lines(ours: torch.Tensor, theirs: torch.Tensor, tolerance: float) -> bool:
    """Whether the rows of two matrices are equal up to their signs."""
    signs = torch.sign((ours * theirs).sum(dim=1, keepdim=True))
    return torch.allclose(ours, signs * theirs, rtol=0, atol=tolerance)


@pytest.mark.parametrize("shape", SHAPES)
def test_product_is_the_best_approximation_of_its_rank(shape):
    weight = decaying(*shape)
    A, B = svd_factors(weight, 6)
    U, S, Vh = torch.linalg.svd(weight.double())
    best = (U[:, :6] * S[:6]) @ Vh[:6]
    torch.testing.assert_close((B @ A).double(), best, rtol=0, atol=1e-4)
    error = float(torch.linalg.matrix_norm(weight - B @ A))
    assert abs(error - float(S[6:].norm())) < 1e-3


@pytest.mark.parametrize("shape", SHAPES)
def test_factors_are_those_of_the_study(shape):
    weight = decaying(*shape, seed=1)
    study = TruncatedSVD(n_components=6, n_iter=10, random_state=42)
    scaled = study.fit_transform(weight.T.numpy())  # U S (in, r)
    A, B = svd_factors(weight, 6)
    assert same_lines(A, torch.from_numpy(scaled.T.copy()).float(), 1e-3)
    assert same_lines(B.T, torch.from_numpy(numpy.ascontiguousarray(study.components_)).float(), 1e-3)


def test_leading_directions_are_the_factors_of_a_lower_rank():
    weight = decaying(40, 24)
    A, B = svd_factors(weight, 8)
    for rank in (1, 3, 7):
        lower_A, lower_B = svd_factors(weight, rank)
        torch.testing.assert_close(lower_A, A[:rank], rtol=0, atol=1e-3)
        torch.testing.assert_close(lower_B, B[:, :rank], rtol=0, atol=1e-3)


@pytest.mark.parametrize("rule", ["svd", "random"])
def test_factors_repeat_and_leave_the_global_random_state_alone(rule):
    weights = [decaying(24, 40), decaying(40, 24)]
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = factorise(weights, 4, rule)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    second = factorise(weights, 4, rule)
    assert all(torch.equal(a, b) for one, other in zip(first, second) for a, b in zip(one, other))


def test_random_directions_have_the_lengths_of_the_singular_ones_and_differ_from_them():
    weight = decaying(24, 40)
    A, B = random_factors(weight, 6)
    svd_A, svd_B = svd_factors(weight, 6)
    torch.testing.assert_close(A.norm(dim=1), svd_A.norm(dim=1))
    torch.testing.assert_close(B.norm(dim=0), torch.ones(6))
    cosines = (A * svd_A).sum(1) / (A.norm(dim=1) * svd_A.norm(dim=1))
    assert float(cosines.abs().max()) < 0.6
    assert float((B * svd_B).sum(0).abs().max()) < 0.6
    (first, _), (second, _) = factorise([weight, weight], 4, "random")  # another layer has others
    assert not torch.allclose(first, second)


def test_a_rank_the_weight_can_not_have_and_an_unknown_rule_are_refused():
    for rank in (0, 25):
        with pytest.raises(InputError, match=rf"rank is {rank}, but the weight has shape \(24, 40\); allowed: 1 to 24"):
            svd_factors(decaying(24, 40), rank)
    with pytest.raises(InputError, match="factors is 'qr'; allowed: svd, random"):
        factorise([decaying(24, 40)], 2, "qr")


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
    theirs = torch.nn.init.kaiming_uniform_(torch.empty(6, 40), a=math.sqrt(5))
    torch.testing.assert_close(A, theirs)
