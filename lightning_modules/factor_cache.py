"""Remembers SVD factors on disk, keyed by the weights they came from."""

import hashlib

import torch
from safetensors.torch import load, save
from torch import Tensor

from common.files import cache_directory
from common.locks import cached
from lora.factors import FactorRule, Factors, factorise

_VERSION = "2"


def cached_factorise(weights: list[Tensor], rank: int, rule: FactorRule) -> list[Factors]:
    """`lora.factors.factorise` that works each set of weights (out, in) out only once per machine."""

    def made() -> bytes:
        factors = factorise(weights, rank, rule)
        return save(
            {f"{layer}.{name}": factor for layer, pair in enumerate(factors) for name, factor in zip("AB", pair)}
        )

    path = cache_directory("factors") / f"{_key(weights, rank, rule)}.factors"
    tensors = load(cached(path, made, "factors are"))
    return [(tensors[f"{layer}.A"], tensors[f"{layer}.B"]) for layer in range(len(weights))]


def _key(weights: list[Tensor], rank: int, rule: FactorRule) -> str:
    digest = hashlib.sha256(f"{_VERSION} {rank} {rule} {torch.__version__}".encode())
    for weight in weights:
        digest.update(str(tuple(weight.shape)).encode())
        digest.update(weight.detach().float().cpu().contiguous().numpy().data)
    return digest.hexdigest()[:32]
