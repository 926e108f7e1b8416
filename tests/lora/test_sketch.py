"""Sketches: what they notice, what they let pass, and those that earlier versions wrote."""

import copy

import pytest
import torch

from lora.factors import factorise
from lora.sketch import MADE_AGAIN, same_sketch, sketch, sketch_factors, sketch_parameters
from tests.architectures import classifier
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


def alike(factors, others) -> bool:
    return same_sketch(sketch_factors(factors), sketch_factors(others), MADE_AGAIN)


@pytest.mark.parametrize("steep", [False, True])
@pytest.mark.parametrize(("change", "which"), [(flip, "AB"), (flip, "A"), (flip, "B"), (swap, "AB")])
def test_a_flipped_or_swapped_direction_is_noticed(change, which, steep):
    _, factors = made(steep=steep)
    for layer in (0, 1):
        for direction in range(1, RANK):
            others = changed(factors, layer, lambda A, B, d=direction: change(A, B, d, which))
            assert not alike(factors, others), (layer, direction)


def test_another_weight_rule_rank_or_order_of_layers_is_noticed():
    weights, factors = made()
    for others in (
        factorise([weights[0], decaying(40, 24, seed=9)], RANK, "svd"),
        factorise([weights[0], 1.1 * weights[1]], RANK, "svd"),
        factorise(weights, RANK, "random"),
        factorise(weights, RANK - 1, "svd"),
        factors[::-1],
    ):
        assert not alike(factors, others)
    scaled = factorise([weights[0], 1.1 * weights[1]], RANK, "random")
    assert not alike(factorise(weights, RANK, "random"), scaled)


@pytest.mark.parametrize("steep", [False, True])
@pytest.mark.parametrize("rule", ["svd", "random"])
def test_rounding_of_another_machine_is_tolerated(rule, steep):
    weights, factors = made(rule, steep)
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        noisy = [(A * (1 + 1e-5 * torch.randn(A.shape, generator=generator)), B) for A, B in factors]
        shaken = [weight * (1 + 1e-5 * torch.randn(weight.shape, generator=generator)) for weight in weights]
        assert alike(factors, noisy) and alike(factors, factorise(shaken, RANK, rule))


def test_a_models_weights_are_known_again_and_any_change_is_noticed():
    model, _ = classifier("bert")
    weights = dict(model.named_parameters())
    ours = sketch_parameters(weights)
    assert same_sketch(ours, sketch_parameters(dict(copy.deepcopy(model).named_parameters())))
    for name, weight in weights.items():
        poked = weight.detach().clone()
        poked.view(-1)[0] += 1e-2  # one entry
        assert not same_sketch(ours, sketch_parameters({**weights, name: poked})), name
        if weight.any():
            assert not same_sketch(ours, sketch_parameters({**weights, name: 1.001 * weight})), (
                name
            )  # nor its length alone


def test_tensors_without_values_or_none_at_all_have_a_sketch():
    assert sketch([]).shape == (0, 2)
    assert sketch([torch.randn(3, 4, device="meta"), torch.zeros(2), torch.ones(())]).shape == (3, 2)


def fixed_vector(length: int) -> torch.Tensor:
    return torch.cos(torch.arange(1, length + 1) * 1.6180339887) + 0.5


def test_sketches_are_those_of_their_formula():
    weights, factors = made()
    of_lora = [
        torch.stack([fixed_vector(len(w)) @ (w / w.norm()) @ fixed_vector(w.shape[1]), w.norm().log()]) for w in weights
    ]
    assert same_sketch(sketch(weights), torch.stack(of_lora), MADE_AGAIN)
    of_lora_xs = []
    for A, B in factors:
        lengths = A.norm(dim=1)
        of_lora_xs.append(torch.cat([A @ fixed_vector(A.shape[1]) / lengths, fixed_vector(len(B)) @ B, lengths.log()]))
    assert same_sketch(sketch_factors(factors), torch.stack(of_lora_xs), MADE_AGAIN)
