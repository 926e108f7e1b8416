import subprocess
import sys
from collections import Counter
from itertools import chain
from types import SimpleNamespace

import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch import LightningDataModule

from common.errors import InputError
from datamodules import GLUEDataModule, QuickstartDataModule, text_classification
from datamodules.quickstart_corpus import generate_corpus
from datamodules.sources import Examples


def cola_line(row: int) -> str:
    words = " ".join(f"w{(row * 7 + at) % 40}" for at in range(row % 9 + 1))
    return f"gj04\t{int(row % 3 > 0)}\t\t{words}\n"


@pytest.fixture
def cola(tmp_path):
    folder = tmp_path / "cola"
    folder.mkdir()
    for name, rows in (("in_domain_train", range(45)), ("in_domain_dev", range(100, 113))):
        (folder / f"{name}.tsv").write_text("".join(cola_line(row) for row in rows))
    (folder / "out_of_domain_dev.tsv").write_text("".join(cola_line(row) for row in range(200, 211)))
    return str(folder)


@pytest.fixture
def make(cola, backbone):
    return lambda **settings: GLUEDataModule(**({"data_dir": cola, "backbone": backbone, "batch_size": 8} | settings))


def rows_of(loader) -> list[int]:
    return list(chain.from_iterable(batch["row"].tolist() for batch in loader))


def test_what_it_says_about_itself(make):
    data = make()
    data.setup("fit")
    assert data.name == "glue/cola"
    assert data.task.metrics[0] == "matthews_correlation"
    assert data.task.num_labels == 2
    assert data.row_counts == {"train_rows": 45, "validation_rows": 13, "test_rows": 11}
    assert data.train_label_counts == [15, 30]
    assert data.validation_names == ("val",)
    assert data.test_names == ("test",)
    assert data.has_labelled_test
    assert data.tag_names == ()
    assert data.truncated_rows == {"train": 0, "validation": 0, "test": 0}


def test_combined_validation_leaves_no_test(make):
    data = make(cola_validation="combined")
    data.setup()
    assert data.row_counts == {"train_rows": 45, "validation_rows": 24, "test_rows": 0}
    assert not data.has_labelled_test
    with pytest.raises(InputError, match="glue/cola has no labelled test split"):
        data.test_dataloader()


def test_every_loader_gives_every_row_with_its_own_label(make):
    data = make()
    data.setup()
    loaders = {
        "train": [data.train_dataloader()],
        "validation": data.val_dataloader(),
        "test": data.test_dataloader(),
    }
    starts = {"train": (0, 45), "validation": (100, 13), "test": (200, 11)}
    for name, (loader,) in loaders.items():
        first, rows = starts[name]
        assert sorted(rows_of(loader)) == list(range(rows))
        for batch in loader:
            numbers = [first + row for row in batch["row"].tolist()]
            assert batch["labels"].tolist() == [int(number % 3 > 0) for number in numbers]
            # [CLS], the words, [SEP]
            assert batch["inputs"]["attention_mask"].sum(1).tolist() == [number % 9 + 3 for number in numbers]
            assert batch["inputs"]["input_ids"][:, 1].tolist() == [number * 7 % 40 + 4 for number in numbers]


def test_setup_reads_once(make, monkeypatch):
    data = make()
    reads = []
    load = data.load_examples
    monkeypatch.setattr(data, "load_examples", lambda: reads.append(1) or load())
    data.prepare_data()
    for stage in ("fit", "validate", "test", "predict", None):
        data.setup(stage)
    assert len(reads) == 1


def test_prepared_tokens_serve_the_other_processes(make, monkeypatch):
    make().prepare_data()

    class Untouched:
        def __init__(self, tokenizer):
            self.tokenizer = tokenizer
            self.__class__.__name__ = type(tokenizer).__name__

        def __call__(self, *_, **__):
            raise AssertionError("tokenised again")

        def __getattr__(self, name):
            return getattr(self.tokenizer, name)

    load = text_classification.load_tokenizer
    monkeypatch.setattr(text_classification, "load_tokenizer", lambda *args: Untouched(load(*args)))
    other = make()
    other.setup("fit")
    assert other.row_counts["train_rows"] == 45


def test_loaders_follow_the_trainers_processes_and_accumulation(make):
    rows, validation = [], []
    for rank in range(2):
        data = make(evaluation_batch_size=5)
        data.trainer = SimpleNamespace(world_size=2, global_rank=rank, accumulate_grad_batches=2, overfit_batches=0)
        data.setup("fit")
        loader = data.train_dataloader()
        assert len(loader) == 12
        assert {batch["loss_denominator"] for batch in loader} == {2.0, 5 / 4}
        rows += [row for batch in loader for row, weight in zip(batch["row"], batch["weights"], strict=True) if weight]
        validation += rows_of(data.val_dataloader()[0])
    assert sorted(map(int, rows)) == list(range(45))
    assert sorted(validation) == list(range(13))

    data.trainer.world_size = 3
    with pytest.raises(InputError, match="batch_size is 8, but devices x accumulation = 3 x 2 = 6"):
        data.train_dataloader()


