"""A tokenizer without a pad token: padding must not change what a decoder answers."""

import json

import pytest
import torch

from tests import tiny


@pytest.mark.parametrize("pad_token_id", [None, 0])
def test_a_row_gets_the_same_logits_alone_and_padded(tmp_path, cola_folder, pad_token_id):
    """Also where the model's own config names another pad token than the tokenizer pads with."""
    from transformers import GPT2Config, GPT2Model

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tiny.WORDS) + 4, n_embd=8, n_layer=1, n_head=2, n_positions=64, initializer_range=0.5
    )
    config.pad_token_id = pad_token_id
    GPT2Model(config).save_pretrained(tmp_path)
    tiny.save_tokenizer(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    del settings["pad_token"]
    path.write_text(json.dumps(settings | {"eos_token": "[SEP]", "model_input_names": ["input_ids", "attention_mask"]}))

    module = tiny.make_module(str(tmp_path))
    data = tiny.make_data(str(tmp_path), cola_folder, batching="random")
    tiny.make_trainer(limit_train_batches=1, limit_val_batches=0).fit(module, datamodule=data)
    module.eval()
    (batch,) = [batch for batch in data.train_dataloader() if not batch["inputs"]["attention_mask"].all()][:1]
    with torch.no_grad():
        together = module(batch["inputs"])
        for row, mask in enumerate(batch["inputs"]["attention_mask"].bool()):
            alone = module({name: cells[row : row + 1, mask] for name, cells in batch["inputs"].items()})
            torch.testing.assert_close(together[row : row + 1], alone)
