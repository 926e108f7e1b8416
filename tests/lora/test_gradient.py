"""Directions from the gradient, against the SVD of the gradient itself and finite differences of the loss."""

from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from common.errors import InputError
from lora import AdaptiveLoRA, AdaptiveLoRAXS, LoRA, LoRAXS
from lora.gradient import Directions, gradient_directions, ranks_by_energy
from lora.layers import dense_weight
from tests.lora.attached import attached

RANK = 3


class Net(nn.Module):
    """Two layers, one of which stores its weight transposed and is called twice."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(12, 20), Conv1D(20, 20), nn.Linear(20, 2)

    def forward(self, x):
        return self.head(torch.tanh(self.second(torch.tanh(self.second(torch.tanh(self.first(x)))))).mean(dim=1))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net()


@pytest.fixture
def batches():
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(8, 5, 12, generator=generator), torch.randint(2, (8,), generator=generator)) for _ in range(6)]


def loss(net, batch):
    return functional.cross_entropy(net(batch[0]), batch[1])


def found(net, batches, rank=RANK):
    for layer in (net.first, net.second):
        layer.requires_grad_(False)
    layers = {"first": net.first, "second": net.second}
    return gradient_directions(layers, rank, batches, lambda batch: loss(net, batch).backward())


def dense_gradients(net, batches):
    """The mean gradient of each layer's weight, (out, in), as autograd has it."""
    net = deepcopy(net).requires_grad_(True)
    sum(loss(net, batch) for batch in batches).backward()
    return {"first": net.first.weight.grad / len(batches), "second": net.second.weight.grad.T / len(batches)}


