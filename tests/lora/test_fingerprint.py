import pytest
import torch

from lora.factors import factorise, fingerprint, same_fingerprint
from tests.lora.test_factors import decaying, spectrum

RANK = 6
STEEP = 300 * 0.4 ** torch.arange(24)  # real weights have one direction that dwarfs the others


def made(rule: str = "svd", steep: bool = False):
    weights = [spectrum(24, 40, STEEP), spectrum(40, 24, STEEP, 1)] if steep else [decaying(24, 40), decaying(40, 24)]
    return weights, factorise(weights, RANK, rule)


def changed(factors, layer: int, change):
    """The factors with `change(A, B)` in one layer."""
    copies = [(A.clone(), B.clone()) for A, B in factors]
    copies[layer] = change(*copies[layer])
    return copies


def flip(A, B, direction: int, which: str):
    signs = torch.ones(RANK)
    signs[direction] = -1
    return (A * signs[:, None] if "A" in which else A), (B * signs if "B" in which else B)


def swap(A, B, direction: int, which: str):
    order = list(range(RANK))
    order[direction], order[direction - 1] = order[direction - 1], order[direction]
    return A[order], B[:, order]


@pytest.mark.parametrize("steep", [False, True])
@pytest.mark.parametrize("direction", range(1, RANK))
@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize(("change", "which"), [(flip, "AB"), (flip, "A"), (flip, "B"), (swap, "AB")])
def test_a_flipped_or_swapped_direction_is_noticed(change, which, layer, direction, steep):
    _, factors = made(steep=steep)
    others = changed(factors, layer, lambda A, B: change(A, B, direction, which))
    assert not same_fingerprint(fingerprint(factors), fingerprint(others))


@pytest.mark.parametrize("rule", ["svd", "random"])
def test_another_weight_is_noticed(rule):
    weights, factors = made(rule)
    replaced = factorise([weights[0], decaying(40, 24, seed=9)], RANK, rule)
    scaled = factorise([weights[0], 1.1 * weights[1]], RANK, rule)
    for others in (scaled, replaced) if rule == "svd" else (scaled,):
        assert not same_fingerprint(fingerprint(factors), fingerprint(others))


def test_another_rule_rank_or_order_of_layers_is_noticed():
    weights, factors = made()
    ours = fingerprint(factors)
    assert not same_fingerprint(ours, fingerprint(factorise(weights, RANK, "random")))
    assert not same_fingerprint(ours, fingerprint(factorise(weights, RANK - 1, "svd")))
    assert not same_fingerprint(ours, fingerprint(factors[::-1]))


@pytest.mark.parametrize("steep", [False, True])
@pytest.mark.parametrize("rule", ["svd", "random"])
def test_rounding_of_another_machine_is_tolerated(rule, steep):
    weights, factors = made(rule, steep)
    ours = fingerprint(factors)
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        noisy = [(A * (1 + 1e-5 * torch.randn(A.shape, generator=generator)), B) for A, B in factors]
        assert same_fingerprint(ours, fingerprint(noisy))
        shaken = [weight * (1 + 1e-5 * torch.randn(weight.shape, generator=generator)) for weight in weights]
        assert same_fingerprint(ours, fingerprint(factorise(shaken, RANK, rule)))
