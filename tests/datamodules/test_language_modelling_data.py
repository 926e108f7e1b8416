"""WikiText and one's own text: what becomes of it before a model sees it."""

import gzip
import json
from pathlib import Path

import datasets
import pyarrow
import pyarrow.parquet
import pytest
import torch
from transformers import AutoTokenizer

from common.errors import InputError
from datamodules import PlainTextDataModule, language_modelling
from datamodules.language_modelling import cut_pieces, first_tokens
from tests import tiny


def all_tokens(data, split: str) -> list[int]:
    """The tokens of a split's rows, one after the other."""
    windows = data._splits[split]
    rows = zip(windows.offsets.tolist(), windows.ends.tolist())
    return [token for start, end in rows for token in windows.input_ids[start:end].tolist()]


def ready(backbone, folder, **settings):
    data = tiny.make_wikitext(backbone, str(folder), **settings)
    data.prepare_data()
    data.setup()
    return data


@pytest.mark.parametrize("ending", ["raw", "tokens"])
@pytest.mark.parametrize("zipped", [False, True])
def test_blocks_are_the_tokens_of_the_whole_file(tiny_gpt2, tmp_path, ending, zipped):
    tiny.save_wikitext(tmp_path, ending)
    texts = {split: (tmp_path / f"wiki.{split}.{ending}").read_text() for split in ("train", "valid", "test")}
    if zipped:
        for path in list(tmp_path.iterdir()):
            path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
    data = ready(tiny_gpt2, tmp_path, variant="wikitext-2-raw" if ending == "raw" else "wikitext-103", block_size=17)
    tokenizer = AutoTokenizer.from_pretrained(tiny_gpt2)
    whole = {split: tokenizer(text)["input_ids"] for split, text in texts.items()}
    assert all_tokens(data, "validation") == whole["valid"]
    assert all_tokens(data, "test") == whole["test"]
    # in training the last, shorter block is left out
    assert all_tokens(data, "train") == whole["train"][: len(whole["train"]) // 17 * 17]
    assert set(data._splits["train"].lengths.tolist()) == {17}


def test_a_token_that_begins_texts_comes_once_in_blocks_and_on_every_line_in_lines(tiny_llama, wikitext_folder):
    blocks = ready(tiny_llama, wikitext_folder)
    text = (Path(wikitext_folder) / "wiki.test.raw").read_text()
    assert all_tokens(blocks, "test") == AutoTokenizer.from_pretrained(tiny_llama)(text)["input_ids"]
    assert all_tokens(blocks, "test").count(0) == 1
    lines = ready(tiny_llama, wikitext_folder, packing="lines", block_size=64)
    kept = [line for line in text.split("\n") if line.strip()]
    assert all_tokens(lines, "test").count(0) == len(kept) == lines.row_counts["test_rows"] == 18


@pytest.mark.parametrize("characters", [1, 7, 60, 10_000])
def test_pieces_of_a_text_give_the_tokens_of_the_whole(tiny_gpt2, wikitext_folder, characters):
    tokenizer = AutoTokenizer.from_pretrained(tiny_gpt2)
    for text in ((Path(wikitext_folder) / "wiki.train.raw").read_text(), "\n\n a\n \n\t b  c.\n\n\n", "one\n", "\n x"):
        pieces = cut_pieces(text, characters)
        assert "".join(pieces) == text
        assert all(piece.strip() for piece in pieces)
        tokens = [token for piece in pieces for token in tokenizer(piece)["input_ids"]]
        assert tokens == tokenizer(text)["input_ids"]
    assert len(cut_pieces("a\nb\nc\n", characters)) == (3 if characters == 1 else 1)


def test_long_texts_are_tokenised_in_pieces(tiny_gpt2, wikitext_folder, monkeypatch):
    whole = all_tokens(ready(tiny_gpt2, wikitext_folder), "train")
    monkeypatch.setattr(language_modelling, "cut_pieces", lambda text: cut_pieces(text, 50))
    assert all_tokens(ready(tiny_gpt2, wikitext_folder), "train") == whole


@pytest.fixture
def as_on_the_hub(wikitext_folder) -> dict[str, list[str]]:
    """The rows as Salesforce/wikitext has them: with line ends, and nothing for a blank line."""
    rows = {}
    for split, name in (("train", "train"), ("validation", "valid"), ("test", "test")):
        lines = (Path(wikitext_folder) / f"wiki.{name}.raw").read_text().splitlines(keepends=True)
        rows[split] = [line if line.strip() else "" for line in lines]
    return rows


@pytest.mark.parametrize("layout", ["jsonl", "parquet", "shards", "saved", "hub"])
def test_every_layout_gives_the_same_tokens(tiny_gpt2, wikitext_folder, as_on_the_hub, tmp_path, monkeypatch, layout):
    asked = []
    made = datasets.DatasetDict({s: datasets.Dataset.from_dict({"text": rows}) for s, rows in as_on_the_hub.items()})
    if layout == "saved":
        made.save_to_disk(tmp_path)
    if layout == "hub":
        monkeypatch.setattr(datasets, "load_dataset", lambda *name, revision: asked.append((name, revision)) or made)
    for split, rows in as_on_the_hub.items():
        if layout == "jsonl":
            (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
        elif layout == "parquet":
            pyarrow.parquet.write_table(pyarrow.table({"text": rows}), tmp_path / f"{split}.parquet")
        elif layout == "shards":
            for shard, part in enumerate((rows[:5], rows[5:])):
                name = f"{split}-{shard:05}-of-00002.parquet"
                pyarrow.parquet.write_table(pyarrow.table({"text": part}), tmp_path / name)
    data = tiny.make_wikitext(tiny_gpt2, None if layout == "hub" else str(tmp_path))
    data.setup()
    official = ready(tiny_gpt2, wikitext_folder)
    for split in ("train", "validation", "test"):
        assert all_tokens(data, split) == all_tokens(official, split)
    assert asked == ([(("Salesforce/wikitext", "wikitext-2-raw-v1"), None)] if layout == "hub" else [])


def test_lines_drop_what_is_empty_and_go_on_in_further_rows(tiny_gpt2, wikitext_folder, capsys):
    data = ready(tiny_gpt2, wikitext_folder, packing="lines", block_size=12)
    tokenizer = AutoTokenizer.from_pretrained(tiny_gpt2)
    text = (Path(wikitext_folder) / "wiki.test.raw").read_text()
    lines = [tokenizer(line)["input_ids"] for line in text.split("\n") if line.strip()]
    longer = sum(len(line) > 12 for line in lines)
    assert f"wikitext-2-raw: {longer} of 18 test lines are longer than block_size = 12" in capsys.readouterr().out
    assert longer and data.row_counts["test_tokens"] == sum(len(line) - -(-len(line) // 12) for line in lines)
    for batch in data.train_dataloader():  # rows of similar length together: little padding
        assert batch["padded_tokens"] <= 1.6 * batch["real_tokens"]


def test_strides_are_for_evaluation_only_and_the_first_rows_can_be_asked_for(tiny_gpt2, wikitext_folder):
    plain, strided = ready(tiny_gpt2, wikitext_folder), ready(tiny_gpt2, wikitext_folder, stride=4)
    assert strided.row_counts["train_rows"] == plain.row_counts["train_rows"]
    length = len(all_tokens(plain, "validation"))
    assert strided.row_counts["validation_tokens"] == length - 1
    assert plain.row_counts["validation_tokens"] == length - -(-length // 16)
    part = ready(tiny_gpt2, wikitext_folder, train_rows=3, validation_rows=2, test_rows=1)
    counts = {name: count for name, count in part.row_counts.items() if name.endswith("rows")}
    assert counts == {"train_rows": 3, "validation_rows": 2, "test_rows": 1}
    assert all_tokens(part, "validation") == all_tokens(plain, "validation")[:32]


def test_a_tokenizer_that_can_not_pad_still_fills_lines(tmp_path, wikitext_folder):
    tiny.save_tiny_gpt2(tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    settings.pop("eos_token")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    (tmp_path / "special_tokens_map.json").unlink(missing_ok=True)
    data = ready(str(tmp_path), wikitext_folder, packing="lines", block_size=64)
    assert (data.tokenizer.pad_token, data.tokenizer.eos_token) == (None, None)
    (loader,) = data.val_dataloader()
    for batch in loader:
        assert (batch["labels"] != -100).sum(1).tolist() == batch["scored"].tolist()
        assert bool((batch["inputs"]["attention_mask"].sum(1) == batch["scored"] + 1).all())


def test_tokens_before_a_text(tiny_gpt2, tiny_llama, tmp_path):
    tiny.save_tokenizer(tmp_path)
    found = [first_tokens(AutoTokenizer.from_pretrained(folder)) for folder in (tiny_gpt2, tiny_llama, tmp_path)]
    assert found == [[], [0], [2]]  # nothing; <s>; [CLS], without the [SEP] at the end


# One's own text


def plain(backbone, **settings):
    data = PlainTextDataModule(backbone=backbone, block_size=8, **settings)
    data.setup()
    return data


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_validation_is_the_end_of_the_training_text(tiny_gpt2, tmp_path):
    lines = [f"the cat sees dog {number}\n" for number in range(20)]
    data = plain(tiny_gpt2, train_file=write(tmp_path / "mine.txt", "".join(lines)), validation_fraction=0.25)
    tokenizer = AutoTokenizer.from_pretrained(tiny_gpt2)
    assert all_tokens(data, "validation") == tokenizer("".join(lines[15:]))["input_ids"]
    train = tokenizer("".join(lines[:15]))["input_ids"]
    assert all_tokens(data, "train") == train[: len(train) // 8 * 8]
    assert (data.name, data.test_names) == ("text/mine", ())


def test_a_short_training_text_is_one_short_block(tiny_gpt2, tmp_path):
    file = write(tmp_path / "short.txt", "the cat sees\n")
    data = plain(tiny_gpt2, train_file=file, validation_file=file)
    assert data.row_counts["train_rows"] == 1
    assert torch.equal(data._splits["train"].lengths, data._splits["validation"].lengths)


def test_files_of_every_kind_give_the_same_text(tiny_gpt2, tmp_path):
    rows = ["the cat", "a dog\u2028sees", "", "birds sleep"]
    write(tmp_path / "a.txt", "".join(f"{row}\n" for row in rows))
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress((tmp_path / "a.txt").read_bytes()))
    write(tmp_path / "windows.txt", "".join(f"{row}\n" for row in rows))
    (tmp_path / "windows.txt").write_bytes((tmp_path / "a.txt").read_bytes().replace(b"\n", b"\r\n"))
    write(tmp_path / "a.jsonl", "".join(json.dumps({"id": 1, "body": row}) + "\n" for row in rows))
    pyarrow.parquet.write_table(pyarrow.table({"body": rows}), tmp_path / "a.parquet")
    write(tmp_path / "a.csv", "id,body\n" + "".join(f'1,"{row}"\n' for row in rows))
    found = []
    for name in ("a.txt", "a.txt.gz", "windows.txt", "a.jsonl", "a.parquet", "a.csv"):
        file = str(tmp_path / name)
        data = plain(tiny_gpt2, train_file=file, validation_file=file, test_file=file, text_column="body")
        found.append(all_tokens(data, "test"))
    assert all(tokens == found[0] for tokens in found)
    assert found[0] == AutoTokenizer.from_pretrained(tiny_gpt2)((tmp_path / "a.txt").read_text())["input_ids"]


def test_a_data_set_of_the_hub_gives_its_text(tiny_gpt2, monkeypatch):
    asked = []
    rows = [f"the cat sees dog {number}" for number in range(20)]
    made = datasets.DatasetDict({name: datasets.Dataset.from_dict({"body": rows}) for name in ("train", "test")})
    monkeypatch.setattr(datasets, "load_dataset", lambda *name, revision: asked.append((name, revision)) or made)
    data = plain(tiny_gpt2, dataset="owner/texts", dataset_name="small", text_column="body", validation_fraction=0.25)
    assert asked == [(("owner/texts", "small"), None)]
    tokenizer = AutoTokenizer.from_pretrained(tiny_gpt2)
    assert all_tokens(data, "test") == tokenizer("".join(f"{row}\n" for row in rows))["input_ids"]
    assert all_tokens(data, "validation") == tokenizer("".join(f"{row}\n" for row in rows[15:]))["input_ids"]
    assert (data.name, data.test_names) == ("owner/texts", ("test",))
    with pytest.raises(InputError, match=r"dataset is 'owner/texts' and train_file is 'a\.txt'"):
        plain(tiny_gpt2, dataset="owner/texts", train_file="a.txt")
    with pytest.raises(InputError, match="dataset_revision is 'v2', but would have no effect"):
        plain(tiny_gpt2, dataset_revision="v2", train_file="a.txt")


# Bad input


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"variant": "wikitext-3"}, r"variant is 'wikitext-3'; allowed: wikitext-2-raw, wikitext-2, .* Did you mean"),
        ({"packing": "rows"}, "packing is 'rows'; allowed: blocks, lines"),
        ({"block_size": 1}, "block_size is 1; allowed: 2 or more"),
        ({"stride": 0}, r"stride is 0; allowed: 1 to 15 \(block_size - 1\)"),
        ({"stride": 16}, "stride is 16; allowed: 1 to 15"),
        ({"test_rows": 0}, "test_rows is 0; allowed: 1 or more"),
        ({"batch_size": 0}, "batch_size is 0; allowed: 1 or more"),
        ({"data_dir": "nowhere"}, "data_dir is 'nowhere', which is not a folder; allowed: .* wiki.train.raw"),
    ],
)
def test_a_setting_that_is_not_allowed_is_refused(tiny_gpt2, wikitext_folder, settings, message):
    data = tiny.make_wikitext(tiny_gpt2, **{"data_dir": wikitext_folder, **settings})
    with pytest.raises(InputError, match=message):
        data.setup()


def test_a_missing_file_is_refused_with_those_that_are_there(tiny_gpt2, tmp_path):
    tiny.save_wikitext(tmp_path)
    (tmp_path / "wiki.valid.raw").unlink()
    with pytest.raises(InputError, match=r"no wiki.valid.raw \(plain or .gz\).*holds: wiki.test.raw, wiki.train.raw"):
        ready(tiny_gpt2, tmp_path)
    with pytest.raises(InputError, match=r"no wiki.train.tokens and no wiki.valid.tokens .* which wikitext-2 needs"):
        ready(tiny_gpt2, tmp_path, variant="wikitext-2")
    with pytest.raises(InputError, match=r"there is no file .*other.txt; .* holds: wiki.test.raw"):
        plain(tiny_gpt2, train_file=str(tmp_path / "other.txt"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("one.txt", "a", "has 1 lines, which leaves the train split without text"),
        ("a.jsonl", '{"text": "a"}\n{"body": "b"}\n', r"line 2: no text among body"),
        ("b.jsonl", '{"text": 3}\n', r"line 1: text is 3; allowed: text"),
        ("c.jsonl", '{"text": ""}\n', "no text in its column text"),
        ("d.jsonl", '{"text": "a\\ud800"}\n', r"d.jsonl, line 1: .* half of a surrogate pair"),
    ],
)
def test_text_that_can_not_be_read_is_refused(tiny_gpt2, tmp_path, name, content, message):
    with pytest.raises(InputError, match=message):
        plain(tiny_gpt2, train_file=write(tmp_path / name, content))


def test_a_split_without_a_token_to_score_is_refused(tiny_gpt2, tmp_path):
    words, one = write(tmp_path / "words.txt", "the cat sees the dog\n" * 9), write(tmp_path / "one.txt", "a")
    with pytest.raises(InputError, match="the test split of text/words has no token to score"):
        plain(tiny_gpt2, train_file=words, test_file=one)
    with pytest.raises(InputError, match="train_file isn't given"):
        plain(tiny_gpt2)
    with pytest.raises(InputError, match=r"validation_fraction is 1.5; allowed: more than 0 and less than 1"):
        plain(tiny_gpt2, train_file=words, validation_fraction=1.5)
