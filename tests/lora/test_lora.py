"""LoRA's adapter against dense weights and PEFT, its scales and settings."""

import math

import pytest
import torch
from transformers.pytorch_utils import Conv1D

from common.errors import InputError
from lora import AdaptiveLoRA, LoRA, NestedLoRA
from tests.architectures import classifier

RANK = 4
IDS = torch.arange(2, 14).view(2, 6)


def attached(adapter, model_type: str = "bert"):
    torch.manual_seed(1)
    model, head = classifier(model_type)
    model.requires_grad_(False)
    adapter.attach(model, model_type, head)
    adapter.refresh()
    return model, adapter


def filled(adapter):
    """A and B at a size that shows in the logits."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for factor in (*adapter.A.values(), *adapter.B.values()):
            factor.copy_(0.3 * torch.randn(factor.shape, generator=generator))
    adapter.refresh()
    return adapter


def logits(model):
    return model(input_ids=IDS).logits


@pytest.mark.parametrize("model_type", ["bert", "gpt2", "distilbert", "llama"])
@pytest.mark.parametrize("scaling", ["alpha_over_rank", "alpha_over_sqrt_rank"])
def test_logits_are_those_of_pefts_lora_on_the_same_weights(model_type, scaling):
    peft = pytest.importorskip("peft")
    model, adapter = attached(LoRA(3, lora_alpha=5.0, scaling=scaling, targets="default"), model_type)
    filled(adapter)
    config = peft.LoraConfig(
        r=3,
        lora_alpha=5.0,
        use_rslora=scaling == "alpha_over_sqrt_rank",
        target_modules=list(adapter.layer_names),
        fan_in_fan_out=model_type == "gpt2",
    )
    theirs = peft.inject_adapter_in_model(config, classifier(model_type)[0]).eval()
    with torch.no_grad():
        for name, A, B in zip(adapter.layer_names, adapter.A.values(), adapter.B.values(), strict=True):
            layer = theirs.get_submodule(name)
            layer.lora_A.default.weight.copy_(A)
            layer.lora_B.default.weight.copy_(B)
    model.double()
    theirs.double()
    adapter.double()
    adapter.refresh()
    torch.testing.assert_close(logits(model), logits(theirs), rtol=0, atol=1e-6)
    assert not torch.allclose(logits(theirs), logits(classifier(model_type)[0].double()), atol=1e-2)


@pytest.mark.parametrize("model_type", ["bert", "gpt2"])
def test_logits_are_those_of_a_model_with_dense_updates(model_type):
    model, adapter = attached(LoRA(RANK, lora_alpha=2.0, scaling="constant"), model_type)
    filled(adapter)
    dense, _ = classifier(model_type)
    with torch.no_grad():
        for name, A, B in zip(adapter.layer_names, adapter.A.values(), adapter.B.values(), strict=True):
            weight = dense.get_submodule(name).weight
            update = 2.0 * B @ A
            weight += update.T if isinstance(dense.get_submodule(name), Conv1D) else update
    torch.testing.assert_close(logits(model), logits(dense), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"lora_alpha": 32}, 32 / 16),
        ({"lora_alpha": 32, "scaling": "alpha_over_sqrt_rank"}, 8.0),
        ({"lora_alpha": 32, "scaling": "constant"}, 32.0),
        ({"alpha_per_rank": 10}, 10.0),
        ({"alpha_per_rank": 10, "scaling": "alpha_over_sqrt_rank"}, 40.0),
        ({"alpha_per_rank": 10, "scaling": "constant"}, 160.0),
    ],
)
def test_scaling_rules(settings, expected):
    assert math.isclose(LoRA(16, **settings).scaling, expected)
    assert math.isclose(AdaptiveLoRA(1, 16, 4, **settings).scaling, expected)  # of rank_max
    assert math.isclose(NestedLoRA(1, 16, **settings).scaling, expected)


@pytest.mark.parametrize("kind", [LoRA, NestedLoRA])
@pytest.mark.parametrize("both", [{}, {"lora_alpha": 16, "alpha_per_rank": 2}])
def test_alpha_twice_or_never_is_refused(kind, both):
    with pytest.raises(InputError, match=r"lora_alpha is .* and alpha_per_rank is .*; allowed: exactly one"):
        kind(**both)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": 0}, "rank is 0; allowed: 1 or more"),
        ({"dropout": 1.0}, "dropout is 1.0; allowed: 0 to below 1"),
        ({"lora_alpha": 0.0}, "lora_alpha is 0.0; allowed: a finite number above 0"),
        ({"lora_alpha": None, "alpha_per_rank": -1.0}, "alpha_per_rank is -1.0; allowed: a finite number above 0"),
        ({"scaling": "alpha"}, "scaling is 'alpha'; allowed: alpha_over_rank"),
        ({"initialization": "unifrom"}, "initialization is 'unifrom'.*Did you mean 'uniform'"),
        ({"initial_std": 0.1}, "initial_std is 0.1 and initialization is 'uniform'"),
        ({"initial_std": -0.1, "initialization": "gaussian"}, "initial_std is -0.1"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        LoRA(**{"lora_alpha": 16.0, **settings})


@pytest.mark.parametrize("rule", ["uniform", "kaiming", "gaussian"])
def test_a_fresh_adapter_leaves_the_logits_as_they_were(rule):
    model, _ = attached(LoRA(RANK, 16, initialization=rule))
    assert torch.equal(logits(model), logits(classifier("bert")[0]))


def test_both_gaussian_starts_far_off():
    model, _ = attached(LoRA(RANK, 16, initialization="both_gaussian"))
    before = logits(classifier("bert")[0])
    assert float((logits(model) - before).norm() / before.norm()) > 0.5


def test_the_global_seed_decides_the_start():
    first, again = (attached(LoRA(RANK, 16))[1] for _ in range(2))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(first.A.values(), again.A.values(), strict=True))
    values = list(first.A.values())
    assert not torch.equal(values[0], values[1])


def test_parameters_are_named_after_their_layers_and_counted_once():
    model, adapter = attached(LoRA(RANK, 16, targets=["query"]))
    names = [f"bert/encoder/layer/{layer}/attention/self/query" for layer in range(2)]
    assert [name for name, _ in adapter.named_parameters()] == [f"{side}.{name}" for side in "AB" for name in names]
    assert sum(parameter.numel() for parameter in adapter.parameters()) == 2 * RANK * (8 + 8)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    logits(model)[:, 0].sum().backward()
    assert all(bool(B.grad.any()) for B in adapter.B.values())


def test_low_rank_factors_rebuild_the_update():
    _, adapter = attached(LoRA(RANK, lora_alpha=6.0))
    filled(adapter)
    factors = adapter.low_rank_factors()
    assert list(factors) == list(adapter.layer_names)
    for name, (A, B) in factors.items():
        key = name.replace(".", "/")
        torch.testing.assert_close(B @ A, 6.0 / RANK * adapter.B[key] @ adapter.A[key])
        assert (A.shape[0], B.shape[1]) == (RANK, RANK)
        assert not A.requires_grad


@pytest.mark.parametrize("initialization", ["uniform", "both_gaussian"])
def test_a_larger_adapter_that_starts_from_low_rank_factors_gives_the_same_logits(initialization):
    model, adapter = attached(LoRA(RANK, lora_alpha=6.0, targets="attention"))
    filled(adapter)
    larger_model, larger = attached(LoRA(RANK + 2, lora_alpha=1.0, initialization=initialization))
    larger.load_low_rank_factors(adapter.low_rank_factors())
    torch.testing.assert_close(logits(larger_model), logits(model), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LoRA(RANK - 1, 1.0), "the update has rank 4 in a layer, this adapter has 3"),
        (
            lambda: LoRA(RANK, 1.0, targets=["query"]),
            "attention.output.dense .and 5 more layers. that this run doesn't",
        ),
        (lambda: AdaptiveLoRA(1, 8, 4, lora_alpha=1.0), "the adapter is AdaptiveLoRA, whose masks"),
    ],
)
def test_low_rank_factors_that_do_not_fit_are_refused(make, message):
    factors = filled(attached(LoRA(RANK, lora_alpha=6.0, targets="attention"))[1]).low_rank_factors()
    with pytest.raises(InputError, match=message):
        attached(make())[1].load_low_rank_factors(factors)


def test_another_backbone_has_another_fingerprint_but_a_wrapped_head_does_not_count():
    prints = [attached(LoRA(RANK, 16, wrap_head=True))[1].fingerprint]
    for path in ("classifier", "bert.encoder.layer.1.output.dense"):
        model, head = classifier("bert")
        with torch.no_grad():
            model.get_submodule(path).weight.mul_(-1)
        adapter = LoRA(RANK, 16, wrap_head=True)
        adapter.attach(model, "bert", head)
        prints.append(adapter.fingerprint)
    assert torch.equal(prints[0], prints[1])
    assert not torch.allclose(prints[0], prints[2], rtol=0, atol=0.05)


def test_a_wrapped_head_is_adapted_over_its_random_start():
    model, adapter = attached(LoRA(RANK, 16, targets="attention", wrap_head=True), "distilbert")
    assert adapter.layer_names[-2:] == ("pre_classifier", "classifier")
    assert len(adapter.layer_names) == 2 * 4 + 2
    assert torch.equal(logits(model), logits(classifier("distilbert")[0]))
    assert not any(parameter.requires_grad for parameter in model.parameters())
    filled(adapter)
    assert not torch.allclose(logits(model), logits(classifier("distilbert")[0]), atol=1e-3)


def test_without_the_option_a_target_in_the_head_is_refused():
    with pytest.raises(InputError, match="matches classifier, which belongs to the head"):
        attached(LoRA(RANK, 16, targets=["query", "classifier"]))
    assert "classifier" in attached(LoRA(RANK, 16, targets=["query", "classifier"], wrap_head=True))[1].layer_names
