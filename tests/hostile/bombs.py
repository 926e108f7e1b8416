"""Files that would write a marker if anyone ran what they carry."""

import json
import re
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch


class Bomb:
    """Unpickled, it makes the file `marker`."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return Path.touch, (self.marker,)


def bombed_checkpoints(good: Path, marker: Path, folder: Path) -> dict[str, Path]:
    """A run's checkpoint with a bomb in it, in every form that torch.load reads, and bare pickles."""
    content = {**torch.load(good, weights_only=True), "extra": Bomb(marker)}
    folder.mkdir(exist_ok=True)
    paths = {name: folder / f"{name}.ckpt" for name in ("zip", "legacy", "pickle")}
    torch.save(content, paths["zip"])
    torch.save(content, paths["legacy"], _use_new_zipfile_serialization=False)
    paths["pickle"].write_bytes(pickle.dumps(Bomb(marker)))
    return paths


def bombed_backbone(source: str, marker: Path, folder: Path) -> Path:
    """A backbone whose weights are a pickle."""
    shutil.copytree(source, folder)
    (folder / "model.safetensors").unlink()
    torch.save({"bomb": Bomb(marker)}, folder / "pytorch_model.bin")
    return folder


def remote_code(source: str, marker: Path, folder: Path, model_type: str | None = None) -> Path:
    """A backbone whose config and tokenizer name classes in a Python file beside them."""
    shutil.copytree(source, folder)
    code = (
        f"import pathlib\npathlib.Path({str(marker)!r}).touch()\n"
        "from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast\n"
        "class Config(BertConfig): pass\n"
        "class Model(BertForSequenceClassification): pass\n"
        "class Tokenizer(PreTrainedTokenizerFast): pass\n"
    )
    (folder / "code.py").write_text(code)
    names = {"AutoConfig": "code.Config", "AutoModelForSequenceClassification": "code.Model"}
    edit_json(folder / "config.json", auto_map=names, **({"model_type": model_type} if model_type else {}))
    edit_json(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": [None, "code.Tokenizer"]})
    return folder


def edit_json(path: Path, **changes: Any) -> None:
    """Sets some entries of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def refused(capsys: pytest.CaptureFixture[str], code: int, marker: Path) -> str:
    """The message of a command that was refused and ran nothing."""
    message = capsys.readouterr().err
    assert not marker.exists()
    assert code == 2, message
    assert re.search("^error: ", message, re.MULTILINE) and "Traceback" not in message  # after warnings, maybe
    return message
