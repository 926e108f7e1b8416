import subprocess
import sys
from types import SimpleNamespace

import pytest

from common.errors import InputError
from datamodules import GLUEDataModule, tokenization
from tests.datamodules.conftest import rows_of


@pytest.mark.parametrize(
    ("task", "metric", "metrics"),
    [
        ("mrpc", None, ("f1", "accuracy", "average")),
        ("mrpc", "accuracy", ("accuracy", "f1", "average")),
        ("stsb", "spearman", ("spearman", "pearson", "average")),
        ("qqp", "average", ("average", "f1", "accuracy")),
    ],
)
def test_the_metric_that_chooses_the_best_epoch_is_an_option(task, metric, metrics):
    assert GLUEDataModule(task=task, metric=metric).task.metrics == metrics


def test_every_loader_gives_every_row_with_its_own_label(make):
    data = make()
    data.setup()
    loaders = {"train": [data.train_dataloader()], "validation": data.val_dataloader(), "test": data.test_dataloader()}
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
    monkeypatch.setattr(tokenization, "tokenize", lambda *_: pytest.fail("tokenised again"))
    other = make()  # another process finds the tokens
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
        validation += rows_of(batch for batch in data.val_dataloader()[0] if batch["real_rows"])
    assert sorted(map(int, rows)) == list(range(45))
    assert sorted(validation) == list(range(13))

    data.trainer.world_size = 3
    with pytest.raises(InputError, match="batch_size is 8, but devices x accumulation = 3 x 2 = 6"):
        data.train_dataloader()


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


def test_fit_says_what_it_trains_on(make, backbone, cola, tmp_path, capsys):
    data = make()
    for training in (False, True):
        data.trainer = SimpleNamespace(training=training, predicting=False)
        data.prepare_data()
        out = capsys.readouterr().out
        assert ("glue/cola: 45 train rows: 15 unacceptable, 30 acceptable\n" in out) == training
    assert "glue/cola: 11 test rows: 4 unacceptable, 7 acceptable" in out
    for name in ("train", "dev"):
        rows = "".join(f"w{row}\tw2\t{row % 2}\n" for row in range(6))
        (tmp_path / f"{name}.tsv").write_text(f"#1 String\t#2 String\tQuality\n{rows}")
    (tmp_path / "train.tsv.gz").touch()
    data = GLUEDataModule("mrpc", str(tmp_path), backbone=backbone)
    data.trainer = SimpleNamespace(training=True, predicting=False)
    data.prepare_data()
    out = capsys.readouterr().out
    assert "f1 is of the class 'equivalent'" in out and "6 different texts are in both" in out
    assert f"{tmp_path / 'train.tsv'} is read, and train.tsv.gz beside it is not" in out


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
        ({"task": "stsb", "metric": "f1"}, r"metric for stsb is 'f1'.*pearson"),
        ({"train_rows": 1}, r"all 1 train rows of glue/cola have the label .*--data.train_rows"),
        ({"cola_validation": "both"}, "cola_validation is 'both'; allowed: in_domain, combined"),
    ],
)
def test_settings_out_of_range_are_refused(make, settings, message):
    with pytest.raises(InputError, match=message):
        make(**settings).setup()


def test_importing_the_package_is_cheap():
    heavy = ("torch", "transformers", "datasets")
    script = f"import sys, datamodules; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr
