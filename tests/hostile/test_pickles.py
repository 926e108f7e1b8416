"""Nothing that is read as data is ever run: every place that takes a file gets one with a pickled bomb."""

import pickle
import shutil

import pyarrow
import pytest
import torch
from pyarrow import parquet

import cli
from callbacks.checkpoints import WholeFileCheckpoints, read_checkpoint
from common.errors import InputError
from tests.command_line import run, write_config
from tests.hostile.bombs import Bomb, bombed_backbone, bombed_checkpoints, refused

FORMS = ("zip", "legacy", "pickle")


def test_the_bomb_goes_off_where_pickles_are_trusted(marker, tmp_path):
    pickle.loads(pickle.dumps(Bomb(marker)))
    assert marker.exists()
    marker.unlink()
    torch.save({"bomb": Bomb(marker)}, tmp_path / "file.pt")
    torch.load(tmp_path / "file.pt", weights_only=False)
    assert marker.exists()


@pytest.mark.parametrize("form", FORMS)
def test_no_way_of_reading_a_checkpoint_unpickles_it(finished, marker, tmp_path, form):
    good = finished / "tiny" / "checkpoints" / "last.ckpt"
    bomb = bombed_checkpoints(good, marker, tmp_path / "bombs")[form]
    load = WholeFileCheckpoints().load_checkpoint
    for read in (read_checkpoint, load, lambda path: load(path, weights_only=False)):
        with pytest.raises(InputError, match="holds more than tensors"):
            read(bomb)
    assert not marker.exists()


VERBS = ["fit", "predict", "export"]  # validate and test read like predict


@pytest.mark.slow
@pytest.mark.parametrize(("verb", "form"), list(zip(VERBS, FORMS)))
def test_a_checkpoint_is_never_unpickled(finished, marker, tmp_path, capsys, verb, form):
    good = finished / "tiny" / "checkpoints" / "last.ckpt"
    bomb = str(bombed_checkpoints(good, marker, tmp_path / "bombs")[form])
    if verb == "export":
        code = cli.main(["export", str(finished / "tiny"), "--format", "merged", "--ckpt_path", bomb])
    else:
        code = run(verb, finished / "tiny.yaml", tmp_path, "--ckpt_path", bomb)
    assert bomb in refused(capsys, code, marker)


@pytest.mark.slow
def test_checkpoints_in_the_run_folder_are_never_unpickled(finished, marker, tmp_path, capsys):
    shutil.copytree(finished / "tiny", tmp_path / "tiny")
    longer = ("--trainer.max_epochs", "2")
    last, best = (tmp_path / "tiny" / "checkpoints" / f"{which}.ckpt" for which in ("last", "best"))
    shutil.copy(bombed_checkpoints(last, marker, tmp_path / "bombs")["zip"], last)
    assert run("fit", finished / "tiny.yaml", tmp_path, "--ckpt_path", "last", *longer) == 0
    assert "Going on from the newest whole checkpoint instead, best.ckpt" in capsys.readouterr().err
    assert not marker.exists()
    shutil.copy(bombed_checkpoints(best, marker, tmp_path / "bombs")["zip"], best)
    refused(capsys, run("fit", finished / "tiny.yaml", tmp_path, "--ckpt_path", "best", *longer), marker)


def test_a_backbone_is_never_unpickled(marker, tmp_path, cola_folder, tiny_bert, capsys):
    backbone = bombed_backbone(tiny_bert, marker, tmp_path / "bert")
    config = write_config(tmp_path, str(backbone), cola_folder)
    assert str(backbone) in refused(capsys, run("fit", config, tmp_path), marker)


@pytest.mark.parametrize("use", ["init_from", "export"])
def test_an_adapter_of_peft_is_never_unpickled(finished, marker, tmp_path, capsys, use):
    pytest.importorskip("peft")
    adapter = tmp_path / "adapter"
    shutil.copytree(finished / "tiny" / "exports" / "peft", adapter)
    (adapter / "adapter_model.safetensors").unlink()
    torch.save({"bomb": Bomb(marker)}, adapter / "adapter_model.bin")
    if use == "export":
        code = cli.main(["predict", "--export", str(adapter)])
    else:
        code = run("fit", finished / "tiny.yaml", tmp_path, "--model.init_from", str(adapter), "--model.adapter=null")
    assert str(adapter) in refused(capsys, code, marker)


@pytest.mark.parametrize(("kind", "form"), list(zip(["native", "peft", "native"], FORMS)))
def test_a_file_that_only_claims_to_be_safetensors_is_never_unpickled(finished, marker, tmp_path, capsys, kind, form):
    adapter = tmp_path / "adapter"
    shutil.copytree(finished / "tiny" / "exports" / kind, adapter)
    (weights,) = adapter.glob("*.safetensors")
    good = finished / "tiny" / "checkpoints" / "last.ckpt"
    shutil.copy(bombed_checkpoints(good, marker, tmp_path / "bombs")[form], weights)
    code = run("fit", finished / "tiny.yaml", tmp_path, "--model.init_from", str(adapter), "--model.adapter=null")
    refused(capsys, code, marker)


@pytest.mark.slow
def test_caches_are_never_unpickled_but_made_again(finished, marker, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    monkeypatch.setenv("RANKWISE_CACHE", str(cache))
    short = ("--trainer.max_epochs", "1")
    assert run("fit", finished / "tiny.yaml", tmp_path, *short) == 0
    files = [path for path in cache.rglob("*") if path.is_file()]
    assert {path.parent.name for path in files} == {"factors", "tokenized"}
    good = finished / "tiny" / "checkpoints" / "last.ckpt"
    bomb = bombed_checkpoints(good, marker, tmp_path / "bombs")["zip"].read_bytes()
    for path in files:
        path.write_bytes(bomb)
    assert run("fit", finished / "tiny.yaml", tmp_path, *short, "--overwrite") == 0
    assert not marker.exists()
    assert all(path.read_bytes() != bomb for path in files)


@pytest.mark.slow
def test_a_parquet_file_is_never_unpickled(marker, tmp_path, tiny_bert, capsys):
    """The extension type with which Arrow once unpickled what a file's schema carried (CVE-2023-47248)."""
    carried = {
        b"ARROW:extension:name": b"arrow.py_extension_type",
        b"ARROW:extension:metadata": pickle.dumps(Bomb(marker)),
    }
    text = pyarrow.field("text", pyarrow.string(), metadata=carried)
    schema = pyarrow.schema([text, pyarrow.field("label", pyarrow.int64())])
    rows = {"text": ["the cat", "a dog not"] * 8, "label": [0, 1] * 8}
    parquet.write_table(pyarrow.table(rows, schema=schema), tmp_path / "train.parquet")
    config = write_config(tmp_path, tiny_bert, str(tmp_path))
    table = ("--data=datamodules.TableDataModule", "--data.data_dir", str(tmp_path), "--data.batch_size", "4")
    code = run("fit", config, tmp_path, *table, "--trainer.max_epochs", "1")
    assert not marker.exists()
    assert code == 0, capsys.readouterr().err
