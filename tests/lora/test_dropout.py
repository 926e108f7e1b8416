import pytest
import torch
from torch import nn

from lora.dropout import SixteenBitDropout, use_sixteen_bit_dropout

ENTRIES = 400_000


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5, 0.97])
def test_the_rate_and_the_scale_are_those_of_dropout(rate):
    torch.manual_seed(0)
    y = SixteenBitDropout(rate)(torch.ones(ENTRIES))
    kept = y != 0
    spread = (rate * (1 - rate) / ENTRIES) ** 0.5
    assert abs(float(kept.double().mean()) - (1 - rate)) < 4 * spread
    assert y[kept].unique().numel() == 1
    rounded = round(rate * 65536) / 65536  # 0.1 becomes 6554 / 65536
    assert float(y.max()) == pytest.approx(1 / (1 - rounded), rel=1e-6)


def test_neighbouring_entries_are_dropped_independently():
    torch.manual_seed(2)
    kept = (SixteenBitDropout(0.5)(torch.ones(ENTRIES)) != 0).double() - 0.5
    for distance in (1, 2, 3, 4, 8):
        correlation = float((kept[:-distance] * kept[distance:]).mean()) * 4
        assert abs(correlation) < 4 / ENTRIES**0.5


def test_gradients_pass_where_entries_were_kept():
    x = torch.randn(3, 7, 5, requires_grad=True)
    y = SixteenBitDropout(0.4)(x)
    y.sum().backward()
    torch.testing.assert_close(y.detach(), x.detach() * x.grad)


def test_the_same_seed_drops_the_same_entries():
    x, layer = torch.randn(9, 11), SixteenBitDropout(0.2)
    torch.manual_seed(5)
    first = layer(x)
    state = torch.get_rng_state()
    second = layer(x)
    torch.set_rng_state(state)
    assert torch.equal(layer(x), second) and not torch.equal(first, second)


@pytest.mark.parametrize(("rate", "training", "expected"), [(0.5, False, 1.0), (0.0, True, 1.0), (1.0, True, 0.0)])
def test_nothing_is_drawn_where_nothing_is_left_to_chance(rate, training, expected):
    state = torch.get_rng_state()
    y = SixteenBitDropout(rate).train(training)(torch.ones(50))
    assert torch.equal(y, torch.full((50,), expected))
    if rate < 1:
        assert torch.equal(torch.get_rng_state(), state)


def test_a_models_dropout_layers_are_replaced_with_their_settings():
    model = nn.Sequential(nn.Dropout(0.25), nn.Linear(2, 2), nn.Sequential(nn.Dropout(0.5)).eval())
    use_sixteen_bit_dropout(model)
    assert isinstance(model[0], SixteenBitDropout) and isinstance(model[2][0], SixteenBitDropout)
    assert (model[0].p, model[2][0].p, model[0].training, model[2][0].training) == (0.25, 0.5, True, False)
