"""A module is built on the CPU whatever device is the default, as Lightning makes the GPU."""

import pytest
import torch

from lora import AdaptiveLoRA, AdaptiveLoRAXS, LoRA, LoRAXS, NestedLoRAXS
from tests import tiny

ADAPTERS = {
    "adaptive_lora_xs": lambda: AdaptiveLoRAXS(1, 4, 2.0),
    "lora_xs": lambda: LoRAXS(4),
    "lora_xs_random_factors": lambda: LoRAXS(4, factors="random"),
    "nested_lora_xs": lambda: NestedLoRAXS(rank_max=4),
    "lora": lambda: LoRA(4, lora_alpha=8),
    "adaptive_lora": lambda: AdaptiveLoRA(1, 4, 2.0, lora_alpha=8),
    "full": lambda: None,
}


@pytest.mark.parametrize("name", ADAPTERS)
def test_initial_weights_do_not_depend_on_the_default_device(name, tiny_bert, cola_folder):
    states = []
    for device in ("cpu", "meta"):  # a tensor made on the default device would be empty, or clash with the others
        module = tiny.make_module(tiny_bert, ADAPTERS[name]())
        trainer = tiny.make_trainer(limit_train_batches=0, limit_val_batches=0)
        trainer.strategy.tensor_init_context = lambda *args, device=device, **settings: torch.device(device)
        torch.manual_seed(0)
        trainer.fit(module, datamodule=tiny.make_data(tiny_bert, cola_folder))
        states.append(module.state_dict())
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0] if torch.is_tensor(states[0][key]))
