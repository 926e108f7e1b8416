"""What a model answers for a row depends on no other row: the reference is plain transformers on single, bare rows."""

import json

import pytest
import torch
from torch.nn import functional

from common.errors import InputError
from tests import tiny
from tests.architectures import TINY_CONFIGS

KINDS = ["roberta", "mpnet", "bart", "t5", "opt", "llama"]  # and bert, gpt2 and xlnet, padded on either side
MORE = ["distilbert", "electra", "albert", "xlm", "deberta-v2", "modernbert"]
MORE += ["gpt_neo", "gpt_bigcode", "biogpt", "openai-gpt", "bloom", "mistral"]
SEE_PADDING = ["convbert", "nystromformer", "canine", "funnel"]
# Counts characters, so that no test of whole runs can have it.
CANINE = TINY_CONFIGS["bert"] | {"local_transformer_stride": 16, "num_hash_buckets": 64}


def save_backbone(folder, kind, tokenizer, **settings):
    """A classifier with random weights and without dropout, and a tokenizer with these settings; None: without."""
    from transformers import AutoConfig, AutoModelForSequenceClassification

    token_ids = {"pad_token_id": 0, "eos_token_id": 3, "vocab_size": len(tiny.WORDS) + 4}
    sizes = {**TINY_CONFIGS.get(kind, CANINE), **token_ids, **settings}
    config = AutoConfig.for_model(kind, num_labels=2, **sizes)
    for name, value in config.to_dict().items():
        if "drop" in name and isinstance(value, float):
            setattr(config, name, 0.0)
    torch.manual_seed(0)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    tiny.save_tokenizer(folder)
    path = folder / "tokenizer_config.json"
    named = {**json.loads(path.read_text()), **tokenizer}
    path.write_text(json.dumps({name: value for name, value in named.items() if value is not None}))
    return str(folder)


def loaded(backbone, cola_folder, **settings):
    """A module with its model, and its data."""
    module, data = tiny.make_module(backbone), tiny.make_data(backbone, cola_folder, **settings)
    trainer = tiny.make_trainer()
    trainer.datamodule, module.trainer = data, trainer
    data.setup("fit")
    module.configure_model()
    return trainer, module, data


def rows_of(batch):
    """Each row by itself, without its padding, with its label."""
    for row, mask in enumerate(batch["inputs"]["attention_mask"].bool()):
        cells = {name: values[row : row + 1, mask] for name, values in batch["inputs"].items()}
        yield cells, batch["labels"][row : row + 1]


NO_PAD = {"pad_token": None, "eos_token": "[SEP]", "model_input_names": ["input_ids", "attention_mask"]}
CASES = [
    *((kind, {"padding_side": side}, {}) for kind in ("bert", "gpt2", "xlnet") for side in ("left", "right")),
    *((kind, {"padding_side": "left"}, {}) for kind in (*KINDS, SEE_PADDING[0])),
    *((kind, {}, {"is_causal": False}) for kind in ("llama", "gpt2")),  # decoders that look ahead
    ("bert", {}, {"return_dict": False}),
    *(
        pytest.param(kind, {"padding_side": "left"}, {}, marks=pytest.mark.matrix)
        for kind in (*MORE, *SEE_PADDING[1:3])
    ),
    pytest.param("funnel", {"padding_side": "left"}, {"block_sizes": [2, 2]}, marks=pytest.mark.matrix),
    *(("gpt2", NO_PAD, {"pad_token_id": known}) for known in (None, 0)),  # the model knows of another token, or of none
]


@pytest.mark.parametrize(("kind", "tokenizer", "settings"), CASES)
def test_a_row_gets_the_same_answer_loss_and_gradient_in_any_batch(
    tmp_path, cola_folder, kind, tokenizer, settings, capsys
):
    from transformers import AutoModelForSequenceClassification

    backbone = save_backbone(tmp_path, kind, tokenizer, **settings)
    how = {"num_labels": 2, "dtype": torch.float32, "return_dict": True}
    plain = AutoModelForSequenceClassification.from_pretrained(backbone, **how)
    plain.config.pad_token_id = 3 if tokenizer is NO_PAD else 0

    def alone(loader):
        """Logits and labels of its rows, each by itself."""
        rows = [row for batch in loader for row in rows_of(batch)]
        with torch.no_grad():
            return torch.cat([plain.eval()(**cells).logits for cells, _ in rows]), torch.cat(
                [label for _, label in rows]
            )

    trainer, module, data = loaded(backbone, cola_folder, evaluation_batch_size=14)
    answers = torch.cat([batch["scores"] for batch in trainer.predict(module, datamodule=data)])
    torch.testing.assert_close(answers, alone(data.predict_dataloader())[0].softmax(1), atol=1e-5, rtol=0)
    loss = trainer.validate(module, datamodule=data, verbose=False)[0]["val/loss"]
    assert loss == pytest.approx(float(functional.cross_entropy(*alone(data.val_dataloader()[0]))), abs=1e-5)
    warned = "when the row is padded" in capsys.readouterr().err
    assert module.sees_padding == warned == (kind in SEE_PADDING)
    data.tokenizer.save_pretrained(tmp_path / "exported")  # whoever pads with it later does it right
    exported = json.loads((tmp_path / "exported" / "tokenizer_config.json").read_text())
    assert exported.get("padding_side", "right") == ("left" if kind == "xlnet" else "right")

    _, module, data = loaded(backbone, cola_folder, batching="random", batch_size=14)
    batch = next(iter(data.train_dataloader()))
    assert not batch["inputs"]["attention_mask"].all()
    total, _ = module.batch_loss(batch)
    total.backward()
    plain.train()
    for cells, label in rows_of(batch):
        functional.cross_entropy(plain(**cells).logits, label).backward()
    gradients = {name: weight.grad for name, weight in plain.named_parameters() if weight.grad is not None}
    for name, weight in module.model.named_parameters():
        if name in gradients:
            largest = float(gradients[name].abs().max())
            torch.testing.assert_close(weight.grad, gradients[name], atol=1e-5 * max(1, largest), rtol=1e-4)


@pytest.mark.parametrize(
    ("kind", "tokenizer", "settings", "message"),
    [
        ("fnet", {}, {}, "a fnet has no attention mask"),
        ("xmod", {}, {"languages": ["en", "de"]}, "can't answer a row of tokens: Input language unknown"),
        ("bert", {"pad_token": "[FILL]"}, {}, r"pads with token \d+ \('\[FILL\]'\).* no embedding"),
    ],
)
def test_what_a_model_can_not_take_is_refused(tmp_path, cola_folder, kind, tokenizer, settings, message):
    backbone = save_backbone(tmp_path, kind, tokenizer, **settings)
    with pytest.raises(InputError, match=message):
        loaded(backbone, cola_folder)
