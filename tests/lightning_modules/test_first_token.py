import copy

import pytest
import torch

from lightning_modules.first_token import use_first_token_only
from tests.architectures import classifier

INPUTS = {
    "input_ids": torch.tensor([[2, 5, 7, 9, 11, 3], [2, 8, 6, 3, 1, 1], [2, 30, 3, 1, 1, 1]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0], [1, 1, 1, 0, 0, 0]]),
}
FIRST_TOKEN = ("bert", "roberta", "xlm-roberta", "electra")


def gradients(model):
    model.zero_grad()
    logits = model(**INPUTS).logits
    logits.square().sum().backward()
    return logits, {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def rows_through(model, module) -> list[torch.Size]:
    seen = []
    handle = module.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].shape))
    model(**INPUTS)
    handle.remove()
    return seen


@pytest.mark.parametrize("model_type", FIRST_TOKEN)
def test_logits_and_gradients_are_those_of_the_whole_layer(model_type):
    whole, _ = classifier(model_type)
    short = copy.deepcopy(whole)
    use_first_token_only(short)
    (ours, our_gradients), (theirs, their_gradients) = gradients(short), gradients(whole)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)
    assert our_gradients.keys() == their_gradients.keys()
    for name, gradient in our_gradients.items():
        torch.testing.assert_close(gradient, their_gradients[name], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("model_type", FIRST_TOKEN)
def test_only_the_last_layer_is_cut(model_type):
    model, _ = classifier(model_type)
    use_first_token_only(model)
    layers = getattr(model, model.base_model_prefix).encoder.layer
    assert rows_through(model, layers[0].intermediate) == [(3, 6, 8)]
    assert rows_through(model, layers[-1].attention.self) == [(3, 6, 8)]
    assert rows_through(model, layers[-1].intermediate) == [(3, 1, 8)]


@pytest.mark.parametrize("model_type", ["albert", "distilbert", "gpt2", "mpnet", "t5"])
def test_other_architectures_are_left_alone(model_type):
    model, _ = classifier(model_type)
    use_first_token_only(model)
    assert not any(module._forward_pre_hooks for module in model.modules())