@pytest.mark.parametrize("name", ["first", "second"])
def test_directions_are_those_of_the_svd_of_the_mean_gradient(net, batches, name):
    batches = batches[:3] * 2  # the basis is of the first half alone: here it has all there is
    directions, G = found(net, batches)[name], dense_gradients(net, batches)[name]
    S = torch.linalg.svdvals(G)[:RANK]
    torch.testing.assert_close(directions.S, S, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(directions.U.T @ G @ directions.V, torch.diag(S), rtol=0, atol=1e-3 * float(S[0]))
    for ours in (directions.U, directions.V):
        torch.testing.assert_close(ours.T @ ours, torch.eye(RANK), rtol=0, atol=1e-5)


def test_energies_are_the_slopes_of_the_loss_on_the_other_half(net, batches):
    name, step = "first", 1e-3  # with 12 inputs its basis is whole: the first half's directions are those of its SVD
    directions, G = found(net, batches)[name], dense_gradients(net, batches[:3])[name]
    U, S, Vh = torch.linalg.svd(G)
    V = Vh.T

    def mean_loss(change):
        moved = deepcopy(net)
        with torch.no_grad():
            moved.first.weight += change
            moved.double()
            return float(sum(loss(moved, (x.double(), y)) for x, y in batches[3:]) / 3)

    slopes = [
        (mean_loss(step * torch.outer(U[:, j], V[:, j])) - mean_loss(-step * torch.outer(U[:, j], V[:, j]))) / 2 / step
        for j in range(RANK)
    ]
    expected = (torch.tensor(slopes) * S[:RANK]).clamp_min(0)
    torch.testing.assert_close(directions.energies, expected, rtol=1e-2, atol=1e-9)


def test_a_gradient_that_is_zero_or_not_finite_is_refused_by_name(net, batches):
    with torch.no_grad():
        net.head.weight.zero_()
    with pytest.raises(InputError, match="the gradient of first is zero"):
        found(net, batches)
    with torch.no_grad():
        net.head.weight.fill_(float("nan"))
    with pytest.raises(InputError, match="the gradient of first is not finite"):
        found(net, batches)


def test_batches_in_parts_give_the_same_directions(net, batches):
    alone = found(net, batches)["first"]
    halves = [[(x[part], y[part]) for x, y in batches] for part in (slice(4), slice(4, None))]
    both = [pair for batch in zip(*halves, strict=True) for pair in batch]
    together = found(net, both)["first"]
    torch.testing.assert_close(together.S, alone.S, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(together.U, alone.U, rtol=0, atol=1e-3)


@pytest.mark.parametrize("total", [5, 12, 20])
def test_water_filling_takes_the_largest_energies_where_each_rank_costs_the_same(total):
    energies = torch.rand(6, 5, generator=torch.Generator().manual_seed(2)).sort(dim=1, descending=True).values
    ranks = ranks_by_energy(energies, torch.ones(6), 1, 0, 5, total)
    threshold = energies.flatten().sort(descending=True).values[total - 1]
    assert ranks.tolist() == (energies >= threshold).sum(dim=1).tolist()


@pytest.mark.parametrize(("rank_min", "budget"), [(0, 7), (1, 40), (0, 10_000)])
def test_water_filling_keeps_budget_and_bounds(rank_min, budget):
    energies = torch.rand(6, 5, generator=torch.Generator().manual_seed(3))
    ranks = ranks_by_energy(energies, torch.ones(6), 2, rank_min, 5, budget)
    assert ranks.min() >= rank_min
    assert ranks.max() <= 5
    used = int((ranks**2).sum())
    assert used <= budget
    cheapest = min((2 * rank + 1 for rank in ranks.tolist() if rank < 5), default=budget + 1)
    assert used + cheapest > budget  # nothing more would have fitted


def some_directions(layer, energies):
    U, V = (torch.linalg.qr(torch.randn(side, len(energies)))[0] for side in dense_weight(layer.base).shape)
    return Directions(U, torch.arange(len(energies), 0, -1).float(), V, energies)


def test_layers_of_rank_0_are_left_alone_and_nothing_below_them_is_differentiated():
    model, adapter = attached(
        AdaptiveLoRAXS(0, 3, budget=9, allocation="fixed_by_energy", factors="gradient", gradient_batches=2)
    )
    energies = torch.zeros(len(adapter.layer_names), 3)
    energies[-1] = 1.0
    pairs = zip(adapter.adapted_layers, energies, strict=True)
    adapter.take_directions([some_directions(layer, row) for layer, row in pairs])
    adapter.refresh()
    assert list(adapter.discrete_ranks().values()) == [0] * (len(energies) - 1) + [3]
    seen = {}
    for name, layer in zip(adapter.layer_names, adapter.adapted_layers, strict=True):
        layer.register_forward_hook(lambda _, inputs, output, name=name: seen.update({name: output.requires_grad}))
    model(input_ids=torch.arange(2, 8)[None]).logits.sum().backward()
    assert list(seen.values()) == [False] * (len(energies) - 1) + [True]
    assert adapter.R.grad[-1].abs().sum() > 0


def test_a_layer_of_rank_0_of_plain_lora_is_left_alone_once_ranks_are_discrete():
    _, adapter = attached(AdaptiveLoRA(0, 4, budget=48, lora_alpha=4))
    with torch.no_grad():
        adapter.allocation.weights.copy_(torch.linspace(-30, 30, len(adapter.layer_names)))
    adapter.allocation.discretise()
    adapter.refresh()
    ranks = list(adapter.discrete_ranks().values())
    assert [layer.idle for layer in adapter.adapted_layers] == [rank == 0 for rank in ranks]
    assert ranks[0] == 0
    adapter.allocation.soften()
    adapter.refresh()
    assert not any(layer.idle for layer in adapter.adapted_layers)


def test_plain_rounding_leaves_one_layer_its_update():
    _, adapter = attached(AdaptiveLoRAXS(0, 4, budget=1, rounding="plain"))
    with torch.no_grad():
        adapter.allocation.weights.copy_(torch.linspace(0, 0.1, len(adapter.layer_names)))  # each rank below a half
    assert list(adapter.discrete_ranks().values()) == [0] * (len(adapter.layer_names) - 1) + [1]


@pytest.mark.parametrize("rule", ["softmax", "bounded"])
def test_learned_ranks_reach_0_with_finite_gradients(rule):
    _, adapter = attached(AdaptiveLoRAXS(0, 4, rank_average=1, allocation=rule))
    allocation = adapter.allocation
    with torch.no_grad():
        allocation.weights.copy_(torch.linspace(-40, 40, len(allocation.weights)))
    allocation.masks().sum().backward()
    assert torch.isfinite(allocation.weights.grad).all()
    allocation.discretise()
    ranks = allocation.discrete_ranks()
    assert ranks.min() == 0
    torch.testing.assert_close(allocation.masks().sum(dim=(1, 2)), (ranks**2).float())
    assert float((ranks.double() ** 2).sum()) <= allocation.budget


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LoRAXS(gradient_batches=8), "nothing here is made from the gradient"),
        (lambda: LoRAXS(factors="gradient", gradient_batches=0), "gradient_batches from 1"),
        (lambda: LoRAXS(initial_step=1.0), "initial_step is 1.0"),
        (lambda: AdaptiveLoRAXS(rank_average=9, allocation="fixed_by_energy"), "energies aren't known"),
        (lambda: attached(LoRA(999, 4, initialization="gradient")), "rank is 999, but the weight"),
        (lambda: attached(AdaptiveLoRA(0, 4, budget=5, lora_alpha=4)), "a budget of 5 has no solution"),
        (lambda: attached(AdaptiveLoRAXS(0, 4, budget=0)), "a budget of 0 has no solution"),
    ],
)
def test_settings_that_can_t_work_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
