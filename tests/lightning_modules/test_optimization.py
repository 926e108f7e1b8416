import math

import pytest
import torch
from torch import nn

from common.errors import InputError
from lightning_modules.optimization import OptimizerSettings, make_optimizer, make_schedule
from lora import AdaptiveLoRAXS, LoRAXS
from tests import tiny

RATES = {"learning_rate": 1e-3, "head_learning_rate": 5e-3, "allocation_learning_rate": 2e-2}
DECAYS = {"weight_decay": 0.1, "allocation_weight_decay": 0.3}


def rates_over(settings: OptimizerSettings, steps: int) -> list[float]:
    """The learning rate that each step is made with."""
    weight = nn.Parameter(torch.ones(2))
    optimizer = make_optimizer({"adapter": [weight]}, settings)
    schedule = make_schedule(optimizer, settings, steps)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        weight.grad = torch.ones(2)
        optimizer.step()
        schedule.step()
    return rates


@pytest.mark.parametrize("rounding", ["up", "down"])
@pytest.mark.parametrize(("steps", "fraction"), [(100, 0.06), (33, 0.06), (10, 0.0), (7, 1.0), (1, 0.06)])
def test_rate_rises_over_the_warm_up_and_falls_to_zero(steps, fraction, rounding, capsys):
    warm_up = math.ceil(fraction * steps) if rounding == "up" else int(fraction * steps)
    expected = [
        1e-3 * (step / warm_up if step < warm_up else (steps - step) / max(1, steps - warm_up)) for step in range(steps)
    ]
    settings = OptimizerSettings(1e-3, warmup_fraction=fraction, warmup_rounding=rounding)
    ours = rates_over(settings, steps)
    torch.testing.assert_close(torch.tensor(ours), torch.tensor(expected), rtol=1e-9, atol=1e-12)
    assert ("Nothing is trained" in "".join(capsys.readouterr())) == (expected == [0.0])


def test_a_constant_rate_stays():
    assert rates_over(OptimizerSettings(3e-4, schedule="constant"), 5) == [3e-4] * 5


def test_an_update_is_adamws_with_these_averages():
    """Two steps by hand, with gradients 1 and -2."""
    weight = nn.Parameter(torch.tensor([0.5]))
    optimizer = make_optimizer({"adapter": [weight]}, OptimizerSettings(0.1, weight_decay=0.2, betas=(0.5, 0.75)))
    expected, mean, square = 0.5, 0.0, 0.0
    for step, gradient in enumerate((1.0, -2.0), start=1):
        weight.grad = torch.tensor([gradient])
        optimizer.step()
        mean, square = 0.5 * mean + 0.5 * gradient, 0.75 * square + 0.25 * gradient**2
        update = mean / (1 - 0.5**step) / (math.sqrt(square / (1 - 0.75**step)) + 1e-8)
        expected -= 0.1 * (0.2 * expected + update)
        assert weight.item() == pytest.approx(expected, rel=1e-5)


def made_module(backbone: str, cola: str, adapter, **settings):
    """A module with its model loaded, as in a run."""
    module = tiny.make_module(backbone, adapter, **settings)
    tiny.fit(module, tiny.make_data(backbone, cola), limit_train_batches=0, limit_val_batches=0)
    return module


@pytest.fixture(params=["adaptive", "fixed", "full"])
def module(request, tiny_bert, cola_folder):
    adapter = {"adaptive": lambda: AdaptiveLoRAXS(1, 4, 2.0), "fixed": lambda: LoRAXS(4), "full": lambda: None}
    return made_module(tiny_bert, cola_folder, adapter[request.param](), **RATES, **DECAYS, betas=(0.5, 0.75))


def test_optimizer_holds_every_trainable_parameter_once_and_no_other(module):
    optimizer = make_optimizer(module.parameter_groups(), module.optimizer_settings)
    held = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    assert len(held) == len(set(held))
    assert set(held) == {id(parameter) for parameter in module.parameters() if parameter.requires_grad}


def test_each_parameter_is_in_its_group_with_the_groups_rate_and_weight_decay(module):
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    expected = {"head": (5e-3, 0.1), "adapter": (1e-3, 0.1), "allocation": (2e-2, 0.3), "backbone": (1e-3, 0.1)}
    for group in make_optimizer(module.parameter_groups(), module.optimizer_settings).param_groups:
        assert (group["lr"], group["weight_decay"]) == expected[group["name"]]
        assert group["betas"] == (0.5, 0.75)
        for name in (names[id(parameter)] for parameter in group["params"]):
            wanted = "allocation" if name == "adapter.rank_allocation.weights" else "adapter"
            if name.startswith("model."):
                wanted = "head" if name.startswith("model.classifier.") else "backbone"
            assert group["name"] == wanted


WRONG = [("learning_rate", -1.0), ("learning_rate", math.inf), ("head_learning_rate", math.nan)]
WRONG += [("allocation_learning_rate", -1e-3), ("weight_decay", -0.1), ("allocation_weight_decay", math.inf)]
WRONG += [("warmup_fraction", 1.5), ("warmup_rounding", "nearest"), ("schedule", "cosine")]
WRONG += [("betas", (2, 3)), ("betas", (0.9, 1.0))]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_settings_out_of_range_are_refused_by_name(name, value):
    with pytest.raises(InputError, match=f"^{name} is .*allowed"):
        OptimizerSettings(**{name: value})


def group_settings(module):
    """The settings of each group of parameters, by the group's name."""
    groups = module.trainer.optimizers[0].param_groups
    return {group["name"]: tuple(group[key] for key in ("lr", "weight_decay", "betas")) for group in groups}


OTHER = {"learning_rate": 3e-3, "head_learning_rate": 4e-3, "allocation_learning_rate": 5e-3}
OTHER |= {"weight_decay": 0.3, "allocation_weight_decay": 0.2, "betas": (0.8, 0.9)}


@pytest.mark.parametrize(
    ("first", "changes"),
    [("linear_with_warmup", {}), ("linear_with_warmup", OTHER), ("constant", {"warmup_fraction": 0.5})],
)
def test_a_resumed_run_has_the_rates_of_one_that_always_had_its_settings_and_length(
    tiny_bert, cola_folder, tmp_path, first, changes
):
    def seen(epochs, schedule, resumed=None, **settings):
        groups = tiny.notes(group_settings, "on_train_batch_start")
        adapter = AdaptiveLoRAXS(rank_min=1, rank_max=4, rank_average=2.5)
        module = tiny.make_module(tiny_bert, adapter, schedule=schedule, **{**RATES, **settings})
        trainer = tiny.make_trainer(groups, max_epochs=epochs)
        trainer.fit(module, datamodule=tiny.make_data(tiny_bert, cola_folder), ckpt_path=resumed)
        return groups.seen, trainer

    trainer = seen(1, first)[1]
    trainer.save_checkpoint(tmp_path / "whole.ckpt")  # where the first schedule has come down to 0
    resumed = seen(2, "linear_with_warmup", str(tmp_path / "whole.ckpt"), **changes)[0]
    assert resumed == seen(2, "linear_with_warmup", **changes)[0][5:]
    assert len(resumed) == 5
