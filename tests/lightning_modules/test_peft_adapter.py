"""PEFT's methods, trained through this project, against PEFT used on its own."""

import sys
import warnings

import pytest
import torch
from lightning.pytorch import Callback

from callbacks import gradient_directions
from callbacks.adalora_allocation import AdaLoRAAllocation
from callbacks.checkpoints import read_checkpoint
from callbacks.gradient_directions import FirstSteps
from callbacks.random_state import RandomState
from common.errors import InputError
from lightning_modules import PEFTAdapter
from lora.injection import freeze
from tests import tiny
from tests.architectures import classifier
from tests.command_line import differences

# PEFT 0.21's wrapper asks transformers 5.23 for an attribute by its old name; PEFTAdapter doesn't use the wrapper.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:lora with eva initialization used with low_cpu_mem_usage:UserWarning"),
]

LORA = {"r": 3, "lora_alpha": 6}
SETTINGS = dict.fromkeys(("lora", "rslora", "dora", "eva"), LORA) | {
    "pissa": {**LORA, "init_lora_weights": "pissa_niter_4"},
    "vera": {"r": 12, "d_initial": 0.5},
    "adalora": {"init_r": 4, "target_r": 2, "tinit": 1, "tfinal": 3},
    "tinylora": {"r": 2, "u": 5, "init_weights": "uniform"},
}
METHODS = list(SETTINGS)
TARGETS = {
    "bert": ["query", "value", "attention.output.dense", "output.dense"],
    "gpt2": ["attn.c_attn", "attn.c_proj", "mlp.c_proj"],
}


def peft_config(method, **common):
    """PEFT's own way to say the same."""
    import peft

    more = {
        "rslora": {"use_rslora": True},
        "dora": {"use_dora": True},
        "eva": {"init_lora_weights": "eva", "eva_config": peft.EvaConfig(rho=1.0)},
        "adalora": {"total_step": 10},
    }
    kinds = {"vera": peft.VeraConfig, "adalora": peft.AdaLoraConfig, "tinylora": peft.TinyLoraConfig}
    return kinds.get(method, peft.LoraConfig)(**SETTINGS[method], **more.get(method, {}), **common)


def trained_parts(model, head):
    return [
        parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and not any(f"{path}." in name for path in head)
    ]


@pytest.fixture(
    params=[(method, model_type) for model_type in TARGETS for method in METHODS], ids=lambda p: "-".join(p)
)
def both(request):
    """The same model with our adapter, with PEFT's wrapper, and the head's modules."""
    from peft import get_peft_model

    method, model_type = request.param
    model, head = classifier(model_type)
    freeze(model, head)
    seed = 42 if method == "pissa" else 3  # our PiSSA has a seed of its own
    torch.manual_seed(seed)
    adapter = PEFTAdapter(method, SETTINGS[method])
    adapter.attach(model, model_type, head)
    plain, _ = classifier(model_type)
    torch.manual_seed(seed)
    config = peft_config(method, target_modules=TARGETS[model_type], fan_in_fan_out=model_type == "gpt2")
    return adapter, model.eval(), get_peft_model(plain, config).eval(), head


def test_logits_and_trained_parameters_are_those_of_get_peft_model(both):
    adapter, model, reference, head = both
    inputs = {"input_ids": torch.arange(1, 25).view(2, 12), "attention_mask": torch.ones(2, 12, dtype=torch.long)}
    before = model(**inputs).logits
    pairs = list(zip(trained_parts(model, head), trained_parts(reference, head), strict=True))
    noise = torch.Generator().manual_seed(0)
    assert sum(ours.numel() for ours, _ in pairs) == reference.get_nb_trainable_parameters()[0]
    assert all(parameter.requires_grad for path in head for parameter in model.get_submodule(path).parameters())
    for ours, theirs in pairs:
        assert torch.equal(ours, theirs)
        change = 0.3 * torch.randn(ours.shape, generator=noise)
        ours.data += change
        theirs.data += change
    adapter.refresh()
    after = model(**inputs).logits
    assert float((after - before).abs().max()) > 1e-3
    torch.testing.assert_close(after, reference(**inputs).logits, rtol=0, atol=1e-6)


def save_at(step, path):
    return tiny.at("on_train_batch_end", lambda trainer, _: trainer.save_checkpoint(path), global_step=step)


