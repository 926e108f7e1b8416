"""LoRA's adapter against dense weights and PEFT, its scales and settings."""

import math

import pytest
import torch

from common.errors import InputError
from lora import AdaptiveLoRA, LoRA, NestedLoRA
from tests.architectures import classifier
from tests.lora.attached import attached, dense_logits, filled, logits

RANK = 4


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
    for part in (model, theirs, adapter):
        part.double()
    adapter.refresh()
    torch.testing.assert_close(logits(model), logits(theirs), rtol=0, atol=1e-6)
    assert not torch.allclose(logits(theirs), logits(classifier(model_type)[0].double()), atol=1e-2)


@pytest.mark.parametrize("model_type", ["bert", "gpt2"])
def test_logits_and_exported_factors_are_those_of_dense_updates(model_type):
    model, adapter = attached(LoRA(RANK, lora_alpha=2.0, scaling="constant"), model_type)
    filled(adapter)
    pairs = zip(adapter.layer_names, adapter.A.values(), adapter.B.values(), strict=True)
    updates = {name: 2.0 * B @ A for name, A, B in pairs}
    torch.testing.assert_close(logits(model), dense_logits(model_type, updates), rtol=1e-4, atol=1e-5)
    factors = adapter.low_rank_factors()
    assert list(factors) == list(adapter.layer_names)
    for name, (A, B) in factors.items():
        torch.testing.assert_close(B @ A, updates[name])
        assert (A.shape[0], B.shape[1]) == (RANK, RANK) and not A.requires_grad


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
    for adapter in (LoRA(16, **settings), AdaptiveLoRA(1, 16, 4, **settings), NestedLoRA(1, 16, **settings)):
        assert math.isclose(adapter.scaling, expected)  # of rank_max


@pytest.mark.parametrize("kind", [LoRA, NestedLoRA])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lora_alpha": None}, "lora_alpha is None and alpha_per_rank is None; allowed: exactly one"),
        ({"alpha_per_rank": 2}, "lora_alpha is 16.0 and alpha_per_rank is 2; allowed: exactly one"),
        ({"lora_alpha": 0.0}, "lora_alpha is 0.0; allowed: a finite number above 0"),
        ({"dropout": 1.0}, "dropout is 1.0; allowed: 0 to below 1"),
        ({"scaling": "alpha"}, "scaling is 'alpha'; allowed: alpha_over_rank"),
        ({"initialization": "unifrom"}, "initialization is 'unifrom'.*Did you mean 'uniform'"),
        ({"initial_std": 0.1}, "initial_std is 0.1 and initialization is 'uniform'"),
    ],
)
def test_settings_out_of_range_are_refused(kind, settings, message):
    with pytest.raises(InputError, match=message):
        kind(**{"lora_alpha": 16.0, **settings})
    with pytest.raises(InputError, match="rank is 0; allowed: 1 or more"):
        LoRA(0, 16)


@pytest.mark.parametrize("rule", ["uniform", "kaiming", "gaussian", "both_gaussian"])
def test_all_but_both_gaussian_leave_the_logits_as_they_were(rule):
    model, _ = attached(LoRA(RANK, 16, initialization=rule))
    before = logits(classifier("bert")[0])
    moved = float((logits(model) - before).norm() / before.norm())
    assert moved > 0.5 if rule == "both_gaussian" else torch.equal(logits(model), before)


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
        (lambda: LoRA(RANK, 1.0, targets=["query"]), r"attention.output.dense \(and 5 more layers\) that this run"),
        (lambda: AdaptiveLoRA(1, 8, 4, lora_alpha=1.0), "the adapter is AdaptiveLoRA, whose masks"),
    ],
)
def test_low_rank_factors_that_do_not_fit_are_refused(make, message):
    factors = filled(attached(LoRA(RANK, lora_alpha=6.0, targets="attention"))[1]).low_rank_factors()
    with pytest.raises(InputError, match=message):
        attached(make())[1].load_low_rank_factors(factors)


def test_a_wrapped_head_is_adapted_over_its_random_start_and_can_be_named_as_a_target():
    model, adapter = attached(LoRA(RANK, 16, targets="attention", wrap_head=True), "distilbert")
    assert adapter.layer_names[-2:] == ("pre_classifier", "classifier")
    assert len(adapter.layer_names) == 2 * 4 + 2
    assert torch.equal(logits(model), logits(classifier("distilbert")[0]))
    assert not any(parameter.requires_grad for parameter in model.parameters())
    filled(adapter)
    assert not torch.allclose(logits(model), logits(classifier("distilbert")[0]), atol=1e-3)
    assert "classifier" in attached(LoRA(RANK, 16, targets=["query", "classifier"], wrap_head=True))[1].layer_names
