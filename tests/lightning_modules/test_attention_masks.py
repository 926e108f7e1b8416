"""Masks made on the host against those that transformers makes, and that no model with one waits for its device."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from benchmarks.launches import StepCounter
from lightning_modules import attention_masks
from lightning_modules.attention_masks import accept_ready_masks, attention_of, with_ready_mask
from tests.architectures import TINY_CONFIGS

KINDS = (*attention_masks._ENCODERS, *attention_masks._OWN_ATTENTION, *attention_masks._DECODERS)


def made(kind, **changes):
    torch.manual_seed(0)
    auto = AutoModelForCausalLM if kind in attention_masks._DECODERS else AutoModelForSequenceClassification
    sizes = TINY_CONFIGS.get(kind, TINY_CONFIGS["bert"]) | {"pad_token_id": 0, **changes}
    return auto.from_config(AutoConfig.for_model(kind, **sizes)).eval()


def test_transformers_still_tells_a_models_attention():
    model = made("bert")
    model.set_attn_implementation("eager")
    assert attention_of(model) == "eager", (
        "transformers no longer keeps a model's attention in config._attn_implementation: ready masks, and the refusal "
        "of flash attention on a CPU, depend on it. Find where it is now, for lightning_modules/attention_masks.py."
    )


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_a_ready_mask_gives_the_answers_of_transformers_own_without_a_wait(kind, padded):
    model, mask = made(kind), torch.ones(3, 9, dtype=torch.long)
    if padded:
        mask[1, 5:] = mask[2, 2:] = 0
    inputs = {"input_ids": torch.randint(1, 40, (3, 9)) * mask, "attention_mask": mask}
    with torch.no_grad(), StepCounter() as theirs:
        theirs.counting = True
        expected = model(**inputs).logits
    assert accept_ready_masks(model) and theirs.waits  # else there would be nothing to gain
    ready = with_ready_mask(inputs, kind, "32-true")
    with torch.no_grad(), StepCounter() as ours:
        ours.counting = True
        found = model(**ready).logits
    real = mask.bool() if kind in attention_masks._DECODERS else slice(None)
    torch.testing.assert_close(found[real], expected[real], rtol=1e-6, atol=1e-6)
    assert not ours.waits


def test_sliding_windows_encoders_that_look_back_and_other_attention_take_no_ready_masks():
    assert not accept_ready_masks(made("qwen2", use_sliding_window=True, sliding_window=4, max_window_layers=0))
    model = made("bert")
    model.set_attn_implementation("eager")
    assert not accept_ready_masks(model)
    assert not accept_ready_masks(made("megatron-bert"))
    assert not accept_ready_masks(made("roberta", is_decoder=True))
