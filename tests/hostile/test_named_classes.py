"""No checkpoint, adapter, backbone or data set chooses what code is run."""

import shutil
from pathlib import Path

import pytest
import yaml

import cli
from callbacks.checkpoints import WholeFileCheckpoints, read_checkpoint
from datamodules.splits import hub_tables
from tests.command_line import run, write_config
from tests.hostile.bombs import edit_json, refused, remote_code

MODULE = "a_module_that_marks"
_WITHOUT_CHECKSUMS = shutil.ignore_patterns("checksums.json")  # who changes a file changes them, too


@pytest.fixture
def module_that_marks(marker, tmp_path, monkeypatch) -> str:
    """A module on the import path that writes the marker when imported; it has a class of every kind."""
    place = tmp_path / "importable"
    place.mkdir()
    code = (
        f"import pathlib\npathlib.Path({str(marker)!r}).touch()\nfrom datamodules import GLUEDataModule as Anything\n"
    )
    (place / f"{MODULE}.py").write_text(code)
    monkeypatch.syspath_prepend(str(place))
    return MODULE


@pytest.mark.slow
def test_a_config_is_code_so_the_module_can_be_reached(finished, marker, tmp_path, module_that_marks):
    run("fit", finished / "tiny.yaml", tmp_path, f"--data={module_that_marks}.Anything")
    assert marker.exists()


def test_a_checkpoint_names_no_classes(finished, marker, tmp_path, module_that_marks):
    good = finished / "tiny" / "checkpoints" / "last.ckpt"
    class_path = f"{module_that_marks}.Anything"
    named = {
        "hyper_parameters": {"_class_path": class_path, "_instantiator": f"{module_that_marks}.Anything"},
        "datamodule_hyper_parameters": {"_class_path": class_path},
        "hparams_name": "kwargs",
        "data": {"class_path": class_path},
    }
    WholeFileCheckpoints().save_checkpoint({**read_checkpoint(good), **named}, tmp_path / "named.ckpt")
    for verb in ("validate", "predict"):
        assert run(verb, finished / "tiny.yaml", tmp_path, "--ckpt_path", str(tmp_path / "named.ckpt")) == 0
    assert not marker.exists()


PARTS = ("model", "data", "adapter", "callbacks", "a list")


@pytest.mark.parametrize(("kind", "part"), [*(("native", part) for part in PARTS), ("peft", "model")])
def test_an_export_names_no_classes(finished, marker, tmp_path, capsys, module_that_marks, kind, part):
    export = tmp_path / "export"
    shutil.copytree(finished / "tiny" / "exports" / kind, export, ignore=_WITHOUT_CHECKSUMS)
    named = {"class_path": f"{module_that_marks}.Anything", "init_args": {}}
    config = yaml.safe_load((export / "config.yaml").read_text())
    if part == "adapter":
        config["model"]["init_args"]["adapter"] = named
    elif part == "callbacks":
        config["trainer"] = {"callbacks": [named]}
    elif part == "a list":
        config["data"]["init_args"]["label_names"] = [named]
    else:
        config[part]["class_path"] = named["class_path"]
    (export / "config.yaml").write_text(yaml.safe_dump(config))
    reasons = {"callbacks": "isn't what an export writes", "a list": "names \"[{'class_path': "}
    reason = reasons.get(part, f"names '{module_that_marks}.Anything'")
    for verb in ("validate", "predict") if part == "model" else ("validate",):
        assert reason in refused(capsys, cli.main([verb, "--export", str(export)]), marker)