def fit(method, backbone, cola, callbacks=(), ckpt_path=None, seed=1):
    torch.manual_seed(seed)
    module = tiny.make_module(backbone, PEFTAdapter(method, SETTINGS[method]), learning_rate=0.02)
    trainer = tiny.make_trainer(AdaLoRAAllocation(), RandomState(), *callbacks, limit_val_batches=0)
    trainer.fit(module, datamodule=tiny.make_data(backbone, cola), ckpt_path=ckpt_path)
    return module, trainer


@pytest.fixture(scope="module", params=METHODS)
def trained(request, tiny_bert, cola_folder, tmp_path_factory):
    """A module after an epoch, and a checkpoint from its middle."""
    path = tmp_path_factory.mktemp(request.param) / "middle.ckpt"
    module, trainer = fit(request.param, tiny_bert, cola_folder, [save_at(3, path)])
    return request.param, module, trainer, path


def test_a_resumed_run_ends_bit_by_bit_like_an_undisturbed_one(trained, tiny_bert, cola_folder):
    method, module, trainer, path = trained
    again, their_trainer = fit(method, tiny_bert, cola_folder, ckpt_path=str(path), seed=99)
    assert differences(module.state_dict(), again.state_dict()) == []
    assert differences(trainer.optimizers[0].state_dict(), their_trainer.optimizers[0].state_dict()) == []


def test_a_checkpoint_holds_what_trains_all_of_which_has_moved(trained):
    method, module, _, path = trained
    state = read_checkpoint(path)["state_dict"]  # of the middle
    names = {name for name, value in state.items() if isinstance(value, torch.Tensor)} - {"epoch_loss"}
    assert names == {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    assert ("adapter.adalora._extra_state" in state) == (method == "adalora")
    assert sum(state[name].numel() for name in names) == module.parameter_counts()["total"]
    assert all(not torch.equal(state[name], module.state_dict()[name]) for name in names)


def test_groups_and_ranks_are_those_of_the_settings(trained):
    method, module, trainer, _ = trained
    groups = {group["name"]: {id(p) for p in group["params"]} for group in trainer.optimizers[0].param_groups}
    assert set(groups) == {"head", "adapter"}
    assert groups["head"] == {id(parameter) for parameter in module.model.classifier.parameters()}
    assert not groups["head"] & groups["adapter"]
    ranks = module.adapter.discrete_ranks()
    assert set(ranks) == set(module.adapter.layer_names) and len(ranks) == 8
    if method != "adalora":  # its own test counts the budget
        assert set(ranks.values()) == {SETTINGS[method]["r"]}


class SeeStart(Callback):
    """Keeps what the first step starts from, and the inputs of the first steps."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == 0:
            order = FirstSteps(trainer, pl_module, 1)
            self.inputs = [batch["inputs"] for step in range(200) for batch in order.micro_batches(step)]
            self.start = {name: value.clone() for name, value in pl_module.model.state_dict().items()}
            self.factors = pl_module.record.factors


def test_eva_starts_from_the_directions_that_peft_alone_finds(tiny_bert, cola_folder):
    from peft import get_peft_model, initialize_lora_eva_weights
    from transformers import AutoModelForSequenceClassification

    seen = SeeStart()
    fit("eva", tiny_bert, cola_folder, [seen])
    plain = AutoModelForSequenceClassification.from_pretrained(tiny_bert)
    reference = get_peft_model(plain, peft_config("eva", target_modules=TARGETS["bert"]))
    initialize_lora_eva_weights(reference, seen.inputs, show_progress_bar=False)
    found = {name.removeprefix("base_model.model."): value for name, value in reference.state_dict().items()}
    names = [name for name in seen.start if ".lora_A." in name]
    assert len(names) == 8 and seen.factors["rule"] == "eva" and seen.factors["rows"] > 0
    for name in names:
        if not ("layer.1" in name and "output" in name):  # only the first token of a row gets there
            torch.testing.assert_close(seen.start[name], found[name], rtol=0, atol=1e-4)
        assert not seen.start[name.replace("lora_A", "lora_B")].any()


def test_eva_whose_directions_do_not_settle_is_refused(tiny_bert, cola_folder, monkeypatch):
    monkeypatch.setattr(gradient_directions, "_LARGEST_NUMBER_OF_BATCHES", 1)
    with pytest.raises(InputError, match="directions still change after 1 batches"):
        fit("eva", tiny_bert, cola_folder)


@pytest.mark.parametrize(
    ("method", "other", "change", "message"),
    [
        ("pissa", "pissa", {"r": 2}, "other frozen factors"),
        ("vera", "vera", {"projection_prng_key": 7}, "other frozen factors"),
        ("tinylora", "tinylora", {"projection_seed": 7}, "other frozen factors"),
        ("lora", "rslora", {}, "adapter is 'PEFT LoRA', this run's is 'PEFT rsLoRA'"),
    ],
)
def test_other_frozen_parts_and_methods_are_refused(method, other, change, message, tiny_bert, cola_folder, tmp_path):
    path = str(tmp_path / "some.ckpt")
    fit(method, tiny_bert, cola_folder, [save_at(1, path)])
    module = tiny.make_module(tiny_bert, PEFTAdapter(other, SETTINGS[method] | change))
    with pytest.raises(InputError, match=message):
        tiny.make_trainer().validate(module, datamodule=tiny.make_data(tiny_bert, cola_folder), ckpt_path=path)


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("adalra", {}, r"method is 'adalra'; allowed: lora, .*Did you mean 'adalora'"),
        ("lora", {"lora_alpa": 8}, r"PEFT's LoRA is 'lora_alpa'; allowed: r, lora_alpha, .*Did you mean 'lora_alpha'"),
        ("lora", {"target_modules": ["query"]}, "is 'target_modules'; allowed: r,"),
        ("lora", {"r": "eight"}, r'"r".*eight'),
        ("lora", {"init_lora_weights": "pissa"}, "choose method: pissa"),
        ("lora", {"lora_dropout": 1.5}, "PEFT's LoRA doesn't fit"),
        ("pissa", {"init_lora_weights": "gaussian"}, "pissa_niter_N"),
        ("eva", {"init_lora_weights": True}, "PEFT's EVA is 'init_lora_weights'; allowed: r, lora_alpha, lora_dropout"),
        ("pissa", {"r": 9}, r"r is 9, but the weight of bert.*\(8, 8\); allowed: 1 to 8"),
        ("vera", {"r": 0}, "r is 0; allowed: 1 or more"),
        ("adalora", {"r": 8}, r"a setting of PEFT's AdaLoRA is 'r'; allowed: init_r"),
        ("adalora", {"init_r": 4, "target_r": 4}, "init_r is 4 and target_r is 4"),
        ("adalora", {"orth_reg_weight": -1.0}, "PEFT refuses these settings of AdaLoRA.*orth_reg_weight"),
        ("adalora", {"beta1": 1.0}, "PEFT's AdaLoRA doesn't fit"),
        ("tinylora", {"init_weights": False}, "init_weights is False; allowed: true"),
    ],
)
def test_bad_settings_and_targets_are_refused(method, settings, message):
    model, head = classifier("bert")
    with pytest.raises(InputError, match=message):
        PEFTAdapter(method, settings).attach(model, "bert", head)
    with pytest.raises(InputError, match="word_embeddings, a Embedding; allowed: Linear and Conv1D"):
        PEFTAdapter("lora", LORA, targets=["word_embeddings"]).attach(model, "bert", head)


def test_without_the_package_the_message_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(InputError, match=r"needs the package peft. Run `pip install -e '.\[peft\]'`"):
        PEFTAdapter("lora")


def test_peft_still_keeps_what_checkpoints_of_adalora_hold(monkeypatch):
    """No public interface gives it: the message says what is gone, and which versions have it."""
    from peft.tuners.adalora import RankAllocator

    model, head = classifier("bert")
    PEFTAdapter("adalora", SETTINGS["adalora"]).attach(model, "bert", head)  # passes while PEFT has it
    renamed = lambda self: setattr(self, "importance", {})  # noqa: E731
    monkeypatch.setattr(RankAllocator, "reset_ipt", renamed)
    with pytest.raises(InputError, match=r"no longer keeps exp_avg_ipt.*allowed"):
        PEFTAdapter("adalora", SETTINGS["adalora"]).attach(*classifier("bert")[:1], "bert", head)


def test_no_warning_reaches_the_user():
    model, head = classifier("gpt2")
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        PEFTAdapter("lora", LORA).attach(model, "gpt2", head)
    assert [str(warning.message) for warning in seen] == []
