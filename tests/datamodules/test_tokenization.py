import json
import os
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import AutoTokenizer, CTRLTokenizer, PreTrainedTokenizerFast, ProphetNetTokenizer

from common.errors import InputError
from datamodules import tokenization
from datamodules.sources import Examples
from datamodules.tokenization import tokenize_cached
from datamodules.tokenizer import load_tokenizer, tokenizer_identity
from tests import tiny
from tests.datamodules.conftest import LONGEST, make_backbone

TEXTS = ["w1 w2 w3 w4 w5", "w6", "nowhere w7 w8", "w9 " * 30]
PAIRS = ["w1", "w2 w3 w4 w5 w6 w7", "w8 w9", "w3"]


class Counting:
    """A tokenizer that counts how often it is called."""

    def __init__(self, tokenizer):
        self.tokenizer, self.calls = tokenizer, 0

    def __call__(self, *args, **kwargs):
        self.calls += 1
        return self.tokenizer(*args, **kwargs)

    def __getattr__(self, name):
        return getattr(self.tokenizer, name)


def rows_of(split, flat) -> list[list[int]]:
    return [flat[start:end].tolist() for start, end in zip(split.offsets, split.offsets[1:], strict=False)]


@pytest.mark.parametrize("pairs", [None, PAIRS])
def test_tokens_equal_the_tokenizers_own_row_by_row(tokenizer, pairs, monkeypatch):
    monkeypatch.setattr(tokenization, "ROWS_PER_CALL", 3)
    split = tokenize_cached(Examples(TEXTS, pairs), tokenizer, max_length=10)
    for row, text in enumerate(TEXTS):
        expected = tokenizer(text, pairs and pairs[row], truncation=True, max_length=10, padding=False)
        assert rows_of(split, split.input_ids)[row] == expected["input_ids"]
        assert rows_of(split, split.token_type_ids)[row] == expected["token_type_ids"]
        assert int(split.lengths[row]) == len(expected["input_ids"])
    assert (split.input_ids.dtype, split.offsets.dtype) == (torch.int32, torch.int64)


def test_models_without_token_types_get_none(tmp_path):
    folder = make_backbone(tmp_path, model_input_names=["input_ids", "attention_mask"])
    assert tokenize_cached(Examples(["w1"], ["w2"]), load_tokenizer(str(folder)), 8).token_type_ids is None


def test_truncated_rows_are_counted_and_rows_that_just_fit_are_not(tokenizer):
    words = [3, 8, 9, 20]  # and two special tokens each
    split = tokenize_cached(Examples(["w1 " * count for count in words]), tokenizer, max_length=10)
    assert split.lengths.tolist() == [5, 10, 10, 10]
    assert split.truncated_rows == 2


def test_padding_and_truncation_inside_tokenizer_json_are_overruled(backbone):
    assert '"Fixed": 32' in (Path(backbone) / "tokenizer.json").read_text()
    split = tokenize_cached(Examples(["w1", "w2 " * 40]), load_tokenizer(backbone), max_length=LONGEST)
    assert split.lengths.tolist() == [3, 42]
    assert split.truncated_rows == 0


def test_a_second_start_reads_the_cache(tokenizer):
    counting = Counting(tokenizer)
    examples = Examples(TEXTS, labels=[0, 1, 0, 1], tags=["b", "a", "b", "b"])
    first = tokenize_cached(examples, counting, 10, ("a", "b"))
    assert counting.calls > 0
    # Other calls in between leave padding and truncation settings behind.
    tokenizer(TEXTS, padding="max_length", truncation=True, max_length=50)
    calls = counting.calls
    second = tokenize_cached(examples, counting, 10, ("a", "b"))
    assert counting.calls == calls
    for name in ("input_ids", "offsets", "token_type_ids", "labels", "tags"):
        assert torch.equal(getattr(first, name), getattr(second, name)), name
    assert second.truncated_rows == first.truncated_rows == 1
    assert second.tags.tolist() == [1, 0, 1, 1]
    assert second.labels.tolist() == [0, 1, 0, 1]


