"""A backbone in fewer bits trains as one whose weights were rounded by hand; checkpointing changes memory alone."""

import shutil
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback
from safetensors.torch import load_file, save_file
from torch.autograd.graph import saved_tensors_hooks

import cli
from common.errors import InputError
from lightning_modules import (
    LanguageModellingModule,
    OptimizerSettings,
    PEFTAdapter,
    TextClassificationModule,
    quantization,
)
from lora import LoRA, LoRAXS
from lora.products.stored_linear import StoredLinear
from tests import tiny
from tests.command_line import CrashError, crash_at, differences, outcome, run, write_config

pytest.importorskip("bitsandbytes")

# QLoRA (arXiv 2305.14314), appendix E
NF4 = torch.tensor(
    [
        *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635),
        *(-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725),
        *(0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
    ]
)
STORAGES = {
    "nf4": {"quantization": "nf4"},
    "int8": {"quantization": "int8"},
    "bfloat16": {"backbone_dtype": "bfloat16"},
    "nf4_and_bfloat16": {"quantization": "nf4", "backbone_dtype": "bfloat16"},
}
ADAPTERS = {"lora_xs": lambda: LoRAXS(4, initial_std=0.1), "lora": lambda: LoRA(4, lora_alpha=8)}


def rounded_by_hand(weight, kind):
    """(out, in) -> (out, in)."""
    if kind == "bfloat16":
        return weight.bfloat16().float()
    if kind == "int8":
        scale = weight.abs().amax(dim=1, keepdim=True) / 127
        return (weight / scale).round() * scale
    blocks = weight.reshape(-1, 64)
    scale = blocks.abs().amax(dim=1, keepdim=True)
    nearest = ((blocks / scale)[..., None] - NF4).abs().argmin(dim=-1)
    return (NF4[nearest] * scale).view(weight.shape)


def rounded_folder(backbone, target, storage):
    """A copy of a saved backbone with other values in its files, to be used in float32."""
    shutil.copytree(backbone, target)
    tensors = load_file(target / "model.safetensors")
    rest = storage.get("backbone_dtype", "float32")
    for name, weight in tensors.items():
        embeds = "embeddings" in name or "wte" in name or "wpe" in name
        kind = rest if embeds else storage.get("quantization", rest)
        if weight.ndim == 2 and kind != "float32":
            is_conv1d = "gpt2" in str(backbone) and not embeds
            dense = weight.T.contiguous() if is_conv1d else weight
            held = rounded_by_hand(dense, kind)
            tensors[name] = held.T.contiguous() if is_conv1d else held
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    return str(target)


class Watch(Callback):
    """The adapter's gradients at each step, and which tensors the pass forward keeps for the one back."""

    def __init__(self):
        self.gradients, self.kept = [], []

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.hooks = saved_tensors_hooks(self._note, lambda tensor: tensor)
        self.hooks.__enter__()

    def _note(self, tensor):
        if not isinstance(tensor, torch.nn.Parameter):
            self.kept.append(tensor)
        return tensor

    def on_before_backward(self, trainer, module, loss):
        self.hooks.__exit__(None, None, None)

    def on_before_optimizer_step(self, trainer, module, optimizer):
        self.gradients.append([p.grad.clone() for p in module.parameters() if p.grad is not None])

    @property
    def kept_bytes(self):
        return sum({tensor.data_ptr(): tensor.nbytes for tensor in self.kept}.values())


def trained(backbone, data, adapter, language=False, precision="32-true", **settings):
    """A module after a few steps, and its watch."""
    torch.manual_seed(0)
    kind = LanguageModellingModule if language else TextClassificationModule
    module = kind(backbone, adapter, OptimizerSettings(schedule="constant", learning_rate=1e-2), **settings)
    watch = Watch()
    tiny.make_trainer(watch, limit_train_batches=3, precision=precision).fit(module, datamodule=data)
    return module, watch


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("name", STORAGES)
def test_it_trains_as_with_weights_rounded_by_hand(name, adapter, tiny_bert, cola_folder, tmp_path):
    storage = STORAGES[name]
    plain = rounded_folder(tiny_bert, tmp_path / "rounded", storage)
    ours, our_watch = trained(tiny_bert, tiny.make_data(tiny_bert, cola_folder), ADAPTERS[adapter](), **storage)
    _, their_watch = trained(plain, tiny.make_data(plain, cola_folder), ADAPTERS[adapter]())
    for mine, others in zip(our_watch.gradients, their_watch.gradients, strict=True):
        torch.testing.assert_close(mine, others, atol=1e-6, rtol=2e-3)
    held = [module for module in ours.model.modules() if isinstance(module, StoredLinear)]
    assert len(held) == 13  # six in each of the two layers, and the pooler
    shapes = {tuple(layer.dense().shape) for layer in held}
    dense = [t for t in our_watch.kept if t.ndim == 2 and ({tuple(t.shape), tuple(t.T.shape)} & shapes)]
    assert not dense, "a dense copy of a frozen weight waits for the pass back"
    assert our_watch.kept_bytes <= 1.05 * their_watch.kept_bytes  # A and B, which aren't copied, are counted here
    bits = {"nf4": 4.5, "nf4_and_bfloat16": 4.5, "int8": 10, "bfloat16": 16}[name]  # scales included: rows are short
    assert sum(layer.weight.nbytes + (0 if layer.scale is None else layer.scale.nbytes) for layer in held) <= sum(
        layer.dense().numel() * bits / 8 for layer in held
    )


