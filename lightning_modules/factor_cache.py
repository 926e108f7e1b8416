"""Remembers SVD factors on disk, keyed by the weights they came from."""

import hashlib

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from common.files import cache_directory, write_whole
from lora.factors import FactorRule, Factors, factorise

_VERSION = "1"


def cached_factorise(weights: list[Tensor], rank: int, rule: FactorRule) -> list[Factors]:
    """`lora.factors.factorise` that works each set of weights (out, in) out only once per machine."""
    path = cache_directory("factors") / f"{_key(weights, rank, rule)}.safetensors"
    remembered = _load(path, len(weights)) if path.exists() else None
    if remembered is not None:
        return remembered
    factors = factorise(weights, rank, rule)
    tensors = {f"{layer}.{name}": factor for layer, pair in enumerate(factors) for name, factor in zip("AB", pair)}
    write_whole(path, lambda file: file.write(save(tensors)))
    return factors


def _key(weights: list[Tensor], rank: int, rule: FactorRule) -> str:
    digest = hashlib.sha256(f"{_VERSION} {rank} {rule} {torch.__version__}".encode())
    for weight in weights:
        digest.update(str(tuple(weight.shape)).encode())
        digest.update(weight.detach().float().cpu().contiguous().numpy().data)
    return digest.hexdigest()[:32]


def _load(path, layers: int) -> list[Factors] | None:
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError):
        return None  # a damaged cache file is made again
    if len(tensors) != 2 * layers:
        return None
    return [(tensors[f"{layer}.A"], tensors[f"{layer}.B"]) for layer in range(layers)]
