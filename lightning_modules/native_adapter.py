"""The native export: one small safetensors file with what was trained, and what tells its backbone apart."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from common.errors import InputError
from common.files import atomic_write
from lightning_modules.factor_cache import cached_factorise
from lora.adapter import Adapter, LowRankFactors
from lora.export import fold
from lora.factors import Factors
from lora.lora_xs import LoRAXS
from lora.sketch import MADE_AGAIN, same_sketch, sketch_factors

FILE_NAME = "native.safetensors"
_VERSION = 2


@dataclass(frozen=True)
class NativeAdapter:
    """What a native file holds."""

    # `method` (lora_xs: blocks of R; low_rank: plain factors, scale included), for lora_xs `rank` (r_max), `scale` and
    # `factors` (the rule); `backbone`, `revision` and `head` (module paths)
    description: dict[str, Any]
    # `LAYER.R` (k, k), or `LAYER.A` (k, in) and `LAYER.B` (out, k), where LAYER is the full module path; `head/NAME`,
    # `fingerprint` of the frozen factors, `backbone_sketch`
    tensors: dict[str, Tensor]

    @classmethod
    def of(cls, adapter: Adapter, with_factors: bool, **about: object) -> "NativeAdapter":
        """What an adapter has trained, at its discrete ranks; `about` is more of the description.

        `with_factors` tells whether to hold the frozen factors of LoRA-XS, cut to the ranks, too.
        """
        if not isinstance(adapter, LoRAXS):
            return cls.of_factors(adapter.low_rank_factors(), **about)
        tensors = {f"{name}.R": block for name, block in adapter.blocks().items()}
        with_factors = with_factors or adapter.gradient_pass is not None  # else nothing could make them again
        tensors |= _named_factors(adapter.frozen_factors() if with_factors else {})
        assert adapter.fingerprint is not None
        tensors["fingerprint"] = adapter.fingerprint
        settings = {"rank": adapter.rank, "scale": adapter.scaling, "factors": adapter.factors}
        return cls({"version": _VERSION, "method": "lora_xs", **settings, **about}, tensors)

    @classmethod
    def of_factors(cls, factors: LowRankFactors, **about: object) -> "NativeAdapter":
        """Plain LoRA factors; `about` is more of the description."""
        return cls({"version": _VERSION, "method": "low_rank", **about}, _named_factors(factors))

    @classmethod
    def read(cls, folder: Path) -> "NativeAdapter":
        """Reads the file in an export folder; `InputError`: it is damaged, or of another version."""
        try:
            with safe_open(folder / FILE_NAME, framework="pt") as file:
                description = dict(json.loads(file.metadata()["rankwise"]))
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise InputError(f"{folder / FILE_NAME} can't be read: {error}. Export the run again.") from error
        if description.get("version") != _VERSION:
            raise InputError(
                f"{folder / FILE_NAME} has format version {description.get('version')}; allowed: {_VERSION}. Use the "
                "version of this project that wrote it."
            )
        is_lora_xs = description.get("method") == "lora_xs"
        needed = {"method", "backbone", "head", *(("rank", "scale", "factors") if is_lora_xs else ())}
        held = {"backbone_sketch", *(("fingerprint",) if is_lora_xs else ())}
        if lacking := sorted((needed - set(description)) | (held - set(tensors))):
            raise InputError(
                f"{folder / FILE_NAME} lacks {', '.join(lacking)}: it is no whole export. Export the run again."
            )
        return cls(description, tensors)

    def write(self, folder: Path) -> None:
        """Writes the file into an export folder, whole or not at all."""
        tensors = {name: tensor.contiguous() for name, tensor in self.tensors.items()}
        content = save(tensors, {"rankwise": json.dumps(self.description)})
        atomic_write(folder / FILE_NAME, lambda file: file.write(content))

    @property
    def is_lora_xs(self) -> bool:
        """Whether it holds blocks of R between factors of the backbone's weights, instead of plain factors."""
        return self.description["method"] == "lora_xs"

    @property
    def head(self) -> dict[str, Tensor]:
        """The head's weights by their names in the model; empty when they were left out."""
        return {name.removeprefix("head/"): t for name, t in self.tensors.items() if name.startswith("head/")}

    @property
    def lacks_head(self) -> bool:
        """Whether the model has a head that was left out; language models have none."""
        return bool(self.description["head"]) and not self.head

    @property
    def blocks(self) -> dict[str, Tensor]:
        """R (k, k) of each layer, for LoRA-XS."""
        return {name.removesuffix(".R"): tensor for name, tensor in self.tensors.items() if name.endswith(".R")}

    @property
    def frozen_factors(self) -> dict[str, Factors]:
        """A (k, in) and B (out, k) of each layer of LoRA-XS, where the file holds them."""
        names = [name for name in self.blocks if f"{name}.A" in self.tensors]
        return {name: (self.tensors[f"{name}.A"], self.tensors[f"{name}.B"]) for name in names}

    @property
    def layer_names(self) -> list[str]:
        """Full module paths of the adapted layers."""
        suffix = ".R" if self.is_lora_xs else ".A"
        return [name.removesuffix(suffix) for name in self.tensors if name.endswith(suffix) and "/" not in name]

    def check_factors(self, fingerprint: Tensor | None) -> None:
        """Raises `InputError` unless the fingerprint is that of the frozen factors R was trained between.

        With those of the gradient, which are in the file, it is that of the weights.
        """
        if fingerprint is None or not same_sketch(fingerprint, self.tensors["fingerprint"], MADE_AGAIN):
            raise InputError(
                "the exported adapter belongs to other frozen factors (their fingerprint differs), made with another "
                f"rank_max or rule. It was trained with rank {self.description['rank']} and factors "
                f"{self.description['factors']}; set them with --model.adapter, or export it again with --with_factors."
            )

    def low_rank_factors(self, weights: dict[str, Tensor]) -> LowRankFactors:
        """The update as plain LoRA (`Adapter.low_rank_factors`), from each layer's weight (out, in), in model order."""
        held = all(f"{name}.A" in self.tensors for name in weights)
        pairs = {name: (self.tensors[f"{name}.A"], self.tensors[f"{name}.B"]) for name in weights} if held else {}
        if not self.is_lora_xs:
            return pairs
        if not held:
            made = cached_factorise(list(weights.values()), self.description["rank"], self.description["factors"])
            self.check_factors(sketch_factors(made))
            pairs = dict(zip(weights, made, strict=True))
        return {name: fold(*pairs[name], self.blocks[name], self.description["scale"]) for name in weights}


def _named_factors(factors: LowRankFactors) -> dict[str, Tensor]:
    return {f"{name}.{letter}": factor for name, pair in factors.items() for letter, factor in zip("AB", pair)}