@pytest.mark.parametrize(("name", "adapter"), [("nf4", "lora_xs"), ("bfloat16", "lora")])
def test_it_trains_under_autocast(name, adapter, tiny_bert, cola_folder, tmp_path):
    plain = rounded_folder(tiny_bert, tmp_path / "rounded", STORAGES[name])
    found = [
        trained(backbone, tiny.make_data(backbone, cola_folder), ADAPTERS[adapter](), precision=precision, **settings)
        for backbone, precision, settings in ((tiny_bert, "bf16-mixed", STORAGES[name]), (plain, "32-true", {}))
    ]
    (ours, our_watch), (_, their_watch) = found
    first, expected = (torch.cat([g.flatten() for g in watch.gradients[0]]) for watch in (our_watch, their_watch))
    assert (first - expected).norm() < 0.05 * expected.norm()
    assert {p.dtype for p in ours.parameters() if p.requires_grad} == {torch.float32}


@pytest.mark.parametrize("name", ["nf4", "bfloat16"])
def test_transposed_layers_and_tied_embeddings(name, tiny_gpt2, wikitext_folder, tmp_path):
    plain = rounded_folder(tiny_gpt2, tmp_path / "gpt2_rounded", STORAGES[name])
    found = []
    for backbone, settings in ((tiny_gpt2, STORAGES[name]), (plain, {})):
        data = tiny.make_wikitext(backbone, wikitext_folder)
        found.append(trained(backbone, data, LoRA(4, lora_alpha=8), language=True, **settings))
    (ours, our_watch), (_, their_watch) = found
    for mine, others in zip(our_watch.gradients, their_watch.gradients, strict=True):
        torch.testing.assert_close(mine, others, atol=1e-5, rtol=2e-3)
    assert ours.model.lm_head.weight is ours.model.transformer.wte.weight  # held once
    quantization.restore(ours.model)
    assert ours.model.lm_head.weight is ours.model.transformer.wte.weight


@pytest.mark.slow
def test_a_quantised_run_resumes_and_leaves_as_every_format(tiny_bert, cola_folder, tmp_path, capsys):
    config = write_config(tmp_path, tiny_bert, cola_folder)
    options = ("--model.quantization", "nf4", "--trainer.max_epochs", "2")
    assert run("fit", config, tmp_path / "whole", *options) == 0
    with pytest.raises(CrashError):
        run("fit", config, tmp_path / "parts", *options, *crash_at(7))
    assert run("fit", config, tmp_path / "parts", *options, "--ckpt_path", "last") == 0
    assert differences(outcome(tmp_path / "whole" / "tiny"), outcome(tmp_path / "parts" / "tiny")) == []
    folder = str(tmp_path / "whole" / "tiny")
    for kind in ("native", "peft", "merged"):
        assert cli.main(["export", folder, "--format", kind]) == 0  # which compares the logits
    state = load_file(f"{folder}/exports/merged/model.safetensors")
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}
    for kind in ("native", "merged"):  # the backbone is rounded again, or must not be
        capsys.readouterr()
        assert cli.main(["test", "--export", f"{folder}/exports/{kind}"]) == 0
        assert f"{outcome(Path(folder))['results']['test']['loss']:.4f}" in capsys.readouterr().out
    assert run("fit", config, tmp_path / "whole", "--trainer.max_epochs", "3", "--ckpt_path", "last") == 2
    assert "quantization" in capsys.readouterr().err  # other frozen weights


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_checkpointing_keeps_less_and_gives_the_same_gradients(kind, tiny_bert, cola_folder, tiny_gpt2):
    backbone = {"bert": tiny_bert, "gpt2": tiny_gpt2}[kind]
    found = [
        trained(backbone, tiny.make_data(backbone, cola_folder), LoRAXS(4), gradient_checkpointing=asked)[1]
        for asked in (False, True)
    ]
    for whole, checkpointed in zip(found[0].gradients, found[1].gradients, strict=True):  # dropout included
        for ours, theirs in zip(checkpointed, whole, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-3)  # weights have taken steps since
    assert found[1].kept_bytes < 0.5 * found[0].kept_bytes


@pytest.mark.parametrize(
    ("adapter", "settings", "trainer", "message"),
    [
        (lambda: None, {"quantization": "nf4"}, {}, "full fine-tuning"),
        (lambda: PEFTAdapter("lora", {"r": 2}), {"backbone_dtype": "bfloat16"}, {}, "adapters of lora"),
        (lambda: LoRAXS(4), {"quantization": "int8"}, {"precision": "64-true"}, "Set --trainer.precision"),
    ],
)
def test_what_it_does_not_go_with_is_refused(adapter, settings, trainer, message, tiny_bert, cola_folder):
    module = TextClassificationModule(tiny_bert, adapter(), **settings)
    with pytest.raises(InputError, match=message):
        tiny.make_trainer(**trainer).fit(module, datamodule=tiny.make_data(tiny_bert, cola_folder))


def test_a_missing_package_is_one_message(monkeypatch):
    def missing():
        raise ImportError("No module named 'bitsandbytes'")

    monkeypatch.setattr(quantization, "quantizer", missing)
    with pytest.raises(InputError, match=r"quantization is 'nf4'.*pip install"):
        TextClassificationModule("any", quantization="nf4")
