"""Remembers SVD factors on disk, keyed by the weights they came from."""

import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from common.files import cache_directory, write_cache
from common.locks import cache_lock
from lora.factors import FactorRule, Factors, factorise

_VERSION = "2"
_HASH_SIZE = hashlib.sha256().digest_size


def cached_factorise(weights: list[Tensor], rank: int, rule: FactorRule) -> list[Factors]:
    """`lora.factors.factorise` that works each set of weights (out, in) out only once per machine."""
    path = cache_directory("factors") / f"{_key(weights, rank, rule)}.factors"
    if (remembered := _load(path, len(weights))) is not None:
        return remembered
    with cache_lock(path):  # the trials of a sweep ask for the same ones at the same moment
        return _load(path, len(weights)) or _make(path, weights, rank, rule)


def _make(path: Path, weights: list[Tensor], rank: int, rule: FactorRule) -> list[Factors]:
    factors = factorise(weights, rank, rule)
    tensors = {f"{layer}.{name}": factor for layer, pair in enumerate(factors) for name, factor in zip("AB", pair)}
    content = save(tensors)
    write_cache(path, hashlib.sha256(content).digest() + content, "factors are")
    return factors


def _key(weights: list[Tensor], rank: int, rule: FactorRule) -> str:
    digest = hashlib.sha256(f"{_VERSION} {rank} {rule} {torch.__version__}".encode())
    for weight in weights:
        digest.update(str(tuple(weight.shape)).encode())
        digest.update(weight.detach().float().cpu().contiguous().numpy().data)
    return digest.hexdigest()[:32]


def _load(path: Path, layers: int) -> list[Factors] | None:
    """The factors in a file (its hash, then safetensors), or None if it is damaged: it is then made again."""
    try:
        content = path.read_bytes()
        if hashlib.sha256(content[_HASH_SIZE:]).digest() != content[:_HASH_SIZE]:
            return None
        tensors = load(content[_HASH_SIZE:])
    except (OSError, SafetensorError):
        return None
    return [(tensors[f"{layer}.A"], tensors[f"{layer}.B"]) for layer in range(layers)]