def test_the_position_in_the_data_order_travels_with_the_data_module(make):
    data = make()
    data.setup()
    loader = data.train_dataloader()
    whole = [batch["row"].tolist() for batch in loader]
    iterator = iter(loader)
    for _ in range(4):
        next(iterator)
    resumed = make()
    resumed.load_state_dict(data.state_dict())
    resumed.setup()
    assert [batch["row"].tolist() for batch in resumed.train_dataloader()] == whole[4:]


def test_subsets_depend_on_their_own_seed_only(make):
    def texts(**settings):
        data = make(train_rows=20, validation_rows=5, **settings)
        data.setup()
        assert data.row_counts == {"train_rows": 20, "validation_rows": 5, "test_rows": 11}
        return data._examples["train"].texts, data._examples["validation"].texts

    assert texts(seed=1) == texts(seed=2)
    assert texts(subset_seed=1)[0] != texts(subset_seed=2)[0]
    everything = make(train_rows=1000)
    everything.setup()
    assert everything.row_counts["train_rows"] == 45


def test_truncated_rows_are_counted_and_told(make, capsys):
    data = make(max_length=8)
    data.setup()
    # row % 9 + 3 tokens each: those with 9, 10 and 11 are cut.
    expected = {
        name: sum(row % 9 > 5 for row in rows)
        for name, rows in {"train": range(45), "validation": range(100, 113), "test": range(200, 211)}.items()
    }
    assert data.truncated_rows == expected
    assert f"{expected['train']} of 45 train rows are longer than max_length = 8" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0; allowed: 1 or more"),
        ({"evaluation_batch_size": -1}, "evaluation_batch_size is -1"),
        ({"train_rows": 0}, "train_rows is 0"),
        ({"validation_rows": 0}, "validation_rows is 0"),
        ({"max_length": 0}, "max_length is 0"),
        ({"max_length": 3}, r"max_length is 3; allowed with .*: 4 to 160"),
        ({"max_length": 161}, r"max_length is 161; allowed with .*: 4 to 160"),
        ({"task": "colla"}, "task is 'colla'; allowed: .*Did you mean 'cola'"),
        ({"cola_validation": "both"}, "cola_validation is 'both'; allowed: in_domain, combined"),
    ],
)
def test_settings_out_of_range_are_refused(make, settings, message):
    with pytest.raises(InputError, match=message):
        make(**settings).setup()


def test_training_rows_of_one_class_are_refused(make, cola):
    with pytest.raises(InputError, match=r"all 1 train rows of glue/cola have the label .*--data.train_rows"):
        make(train_rows=1).setup()
    with open(f"{cola}/in_domain_train.tsv", "w") as file:
        file.write("gj04\t1\t\tw1\ngj04\t1\t\tw2\n")
    with pytest.raises(InputError, match="all 2 train rows of glue/cola have the label 'acceptable'"):
        make().setup()


def test_predict_takes_a_file_and_needs_no_data_set(backbone, tmp_path):
    file = tmp_path / "sentences.txt"
    file.write_text('w1 w2 w3 w4\nw5 "w6"\tw7\nw8\n')
    data = GLUEDataModule(
        backbone=backbone, data_dir=str(tmp_path / "nowhere"), predict_file=str(file), evaluation_batch_size=2
    )
    data.setup("predict")
    batches = list(data.predict_dataloader())
    assert [batch["row"].tolist() for batch in batches] == [[0, 1], [2]]
    assert batches[1]["inputs"]["input_ids"].tolist() == [[2, 12, 3]]
    assert "labels" not in batches[0]
    assert data.predict_examples().texts == ["w1 w2 w3 w4", 'w5 "w6"\tw7', "w8"]


def test_predict_file_of_pairs(backbone, tmp_path):
    file = tmp_path / "pairs.txt"
    file.write_text("w1\tw2 w3\nw4\tw5\n")
    data = GLUEDataModule("rte", backbone=backbone, predict_file=str(file))
    assert data.predict_examples().pairs == ["w2 w3", "w5"]
    (batch,) = data.predict_dataloader()
    assert batch["inputs"]["token_type_ids"].tolist() == [[0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 0]]

    file.write_text("w1\tw2\nonly one\n")
    with pytest.raises(InputError, match=r"pairs.txt, line 2: 1 tab-separated texts in 'only one'; allowed: 2"):
        data.predict_examples()
    file.write_text("w1\tw2\n\nw3\tw4\n")
    with pytest.raises(InputError, match="line 2: 1 tab-separated"):
        data.predict_examples()
    file.unlink()
    with pytest.raises(InputError, match="which is not a file"):
        data.predict_examples()


def test_predict_without_a_file_takes_test_else_validation(make):
    with_test, without = make(), make(cola_validation="combined")
    assert len(with_test.predict_examples()) == 11
    assert len(without.predict_examples()) == 24
    assert rows_of(without.predict_dataloader()) == list(range(24))