@pytest.mark.parametrize(
    "changes",
    [
        {"megatron_config": {"a": 1}, "megatron_core": f"{MODULE}.core"},
        {"auto_mapping": {"base_model_class": "Anything", "parent_library": MODULE}},
        {"peft_type": "PROMPT_TUNING", "tokenizer_kwargs": {"trust_remote_code": True}},
        {"init_lora_weights": "corda", "corda_config": {"cache_file": "cache.pt"}},
        {"peft_type": MODULE},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_an_adapter_config_names_no_classes(finished, marker, tmp_path, capsys, module_that_marks, changes):
    pytest.importorskip("peft")
    adapter = tmp_path / "adapter"
    shutil.copytree(finished / "tiny" / "exports" / "peft", adapter, ignore=_WITHOUT_CHECKSUMS)
    edit_json(adapter / "adapter_config.json", **changes)
    options = ("--model.init_from", str(adapter), "--model.adapter=null", "--trainer.max_epochs", "1")
    code = run("fit", finished / "tiny.yaml", tmp_path, *options)
    assert not marker.exists()
    assert code == (0 if "auto_mapping" in changes else 2), capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("model_type", [None, "a_type_nobody_knows"])
def test_code_beside_a_backbone_is_not_run(marker, tmp_path, tiny_bert, cola_folder, capsys, model_type):
    backbone = remote_code(tiny_bert, marker, tmp_path / "bert", model_type)
    config = write_config(tmp_path, str(backbone), cola_folder)
    code = run("fit", config, tmp_path, "--trainer.max_epochs", "1")
    assert not marker.exists()
    if model_type is None:  # a known architecture: transformers' own classes are used, the file's are ignored
        assert code == 0
    else:
        assert "can't be loaded" in refused(capsys, code, marker)


def test_a_script_beside_a_data_set_is_not_run(marker, tmp_path, tiny_bert, capsys):
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "corpus.py").write_text(f"import pathlib\npathlib.Path({str(marker)!r}).touch()\n")
    config = write_config(tmp_path, tiny_bert, "")
    options = ("--data=datamodules.TableDataModule", "--data.dataset", str(folder), "--data.data_dir=null")
    assert f"the data set {folder} " in refused(capsys, run("fit", config, tmp_path, *options), marker)


def test_what_comes_from_the_hub_comes_without_code_and_at_its_revision(monkeypatch):
    import datasets
    import transformers

    asked: list[dict] = []

    def record(*arguments: object, **settings: object) -> None:
        asked.append(settings)
        raise OSError("no hub here")

    monkeypatch.setattr(datasets, "load_dataset", record)
    for loader in ("AutoTokenizer", "AutoConfig", "AutoModelForSequenceClassification", "AutoModelForCausalLM"):
        monkeypatch.setattr(getattr(transformers, loader), "from_pretrained", record)
    from common.errors import InputError
    from datamodules.tokenizer import read_tokenizer
    from lightning_modules.backbone_loading import load_backbone

    calls = [
        lambda: hub_tables("owner/name", None, "abc123", "", ()),
        lambda: read_tokenizer("owner/name", "abc123"),
        lambda: load_backbone(transformers.AutoModelForSequenceClassification, "owner/name", "abc123"),
        lambda: load_backbone(transformers.AutoModelForCausalLM, "owner/name", "abc123"),
    ]
    for call in calls:
        with pytest.raises(InputError):
            call()
    config = transformers.BertConfig()
    monkeypatch.setattr(
        transformers.AutoConfig, "from_pretrained", lambda *given, **settings: asked.append(settings) or config
    )
    for call in calls[2:]:  # the models themselves
        with pytest.raises(InputError):
            call()
    assert [settings["revision"] for settings in asked] == ["abc123"] * 8
    assert [settings.get("trust_remote_code", False) for settings in asked] == [False] * 8


def test_every_class_that_reads_from_the_hub_can_pin_its_revision():
    from inspect import signature

    import datamodules
    import lightning_modules

    for name in ("GLUEDataModule", "AGNewsDataModule", "TableDataModule", "WikiTextDataModule", "PlainTextDataModule"):
        assert "dataset_revision" in signature(getattr(datamodules, name)).parameters
    for name in ("TextClassificationModule", "LanguageModellingModule"):
        assert getattr(lightning_modules, name)("any", revision="abc123").revision == "abc123"
    sources = Path(cli.__file__).parent
    code = "".join(
        path.read_text()
        for part in ("common", "datamodules", "lightning_modules", "experiments", "callbacks", "lora")
        for path in (sources / part).rglob("*.py")
    )
    assert "trust_remote_code=True" not in code
    assert "weights_only=False" not in code
    assert "pickle.load" not in code and "Unpickler(" not in code