def test_everything_that_changes_tokens_changes_the_cache_key(tmp_path, tokenizer, own_cache):
    cases = [
        (Examples(["w1 w2", "w3"]), tokenizer, 10),
        (Examples(["w1", "w2 w3"]), tokenizer, 10),
        (Examples(["w1", "w2"], ["w3", "w4"]), tokenizer, 10),
        (Examples(["w1", "w2", "w3", "w4"]), tokenizer, 10),
        (Examples(["w1 w2", "w3"]), tokenizer, 11),
    ]
    for changes in ({"model_input_names": ["input_ids"]}, {"truncation_side": "left"}):
        folder = make_backbone(tmp_path / next(iter(changes)), **changes)
        cases.append((Examples(["w1 w2", "w3"]), load_tokenizer(str(folder)), 10))
    for number, case in enumerate(cases, start=1):
        tokenize_cached(*case)
        assert len(list((own_cache / "tokenized").iterdir())) == number


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (ProphetNetTokenizer, [{"do_lower_case": False}, {"do_lower_case": True}, {"do_basic_tokenize": False}]),
        (CTRLTokenizer, [{"merges": "w 1</w>\n"}, {"merges": "1 2</w>\n"}]),
    ],
)
def test_tokenizers_written_in_python_are_told_apart(tmp_path, kind, settings):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[X_SEP]", "w1", "W1", "<unk>", "w", "1</w>", "w1</w>"]
    for number, changes in enumerate(settings):
        (tmp_path / f"{number}.txt").write_text("\n".join(words))
        (tmp_path / f"{number}.json").write_text(json.dumps({word: place for place, word in enumerate(words)}))
        (tmp_path / f"{number}.merges").write_text(f"#version\n{changes.get('merges', '')}")
        if kind is CTRLTokenizer:
            tokenizer = kind(str(tmp_path / f"{number}.json"), str(tmp_path / f"{number}.merges"))
        else:
            tokenizer = kind(str(tmp_path / f"{number}.txt"), **changes)
        split = tokenize_cached(Examples(["W1 w1", "w1,w1 12"]), tokenizer, 10)
        assert rows_of(split, split.input_ids) == [tokenizer(text)["input_ids"] for text in ("W1 w1", "w1,w1 12")]
        assert tokenizer_identity(tokenizer) == tokenizer_identity(tokenizer)


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "foreign"])
def test_a_damaged_cache_file_is_made_again(tokenizer, own_cache, damage):
    examples, counting = Examples(TEXTS), Counting(tokenizer)
    expected = tokenize_cached(examples, counting, 10)
    (path,) = (own_cache / "tokenized").iterdir()
    content = path.read_bytes()
    flipped = content[:-5] + bytes([content[-5] ^ 1]) + content[-4:]
    path.write_bytes({"cut": content[:-9], "flipped": flipped, "empty": b"", "foreign": b"{}" * 50}[damage])

    calls = counting.calls
    again = tokenize_cached(examples, counting, 10)
    assert counting.calls > calls
    assert torch.equal(again.input_ids, expected.input_ids)
    assert path.read_bytes() == content


@pytest.mark.parametrize("pair", [False, True])
@pytest.mark.parametrize("bare", [False, True])
def test_a_row_without_tokens_of_its_own_is_refused(tmp_path, bare, pair):
    tokenizer = AutoTokenizer.from_pretrained(make_backbone(tmp_path))
    if bare:
        tokenizer.backend_tokenizer.post_processor = None

    def examples(text):
        return Examples(["w1", text], [text, text] if pair else None)

    assert len(tokenize_cached(examples("w2"), tokenizer, 8)) == 2
    with pytest.raises(InputError, match=r"row 2 .* no tokens of its own: '\\u2003'"):
        tokenize_cached(examples("\u2003"), tokenizer, 8)


