"""What trained weights rest on, known again by a few numbers that travel with them: the backbone, and the data.

Checkpoints and exports carry them.
"""

import hashlib
import json
from pathlib import Path
from typing import Any
from unicodedata import normalize

import torch
import transformers
from torch import Tensor, nn
from transformers import PreTrainedModel

from common.errors import InputError, listing, shown
from common.files import load_json, write_json
from datamodules.tokenized_data import TokenizedDataModule
from lora.export import plain_weights
from lora.sketch import same_sketch, sketch_parameters

SKETCH_FILE_NAME = "backbone_sketch.json"
CHECKSUMS_NAME = "checksums.json"
_FREE_TO_EDIT = ("README.md", "config.yaml")  # words, and settings that options change as well
# What a configuration says that changes no answer, or that is compared by itself.
_NOT_COMPUTED = (
    "transformers_version",
    "architectures",
    "dtype",
    "torch_dtype",
    "use_cache",
    "pad_token_id",
    "problem_type",
    "id2label",
    "label2id",
    "quantization_config",
    "task_specific_params",
)
_TEXT = "The QUICK brown fox's 12,345.67 jumps —\tover\n\nnaïve Übergrößen, 你好 🙂 @user #tag  http://x.y/z_1 …"
_SAMPLED_TOKENS = 300


def backbone_sketch(parameters: dict[str, Tensor], head: list[str] | tuple[str, ...]) -> Tensor:
    """`sketch_parameters` of the pretrained weights, those of the head (module paths) left out."""
    inside = tuple(f"{path}." for path in head)
    return sketch_parameters({name: weight for name, weight in parameters.items() if not name.startswith(inside)})


def backbone_identity(model: PreTrainedModel, head: tuple[str, ...], frozen: bool) -> dict[str, Any]:
    """`weights`: the sketch of a freshly loaded backbone, None if it trains; and `computation_identity`."""
    return {
        "weights": backbone_sketch(plain_weights(model, ()), head) if frozen else None,
        **computation_identity(model),
    }


def computation_identity(model: nn.Module) -> dict[str, Any]:
    """`configuration`: how a backbone computes, by its config.json; `library`: the version that read it."""
    config: Any = model.config  # transformers' own
    return {"configuration": _computed(config.to_dict()), "library": transformers.__version__}


def check_configuration(ours: dict[str, Any], theirs: dict[str, Any], whose: str) -> None:
    """Compares two `computation_identity`s; what wasn't noted is not compared.

    Another version may have other names, and values for null. `InputError`: the backbone's config.json says something
    else than when `whose` was trained.
    """
    before, now = theirs.get("configuration", {}), ours["configuration"]
    same_library = theirs.get("library") == ours["library"]
    for name in before | now:
        comparable = same_library or (before.get(name) is not None and name in now)
        if comparable and before.get(name) != now.get(name):
            raise InputError(
                f"{whose}'s {name} (in the backbone's config.json) is {shown(before.get(name))}, here it is "
                f"{shown(now.get(name))}; allowed: the same. Use the backbone and revision it was trained with, or "
                "start a new run with --run_name."
            )


def _computed(configuration: dict[str, Any], place: str = "") -> dict[str, Any]:
    """The plain values in a configuration and lists of such, by dotted names."""
    found: dict[str, Any] = {}
    for name, value in configuration.items():
        if name in _NOT_COMPUTED or str(name).startswith("_"):
            continue
        if isinstance(value, dict):
            found |= _computed(value, f"{place}{name}.")
        elif value is None or isinstance(value, bool | int | float | str):
            found[f"{place}{name}"] = value
        elif isinstance(value, list | tuple):  # such as the kind of attention of each layer
            found[f"{place}{name}"] = str(list(value))
    return found


def data_identity(data: TokenizedDataModule) -> dict[str, Any]:
    """What answers rest on beside weights: `classes`, names in label order; `tokenizer`, a hash of what it does.

    The hash is of the vocabulary and of the tokens of a fixed text and of a part of the vocabulary, whole and cut;
    `pairs` is one of the tokens of two texts and of their types.
    """
    tokenizer = data.tokenizer
    vocabulary = sorted(tokenizer.get_vocab().items())
    sampled = [token for token, _ in vocabulary[:: max(1, len(vocabulary) // _SAMPLED_TOKENS)]]
    text = f"{_TEXT} {' '.join(sampled)}"
    whole = tokenizer(text, padding=False, truncation=False, verbose=False)["input_ids"]
    cut = tokenizer(text, padding=False, truncation=True, max_length=16, verbose=False)["input_ids"]
    pair = tokenizer(_TEXT, " ".join(sampled), padding=False, truncation=True, max_length=64, verbose=False)
    types = pair.get("token_type_ids") or []
    pairs = _hash([pair["input_ids"], types if any(types) else None])
    return {"classes": list(data.class_names), "tokenizer": _hash([vocabulary, whole, cut]), "pairs": pairs}


def _hash(content: object) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def check_data(ours: dict[str, Any], theirs: dict[str, Any], whose: str, with_head: bool) -> None:
    """Compares two `data_identity`s; what wasn't noted, as in an adapter of PEFT's own, is not compared.

    Theirs is of the data that the weights were trained on, which `whose` names in messages; classes count only
    `with_head`, whose rows they are. `InputError`: other classes, another order of them, or another tokenizer.
    """
    classes = [normalize("NFC", str(name)) for name in theirs.get("classes", ours["classes"])]
    if with_head and classes != [normalize("NFC", name) for name in ours["classes"]]:
        raise InputError(
            f"{whose} answers with the classes {listing(classes)}, in this order, and the data here have "
            f"{listing(ours['classes'])}; allowed: the same, or every answer would have another name. Use the data it "
            "was trained on, or set --data.label_names to its classes; for other classes train a new head."
        )
    if any(theirs.get(name, ours[name]) != ours[name] for name in ("tokenizer", "pairs") if name in ours):
        raise InputError(
            f"{whose} was trained with another tokenizer: a fixed text becomes other tokens, or the vocabulary "
            "differs. Use the backbone folder or --model.revision it was trained with."
        )


def refuse_other_backbone(ours: Tensor, theirs: Tensor, name: str) -> None:
    """Raises `InputError` unless our sketch is that of the backbone (of this name) an adapter was trained on."""
    if not same_sketch(ours, theirs):
        raise InputError(
            f"the exported adapter was trained on another backbone ({name}): the weights here have a different "
            "fingerprint. Use the very same weights: set --model.backbone and --model.revision, and "
            "--model.quantization and --model.backbone_dtype as it was trained with."
        )


def write_sketch(folder: Path, model: nn.Module, head: tuple[str, ...], name: str, data: dict[str, Any]) -> None:
    """Writes the sketch beside a PEFT adapter, whose own files hold the backbone's name only; PEFT leaves it alone.

    The model is the backbone of this name, not adapted; `data` is the `data_identity` of what it was trained on.
    """
    sketch = backbone_sketch(plain_weights(model, ()), head)
    about = {"backbone": name, "head": list(head), "sketch": sketch.tolist(), **computation_identity(model), **data}
    write_json(folder / SKETCH_FILE_NAME, about)


def check_sketch(folder: Path, model: nn.Module) -> dict[str, Any]:
    """Compares a freshly loaded backbone with the sketch in a folder; one without a sketch, as others write, passes.

    Returns what the file says beside the sketch, such as `data_identity`. `InputError`: another backbone, or a damaged
    sketch.
    """
    path = folder / SKETCH_FILE_NAME
    if not path.is_file():
        return {}
    try:
        about = load_json(path)
        theirs = torch.tensor(about["sketch"], dtype=torch.float32)
        head, name = tuple(map(str, about["head"])), str(about["backbone"])
    except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{path} can't be read: {error}. Export the run again, or delete this file to use the adapter unchecked."
        ) from error
    refuse_other_backbone(backbone_sketch(plain_weights(model, ()), head), theirs, name)
    check_configuration(computation_identity(model), about, f"the adapter in {folder}")
    return dict(about)


def write_checksums(folder: Path) -> None:
    """Notes the SHA-256 of every file that an export's answers come from, by its path in the folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in _FREE_TO_EDIT)
    write_json(folder / CHECKSUMS_NAME, {path.relative_to(folder).as_posix(): _sha256(path) for path in files})


def check_files(folder: Path) -> None:
    """Compares an export's files with its checksums; a folder without any, as others write, passes.

    `InputError`: a file was changed or lost, or the list of checksums is damaged.
    """
    path = folder / CHECKSUMS_NAME
    if not path.is_file():
        return
    try:
        noted = dict(load_json(path))
        expected = {name: noted[name] for name in noted if name not in _FREE_TO_EDIT}  # earlier versions noted them
        odd = sorted(name for name, checksum in expected.items() if _sha256(folder / name) != checksum)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"{folder} isn't whole as it was exported: {error}. Copy or export it again, or delete {CHECKSUMS_NAME} to "
            "use the files unchecked."
        ) from error
    if odd:
        raise InputError(
            f"{folder} isn't as it was exported: {', '.join(odd[:5])} was changed or damaged since. Copy or export it "
            f"again. If you changed it on purpose, delete {CHECKSUMS_NAME}; settings can be given as options instead."
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
