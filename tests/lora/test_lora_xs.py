"""LoRA-XS's adapter against dense weights, its parameters and settings."""

import pytest
import torch

from common.errors import InputError
from lora import LoRAXS
from lora.factors import svd_factors
from lora.layers import dense_weight
from tests.architectures import classifier
from tests.lora.attached import attached, dense_logits, filled, logits

RANK = 4


@pytest.mark.parametrize("model_type", ["bert", "gpt2"])
def test_logits_are_those_of_a_model_with_dense_updates(model_type):
    model, adapter = attached(LoRAXS(RANK, lora_alpha=2.0, scaling="constant"), model_type)
    filled(adapter)
    plain, updates = classifier(model_type)[0], {}
    for name, R in zip(adapter.layer_names, adapter.R, strict=True):
        A, B = svd_factors(dense_weight(plain.get_submodule(name)), RANK)
        updates[name] = 2.0 * B @ R @ A
    torch.testing.assert_close(logits(model), dense_logits(model_type, updates), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(logits(model), logits(plain), atol=1e-3)


def test_initial_entries_have_the_asked_standard_deviation():
    _, adapter = attached(LoRAXS(8, initial_std=1e-5))
    assert 0.9e-5 < float(adapter.R.std()) < 1.1e-5
    assert abs(float(adapter.R.mean())) < 2e-6


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": 0}, "rank is 0"),
        ({"initial_std": -1.0}, "initial_std is -1"),
        ({"scaling": "x"}, "scaling is 'x'"),
        ({"rank": 9}, "rank is 9, but the weight has shape"),  # known once the layers are
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        attached(LoRAXS(**settings))


def test_random_factors_differ_from_the_singular_ones_and_have_their_own_fingerprint():
    model, adapter = attached(LoRAXS(RANK, factors="random"))
    name = adapter.layer_names[0]
    A, _ = svd_factors(classifier("bert")[0].get_submodule(name).weight, RANK)
    layer = model.get_submodule(name)
    torch.testing.assert_close(layer.A.norm(dim=1), A.norm(dim=1))
    assert not torch.allclose(layer.A, A)
    assert not torch.allclose(adapter.fingerprint, attached(LoRAXS(RANK))[1].fingerprint, atol=0.05)