@pytest.mark.parametrize(("chosen", "during", "after"), [(None, "true", "false"), ("0", "0", "0")])
def test_all_cores_are_used_and_then_no_longer_so_that_forks_are_safe(tokenizer, monkeypatch, chosen, during, after):
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "restored afterwards")
    if chosen is None:
        del os.environ["TOKENIZERS_PARALLELISM"]
    else:
        os.environ["TOKENIZERS_PARALLELISM"] = chosen
    seen = []

    class Watching(Counting):
        def __call__(self, *args, **kwargs):
            seen.append(os.environ.get("TOKENIZERS_PARALLELISM"))
            return super().__call__(*args, **kwargs)

    tokenize_cached(Examples(["w1"]), Watching(tokenizer), 8)
    assert seen == [during]
    assert os.environ["TOKENIZERS_PARALLELISM"] == after


def test_without_a_pad_token_the_end_of_sequence_token_pads(tmp_path):
    tokenizer = load_tokenizer(str(make_backbone(tmp_path / "a", pad_token=None, eos_token="[SEP]")))
    assert (tokenizer.pad_token, tokenizer.pad_token_id) == ("[SEP]", 3)
    with pytest.raises(InputError, match="neither a pad nor an end-of-sequence token"):
        load_tokenizer(str(make_backbone(tmp_path / "b", pad_token=None)))


def test_a_tokenizer_that_draws_at_random_gives_a_text_the_tokens_it_has_without_drawing(tmp_path, capsys):
    tiny.save_causal_tokenizer(tmp_path, begins_texts=False)
    text, path = "the small birds sleep quickly", tmp_path / "tokenizer.json"
    expected = AutoTokenizer.from_pretrained(tmp_path)(text).input_ids
    content = json.loads(path.read_text())
    content["model"]["dropout"] = 0.5
    path.write_text(json.dumps(content))
    drawing = AutoTokenizer.from_pretrained(tmp_path)
    assert len({tuple(drawing(text).input_ids) for _ in range(20)}) > 1
    (tmp_path / "config.json").write_text("{}")
    ours = load_tokenizer(str(tmp_path))
    assert all(ours(text).input_ids == expected for _ in range(20))
    assert "drops merges at random (50%)" in capsys.readouterr().out
    ours.save_pretrained(tmp_path / "exported")
    assert json.loads((tmp_path / "exported" / "tokenizer.json").read_text())["model"]["dropout"] is None


def test_a_tokenizer_that_samples_its_tokens_is_refused(tmp_path, monkeypatch):
    text = "The CAT's co-op, 12,345.67 don't"
    tiny.save_causal_tokenizer(tmp_path, begins_texts=False)
    (tmp_path / "config.json").write_text("{}")
    pieces = [
        ("<unk>", 0.0),
        *((text[place : place + length], -2.0) for length in (1, 2) for place in range(len(text))),
    ]
    sampled = Tokenizer(models.Unigram(list(dict(pieces).items()), 0))
    drawing = PreTrainedTokenizerFast(tokenizer_object=sampled, unk_token="<unk>")
    drawing.backend_tokenizer.model.alpha = 0.1
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda *_, **__: drawing)
    with pytest.raises(InputError, match=r"draws a text's tokens at random.*Take enable_sampling out"):
        load_tokenizer(str(tmp_path))


def test_a_folder_without_vocabulary_is_refused(tmp_path):
    make_backbone(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).unlink()
    with pytest.raises(InputError, match="holds no vocabulary"):
        load_tokenizer(str(tmp_path))


def test_a_damaged_tokenizer_and_an_unreachable_hub_say_what_to_do(tmp_path, monkeypatch):
    make_backbone(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{broken")
    with pytest.raises(InputError, match="can't be loaded"):
        load_tokenizer(str(tmp_path))

    def unreachable(*_, **__):
        raise OSError("We couldn't connect to 'https://huggingface.co'")

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", unreachable)
    with pytest.raises(InputError, match="'roberta-large' can't be loaded: We couldn't connect") as caught:
        load_tokenizer("roberta-large")
    for way_on in ("HF_HOME", "HF_HUB_OFFLINE=1", "quickstart.yaml"):
        assert way_on in str(caught.value)
