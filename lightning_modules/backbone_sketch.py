"""The backbone an adapter was trained on, known again by a few numbers that travel with the adapter."""

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from common.errors import InputError
from common.files import write_json
from lora.export import plain_parameters
from lora.sketch import same_sketch, sketch_parameters

SKETCH_FILE_NAME = "backbone_sketch.json"


def backbone_sketch(parameters: dict[str, Tensor], head: list[str] | tuple[str, ...]) -> Tensor:
    """`sketch_parameters` of the pretrained parameters, those of the head (module paths) left out."""
    inside = tuple(f"{path}." for path in head)
    return sketch_parameters({name: weight for name, weight in parameters.items() if not name.startswith(inside)})


def refuse_other_backbone(ours: Tensor, theirs: Tensor, name: str) -> None:
    """Raises `InputError` unless our sketch is that of the backbone (of this name) an adapter was trained on."""
    if not same_sketch(ours, theirs):
        raise InputError(
            f"the exported adapter was trained on another backbone ({name}): the weights here have a different "
            "fingerprint. Use the very same weights: set --model.backbone and --model.revision."
        )


def write_sketch(folder: Path, model: nn.Module, head: tuple[str, ...], name: str) -> None:
    """Writes the sketch beside a PEFT adapter, whose own files hold the backbone's name only; PEFT leaves it alone.

    Args:
        folder: of the adapter.
        model: the backbone, not adapted.
        head: module paths of what isn't pretrained.
        name: the backbone's.
    """
    sketch = backbone_sketch(plain_parameters(model, ()), head)
    write_json(folder / SKETCH_FILE_NAME, {"backbone": name, "head": list(head), "sketch": sketch.tolist()})


def check_sketch(folder: Path, model: nn.Module) -> None:
    """Compares a freshly loaded backbone with the sketch in a folder; one without a sketch, as others write, passes.

    Raises:
        InputError: it is another backbone, or the sketch is damaged.
    """
    path = folder / SKETCH_FILE_NAME
    if not path.is_file():
        return
    try:
        about = json.loads(path.read_text())
        theirs = torch.tensor(about["sketch"], dtype=torch.float32)
        head, name = tuple(map(str, about["head"])), str(about["backbone"])
    except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{path} can't be read: {error}. Export the run again, or delete this file to use the adapter unchecked."
        ) from error
    refuse_other_backbone(backbone_sketch(plain_parameters(model, ()), head), theirs, name)
