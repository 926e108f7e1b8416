"""Tokens that a backbone can't take are refused exactly where its own forward pass fails."""

import pytest
import torch
from tokenizers import Regex
from tokenizers.normalizers import Replace
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, PerceiverConfig

from common.errors import InputError
from datamodules import PlainTextDataModule, TableDataModule
from datamodules.model_limits import read_limits
from tests.architectures import configuration
from tests.datamodules.conftest import SPECIAL, WORDS, make_backbone

ROWS = len(SPECIAL) + len(WORDS)
KINDS = ("bert", "roberta", "ibert", "mpnet", "nystromformer", "gpt2", "gptj", "mpt", "opt", "bart", "t5", "llama")
SETTINGS = {
    "roberta": {"pad_token_id": 1, "type_vocab_size": 1},
    "ibert": {"pad_token_id": 1},
    "mpnet": {"pad_token_id": 1},
    "mpt": {"max_seq_len": 18},
    "nystromformer": {"segment_means_seq_len": 20, "num_landmarks": 20},
}


def save(folder, name, **tokenizer):
    make_backbone(folder, eos_token="[SEP]", **tokenizer)
    positions = "n_positions" if name.startswith("gpt") else "max_position_embeddings"
    limited = {} if name == "t5" else {positions: 20}
    config = configuration(name, vocab_size=ROWS, **limited, **SETTINGS.get(name, {}))
    config.save_pretrained(folder)
    return str(folder), config


def fails(model, input_ids, **inputs) -> bool:
    try:
        with torch.no_grad():
            model(input_ids=input_ids, attention_mask=torch.ones_like(input_ids), **inputs)
    except (IndexError, RuntimeError, ValueError):
        return True
    return False


@pytest.mark.parametrize("name", KINDS)
def test_limits_are_where_the_model_itself_fails(tmp_path, name):
    folder, config = save(tmp_path, name)
    limits, model = read_limits(folder), AutoModel.from_config(config).eval()
    if name == "t5":
        model = model.encoder
    longest = next((n for n in range(1, 30) if fails(model, torch.full((1, n + 1), 5))), None)
    assert limits.positions == longest == (None if name in ("t5", "llama") else longest)
    assert limits.tokens == ROWS and fails(model, torch.full((1, 4), ROWS))
    if limits.token_types is not None:
        types = torch.full((1, 4), limits.token_types)
        assert fails(model, types, token_type_ids=types) and not fails(model, types, token_type_ids=types - 1)


def test_states_in_the_place_of_an_embedding_limit_no_tokens(tmp_path):
    config = PerceiverConfig(num_latents=4, d_latents=8, d_model=8, vocab_size=ROWS, num_self_attention_heads=2)
    config.save_pretrained(tmp_path)
    assert read_limits(str(tmp_path)).tokens is None  # not the 4 of its latent states


LONG = {"rope_type": "longrope", "rope_theta": 100.0, "short_factor": [1.0] * 2, "long_factor": [9.0] * 2}
BY_LENGTH = [
    ("phi3", {"rope_parameters": LONG, "original_max_position_embeddings": 9, "max_position_embeddings": 12}),
    ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 4.0}, "max_position_embeddings": 12}),
    ("big_bird", {"attention_type": "block_sparse", "block_size": 2}),
]


@pytest.mark.parametrize(("name", "settings"), BY_LENGTH)
def test_rows_are_not_longer_than_they_are_the_same_in_any_batch(tmp_path, name, settings):
    config, row = configuration(name, **settings), torch.arange(5, 30)[None]
    config.save_pretrained(tmp_path)
    for length in range(7, 20):
        torch.manual_seed(0)
        model = AutoModel.from_config(config).eval()
        mask = torch.ones(1, length + 1, dtype=torch.long)
        mask[0, -1] = 0
        with torch.no_grad():
            padded = model(row[:, : length + 1], attention_mask=mask).last_hidden_state[:, :-1]
            torch.manual_seed(0)
            alone = AutoModel.from_config(config).eval()(row[:, :length]).last_hidden_state
        if not torch.allclose(alone, padded, atol=1e-4):
            break
    assert read_limits(str(tmp_path)).positions == length


def table(folder, backbone, bad_in="train", bad=None, **settings):
    for split in ("train", "dev", "test"):
        rows = ["text,pair,label", "w1 w2,w5,0", f"{bad if bad and split == bad_in else 'w3'},w6,1", "w4,w7,0"]
        (folder / f"{split}.csv").write_text("\n".join(rows) + "\n")
    return TableDataModule(data_dir=str(folder), backbone=backbone, **({"max_length": 16} | settings))


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_token_the_embedding_lacks_is_named_before_training(tmp_path, split):
    folder, _ = save(tmp_path / "backbone", "bert", additional_special_tokens=["<new>"])
    with pytest.raises(InputError, match=rf"{split}.csv, line 3: token id {ROWS} \('<new>'\); allowed with .*: 0 to"):
        table(tmp_path, folder, split, "w1 <new>").setup()
    data = table(tmp_path, folder, predict_file=str(tmp_path / "new.txt"))
    (tmp_path / "new.txt").write_text("w1\n<new>\n")
    with pytest.raises(InputError, match=r"new.txt, line 2: token id"):
        data.predict_dataloader()
    text = PlainTextDataModule(
        train_file=str(tmp_path / "new.txt"), validation_file=str(tmp_path / "new.txt"), backbone=folder, block_size=8
    )
    with pytest.raises(InputError, match=r"the train split of .* token id"):
        text.setup()


