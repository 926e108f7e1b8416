"""How the frozen backbone is held in memory: float32, bfloat16, or quantised by bitsandbytes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from common.errors import InputError
from lora.injection import acting_layers, is_inside, replace_module
from lora.products.stored_linear import Storage, StoredLinear, quantizer

BackboneDtype = Literal["float32", "bfloat16"]
Quantization = Literal["int8", "nf4"]


@dataclass
class BackboneStorage:
    """The types of the frozen weights: linear layers in `quantization` or else `dtype`, embeddings in `dtype`.

    A backbone is rounded when it is loaded and packed when it is adapted. So factors, fingerprints and exports see in
    float32 the very weights that training computes with. Norms, biases, the head and what an adapter trains stay in
    float32, and so do weights that the model reads without calling their layer.
    """

    dtype: BackboneDtype = "float32"  # of weights that aren't quantised
    # of linear layers but the output embeddings; int8 and nf4 need bitsandbytes
    quantization: Quantization | None = None
    # how each linear layer of the model is held, by full module path; known once it is rounded
    layers: dict[str, Storage] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.quantization is None:
            return
        try:
            quantizer()
        except ImportError as error:
            raise InputError(
                f"model.quantization is {self.quantization!r}, which needs bitsandbytes: {error}. Run `pip install -e "
                "'.[quantization]'`, or use --model.backbone_dtype bfloat16, which needs no package."
            ) from error

    @property
    def is_plain(self) -> bool:
        """Whether every weight is float32."""
        return self.dtype == "float32" and self.quantization is None

    @torch.no_grad()
    def round(self, model: PreTrainedModel, head: Sequence[str]) -> None:
        """Rounds the backbone's weights to those that its storage can hold; they stay float32.

        The model is freshly loaded, in float32; its head stays as it is.
        """
        if self.is_plain:
            return
        self.layers = self.choose(model, head)
        for name, storage in self.layers.items():
            replace_module(model, name, StoredLinear(model.get_submodule(name), storage).restored())
        if self.dtype == "bfloat16":
            for embedding in embeddings(model, head):
                embedding.weight.copy_(embedding.weight.bfloat16())

    def choose(self, model: PreTrainedModel, head: Sequence[str]) -> dict[str, Storage]:
        """How each linear layer of the backbone is to be held; those that aren't called as layers are left out."""
        outputs = model.get_output_embeddings()
        linears = {
            name: layer
            for name, layer in model.named_modules()
            if type(layer) in (nn.Linear, Conv1D) and not is_inside(name, head)
        }
        acting = acting_layers(model, linears)
        return {
            name: self.dtype if self.quantization is None or layer is outputs else self.quantization
            for name, layer in linears.items()
            if name in acting
        }

    @torch.no_grad()
    def pack(self, model: PreTrainedModel, head: Sequence[str], adapted: Sequence[str]) -> None:
        """Puts the frozen weights of a rounded model into the types they are held in.

        Everything that doesn't train is frozen; each `adapted` layer (full paths) has the frozen one as its `base`.
        """
        if self.dtype == "bfloat16":
            for embedding in embeddings(model, head):
                embedding.weight.data = embedding.weight.data.bfloat16()  # a tied output layer's, too
                embedding.register_forward_hook(_to_float32)
        for name, storage in self.layers.items():
            place = f"{name}.base" if name in adapted else name
            replace_module(model, place, StoredLinear(model.get_submodule(place), storage))


def embeddings(model: nn.Module, head: Sequence[str]) -> list[nn.Embedding]:
    return [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding) and not is_inside(name, head)
    ]


def _to_float32(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
    return output.float()


def restore(model: nn.Module) -> None:
    """Makes a packed model plain again, in float32, without its adapter."""
    for name, module in list(model.named_modules()):
        if isinstance(module, StoredLinear):
            replace_module(model, name, module.restored())
        elif isinstance(module, nn.Embedding):
            module.weight.data = module.weight.data.float()


def enable_checkpointing(model: PreTrainedModel, name: str) -> None:
    """Lets each block compute its activations again in the backward pass, instead of keeping them.

    `InputError`: transformers can't do that for this architecture.
    """
    if not model.supports_gradient_checkpointing:
        raise InputError(
            f"model.gradient_checkpointing is true, but transformers has none for {type(model).__name__} ({name}); "
            "allowed: false. Save memory with --trainer.accumulate_grad_batches or a smaller --data.max_length."
        )
    # transformers has renamed it, and warns of the old name
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})
    model.disable_input_require_grads()  # for the reentrant kind alone: gradients that nobody needs