def test_an_unlabelled_test_split_is_for_predict_only(backbone, tmp_path):
    (tmp_path / "train.tsv").write_text("sentence\tlabel\nw1\t0\nw2\t1\n")
    (tmp_path / "dev.tsv").write_text("sentence\tlabel\nw3\t1\n")
    (tmp_path / "test.tsv").write_text("index\tsentence\n0\tw4\n1\tw5\n")
    data = GLUEDataModule("sst2", str(tmp_path), backbone=backbone)
    data.setup()
    assert data.row_counts == {"train_rows": 2, "validation_rows": 1, "test_rows": 0}
    assert data.test_names == ()
    (batch,) = data.predict_dataloader()
    assert batch["row"].tolist() == [0, 1]
    assert "labels" not in batch


def test_mnli_validates_on_two_sets(backbone, tmp_path):
    header = "sentence1\tsentence2\tgold_label\n"
    (tmp_path / "train.tsv").write_text(header + "w1\tw2\tneutral\nw3\tw4\tentailment\n")
    (tmp_path / "dev_matched.tsv").write_text(header + "w5\tw6\tneutral\n")
    (tmp_path / "dev_mismatched.tsv").write_text(header + "w7\tw8\tcontradiction\nw9\tw8\tneutral\n")
    data = GLUEDataModule("mnli", str(tmp_path), backbone=backbone)
    data.setup()
    assert data.validation_names == ("val", "val_mismatched")
    assert [len(rows_of(loader)) for loader in data.val_dataloader()] == [1, 2]
    assert data.row_counts["validation_rows"] == 3
    assert data.train_label_counts == [1, 1, 0]


def test_the_quickstart_corpus_with_its_phenomena(backbone):
    sizes = {"train_sentences": 200, "validation_sentences": 40, "test_sentences": 60}
    data = QuickstartDataModule(backbone=backbone, **sizes, corpus_seed=3)
    data.setup()
    corpus = generate_corpus(**sizes, seed=3)
    assert data.name == "quickstart"
    assert data.row_counts == {f"{split}_rows": len(rows) for split, rows in corpus.items()}
    assert data.task.metrics == ("matthews_correlation", "accuracy")
    counts = Counter(sentence.label for sentence in corpus["train"])
    assert data.train_label_counts == [counts[0], counts[1]]
    for split, loader in (("validation", data.val_dataloader()[0]), ("test", data.test_dataloader()[0])):
        for batch in loader:
            for row, tag, label in zip(batch["row"], batch["tag"], batch["labels"], strict=True):
                sentence = corpus[split][int(row)]
                assert (data.tag_names[tag], int(label)) == (sentence.phenomenon, sentence.label)


def test_a_tag_has_the_same_number_in_every_split(backbone):
    class Tagged(QuickstartDataModule):
        def load_examples(self):
            return {
                "train": Examples(["w1", "w2"], labels=[0, 1], tags=["b", "d"]),
                "validation": Examples(["w3", "w4"], labels=[0, 1], tags=["d", "c"]),
                "test": Examples(["w5"], labels=[1], tags=["a"]),
            }

    data = Tagged(backbone=backbone)
    data.setup()
    assert data.tag_names == ("a", "b", "c", "d")
    loaders = (data.train_dataloader(), *data.val_dataloader(), *data.test_dataloader())
    tags = [dict(zip(batch["row"].tolist(), batch["tag"].tolist(), strict=True)) for (batch,) in loaders]
    assert tags == [{0: 1, 1: 3}, {0: 3, 1: 2}, {0: 0}]


def test_the_command_line_knows_the_shared_options(backbone, cola):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(LightningDataModule, "data")
    arguments = ["--data=datamodules.GLUEDataModule", "--data.batch_size=4", f"--data.data_dir={cola}"]
    config = parser.parse_args([*arguments, f"--data.backbone={backbone}", "--data.train_rows=null"])
    data = parser.instantiate(config).data
    data.setup()
    assert isinstance(data, GLUEDataModule)
    assert len(data.train_dataloader()) == 12
    # A wrong value must come out as it is, not wrapped by the parser.
    wrong = parser.instantiate(parser.parse_args([*arguments, "--data.evaluation_batch_size=0"])).data
    with pytest.raises(InputError, match="evaluation_batch_size is 0"):
        wrong.setup()


def test_importing_the_package_is_cheap():
    heavy = ("torch", "transformers", "datasets")
    script = f"import sys, datamodules; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


def test_all_batches_are_plain_data(make):
    data = make()
    data.setup()
    batch = next(iter(data.train_dataloader()))
    assert set(batch) == {
        "inputs", "labels", "weights", "loss_denominator", "row", "real_rows", "real_tokens", "padded_tokens",
    }  # fmt: skip
    assert all(isinstance(batch[name], torch.Tensor) for name in ("labels", "weights", "row"))
    assert type(batch["loss_denominator"]) is float
    assert {type(batch[name]) for name in ("real_rows", "real_tokens", "padded_tokens")} == {int}