@pytest.mark.parametrize("model_max_length", [30, None])
def test_rows_longer_than_the_models_positions_are_refused(tmp_path, model_max_length):
    folder, _ = save(tmp_path / "backbone", "roberta", model_max_length=model_max_length)
    table(tmp_path, folder, max_length=18).setup()
    with pytest.raises(InputError, match=r"max_length is 19; allowed with .*: 4 to 18"):
        table(tmp_path, folder, max_length=19).setup()
    (tmp_path / "text.txt").write_text("w1 w2\n" * 30)
    text = PlainTextDataModule(train_file=str(tmp_path / "text.txt"), backbone=folder, block_size=19)
    with pytest.raises(InputError, match=r"block_size is 19, but .* sees at most 18 tokens"):
        text.setup()


def test_a_row_that_is_too_short_for_the_model_is_refused(tmp_path):
    make_backbone(tmp_path, model_input_names=["input_ids", "attention_mask"])
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 12}
    config = AutoConfig.for_model(
        "canine", **sizes, downsampling_rate=4, local_transformer_stride=16, num_hash_buckets=64
    )
    config.save_pretrained(tmp_path)
    model = AutoModel.from_config(config).eval()
    shortest = next(length for length in range(1, 9) if not fails(model, torch.full((1, length), 5)))
    with pytest.raises(InputError, match=rf"train.csv, line 3: 3 tokens; allowed with .*: {shortest} or more"):
        table(tmp_path, str(tmp_path)).setup()


def test_pairs_need_no_token_types_where_the_model_has_one(tmp_path):
    folder, config = save(tmp_path / "backbone", "roberta")
    data = table(tmp_path, folder, pair_column="pair")
    data.setup()
    batch = next(iter(data.train_dataloader()))
    assert set(batch["inputs"]) == {"input_ids", "attention_mask"}
    AutoModelForSequenceClassification.from_config(config)(**batch["inputs"])


def test_token_types_that_the_model_lacks_are_refused(tmp_path):
    folder, _ = save(tmp_path / "backbone", "bert")
    data = table(tmp_path, folder, pair_column="pair")
    data.tokenizer.backend_tokenizer.post_processor = None
    split = data._tokenized("train", data.load_examples()["train"])
    split.token_type_ids[1] = 2
    with pytest.raises(InputError, match=r"line 2: token type 2 .*: 0 to 1"):
        read_limits(folder).check(split, data.tokenizer, folder, data.load_examples()["train"].where)


def test_a_text_of_a_pair_is_never_lost_as_a_whole(tmp_path, capsys):
    folder, _ = save(tmp_path / "backbone", "bert")
    with pytest.raises(
        InputError, match=r"max_length is 4; allowed with .*: 5 to \d+, for 2 texts and 3 tokens around"
    ):
        table(tmp_path, folder, max_length=4, pair_column="pair").setup()
    data = table(tmp_path, folder, max_length=5, pair_column="pair")
    data.setup()
    for ids in next(iter(data.train_dataloader()))["inputs"]["input_ids"].tolist():
        kept = [token not in (0, 2, 3) for token in ids]  # [PAD], [CLS], [SEP]
        assert kept == [False, True, False, True, False]
    assert "special tokens alone" not in capsys.readouterr().err
    table(tmp_path, folder, "test", "[SEP] nowhere").setup()
    assert "1 of 3 test rows are special tokens alone, such as " in capsys.readouterr().err
    data = table(tmp_path, folder, "test", "\u2003\u200b", pair_column="pair")
    data.tokenizer.backend_tokenizer.normalizer = Replace(Regex(r"[\u2003\u200b]"), "")
    with pytest.raises(InputError, match=r"test.csv, line 3 gives no tokens for one of its texts"):
        data.setup()


@pytest.mark.parametrize("name", ["bart", "t5"])
def test_an_end_of_sequence_in_the_text_is_refused_where_the_head_reads_it(tmp_path, name):
    folder, config = save(tmp_path / "backbone", name, model_input_names=["input_ids", "attention_mask"])
    with pytest.raises(InputError, match=r"test.csv, line 3: 2 end-of-sequence tokens \('\[SEP\]'\); allowed .*: 1,"):
        table(tmp_path, folder, "test", "w1 [SEP]").setup()
    data = table(tmp_path, folder, pair_column="pair")  # each pair has two
    data.setup()
    model = AutoModelForSequenceClassification.from_config(config)
    assert not fails(model, next(iter(data.train_dataloader()))["inputs"]["input_ids"])
    assert fails(model, torch.tensor([[2, 5, 3, 3], [2, 5, 5, 3]]))
    data.tokenizer.backend_tokenizer.post_processor = None
    with pytest.raises(InputError, match="0 end-of-sequence tokens"):
        data._tokenized("train", data.load_examples()["train"])
