"""The three formats of an export: how each is written, and how its logits are had back from the files."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from common.backbones import public_name
from common.errors import InputError, VerificationError
from datamodules.loaders import Batch
from datamodules.tokenized_data import TokenizedDataModule
from experiments.loaded_run import LoadedRun
from lightning_modules.adapter_import import load_head, native_low_rank_factors
from lightning_modules.backbone_sketch import backbone_sketch, computation_identity, write_sketch
from lightning_modules.native_adapter import NativeAdapter
from lightning_modules.peft_adapter import PEFTAdapter, check_adapted
from lightning_modules.peft_methods import import_peft
from lightning_modules.quantization import restore
from lora.adapter import FixedRank, LowRankFactors
from lora.export import cut_factors, merge, plain_weights, untie, unwrap
from lora.injection import is_inside

Batches = list[Batch]


@dataclass(frozen=True)
class ExportOptions:
    """What a user can choose."""

    dtype: torch.dtype | None = None  # of the merged weights; None keeps float32, as trained
    max_shard_size: str = "5GB"  # largest file of a merged model
    with_factors: bool = False  # put the frozen factors into a native file
    without_head: bool = False  # leave the head out of a native file
    tolerance: float = 1e-5  # largest allowed difference of logits, times the largest logit if above 1
    force: bool = False  # export ranks that are still soft
    budget: int | None = None  # cut the adapter to so many entries of R (LoRA-XS), or parameters (LoRA)


class Export:
    """One format. Made once from a run, whose module it takes apart: the adapted layers give way to the plain ones.

    With `cut` that update is written instead of the run's (`cut_update`). `InputError`: the format holds an adapter,
    and the run has none.
    """

    needs_adapter = True

    def __init__(self, run: LoadedRun, options: ExportOptions, cut: LowRankFactors | None = None) -> None:
        self.run, self.options, self.model = run, options, run.module.model
        self.head: tuple[str, ...] = run.module.head_modules
        adapter = run.module.adapter
        if adapter is None and self.needs_adapter:
            kind = next(name for name, made in FORMATS.items() if made is type(self))
            raise InputError(
                f"--format is {kind}, but the run has no adapter: full fine-tuning changes every weight, so there is "
                "nothing smaller than the whole model to export; allowed: --format merged."
            )
        self.factors: LowRankFactors = {}
        self.native: NativeAdapter | None = None
        self.peft_adapter = adapter if isinstance(adapter, PEFTAdapter) else None
        if self.peft_adapter is not None:  # its update stays in the run's model
            head, self.model = self.head_state(), self.fresh_backbone()
            load_head(self.model, head)
        elif adapter is not None:
            self.factors = adapter.low_rank_factors()
            self.native = NativeAdapter.of(adapter, options.with_factors, **self._about())
        if cut is not None:
            self.factors, self.native = cut, NativeAdapter.of_factors(cut, **self._about())
        unwrap(self.model, self.factors)
        restore(self.model)
        self._merge_head()

    def _merge_head(self) -> None:
        """Where the head was adapted, too: its update goes into the head that is saved, like a trained one."""
        inside = [name for name in self.factors if is_inside(name, self.head)]
        merge(self.model, {name: self.factors.pop(name) for name in inside})
        for name in inside:
            assert self.native is not None
            for letter in "AB":
                del self.native.tensors[f"{name}.{letter}"]

    def _about(self) -> dict[str, object]:
        module = self.run.module
        about = {"backbone": module.backbone_name, "revision": module.revision, "head": list(self.head)}
        return about | computation_identity(self.model) | module.data_about

    def write(self, folder: Path) -> None:
        raise NotImplementedError

    def logits(self, folder: Path, batches: Batches, dtype: torch.dtype = torch.float32) -> list[Tensor]:
        """Logits of what was written, loaded as its users load it; a merged model computes in `dtype`."""
        raise NotImplementedError

    def fresh_backbone(self) -> nn.Module:
        """The pretrained model, loaded again."""
        return self.run.module.load_model()[0]

    def head_state(self) -> dict[str, Tensor]:
        """The head's weights by their names in the model."""
        return {name: weight for name, weight in self.model.state_dict().items() if is_inside(name, self.head)}


class NativeExport(Export):
    """`native.safetensors`: R blocks (or plain factors), head, fingerprints."""

    def write(self, folder: Path) -> None:
        if self.native is None:
            name = self.peft_adapter.name if self.peft_adapter is not None else None
            raise InputError(f"--format is native, and the adapter is {name}; allowed: --format peft or merged.")
        tensors = dict(self.native.tensors)
        tensors["backbone_sketch"] = backbone_sketch(plain_weights(self.model, ()), self.head)
        if not self.options.without_head:
            tensors |= {f"head/{name}": weight for name, weight in self.head_state().items()}
        NativeAdapter(self.native.description, tensors).write(folder)

    def logits(self, folder: Path, batches: Batches) -> list[Tensor]:
        native, model = NativeAdapter.read(folder), self.fresh_backbone()
        merge(model, native_low_rank_factors(native, model))
        load_head(model, native.head or self.head_state())
        return logits(model, batches)


class PeftExport(Export):
    """`adapter_config.json`, `adapter_model.safetensors`: plain LoRA, or the method of PEFT; a backbone's sketch."""

    def write(self, folder: Path) -> None:
        peft = import_peft("--format peft")
        name, revision = public_name(self.run.module.backbone_name, self.run.module.revision)
        self.model.name_or_path = name  # what PEFT notes, rather than a folder of this machine
        about = {
            "task_type": task_type(self.model),
            "base_model_name_or_path": name,
            "revision": revision or getattr(self.model.config, "_commit_hash", None),
            "modules_to_save": list(self.head) or None,
            "inference_mode": True,
        }
        if self.peft_adapter is not None:
            write_sketch(folder, self.model, self.head, name, self.run.module.data_about)
            self.peft_adapter.save(folder, self.model, self.run.module.model, about)
            return
        factors = {name: pair for name, pair in self.factors.items() if len(pair[0])}  # rank 0: no update
        if not factors:
            raise InputError("every layer has rank 0, so there is no adapter to export. Use --format merged.")
        write_sketch(folder, self.model, self.head, name, self.run.module.data_about)
        try:
            wrapped = peft.get_peft_model(self.model, self._config(peft, factors, about))
            check_adapted(self.model, factors)
        except ValueError as error:
            said = str(error).rstrip(".")
            raise InputError(f"PEFT can't hold this adapter: {said}. Use --format merged or native.") from error
        with torch.no_grad():
            for name, (A, B) in factors.items():
                layer = wrapped.get_base_model().get_submodule(name)
                layer.lora_A["default"].weight.copy_(A)
                layer.lora_B["default"].weight.copy_(B)
        wrapped.save_pretrained(folder, save_embedding_layers=False)

    def _config(self, peft: Any, factors: LowRankFactors, about: dict[str, Any]) -> Any:
        # PEFT matches a pattern at the end of a path; ^ and escapes leave it one path to match
        ranks = {f"^{re.escape(name)}": len(A) for name, (A, _) in factors.items()}
        largest = max(ranks.values())
        return peft.LoraConfig(
            r=largest,
            lora_alpha=largest,
            rank_pattern=ranks,
            alpha_pattern=ranks,  # alpha / r = 1: the scale is in B
            target_modules=list(factors),
            fan_in_fan_out=any(isinstance(self.model.get_submodule(layer), Conv1D) for layer in factors),
            lora_dropout=0.0,
            bias="none",
            **about,
        )

    def logits(self, folder: Path, batches: Batches) -> list[Tensor]:
        return logits(import_peft("--format peft").PeftModel.from_pretrained(self.fresh_backbone(), folder), batches)


class MergedExport(Export):
    """What transformers' `save_pretrained` writes: the whole model, the update in its weights, and the tokenizer."""

    needs_adapter = False

    def write(self, folder: Path) -> None:
        adapter = self.peft_adapter
        if untie(self.model, adapter.layer_names if adapter is not None else self.factors):
            self.model.config.tie_word_embeddings = False  # else loading would tie them again
        if adapter is not None:
            self.model = adapter.merged(self.model, self.run.module.model)
        merge(self.model, self.factors)
        if task_type(self.model) == "SEQ_CLS":
            for name, value in head_settings(self.model, self.run.data).items():
                setattr(self.model.config, name, value)
        self._change_parameters(self.options.dtype or torch.float32)
        self.model.save_pretrained(folder, max_shard_size=self.options.max_shard_size)
        self._change_parameters(torch.float32)
        self.run.data.tokenizer.save_pretrained(folder)

    def _change_parameters(self, dtype: torch.dtype) -> None:
        """Alone: buffers, such as the frequencies of rotary positions, are worked out in float32 at each loading."""
        for parameter in self.model.parameters():
            parameter.data = parameter.data.to(dtype)

    def logits(self, folder: Path, batches: Batches, dtype: torch.dtype = torch.float32) -> list[Tensor]:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder)
        text = tokenizer.decode(batches[0]["inputs"]["input_ids"][0], skip_special_tokens=True)
        if tokenizer(text)["input_ids"] != self.run.data.tokenizer(text)["input_ids"]:
            raise VerificationError(
                "the tokenizer that was written gives other tokens than the run's, so the merged model would answer "
                "something else. Nothing was kept. Use --format peft or native, with the backbone's own tokenizer."
            )
        return logits(type(self.model).from_pretrained(folder, dtype=dtype), batches)


FORMATS: dict[str, type[Export]] = {"peft": PeftExport, "merged": MergedExport, "native": NativeExport}


@torch.inference_mode()
def logits(model: nn.Module, batches: Batches) -> list[Tensor]:
    """Logits of each batch in float32, from a transformers model (or one wrapped by PEFT)."""
    model = model.eval()
    return [model(**batch["inputs"]).logits.float() for batch in batches]


def cut_update(run: LoadedRun, budget: int) -> LowRankFactors:
    """The run's update cut to a smaller budget (`lora.export.cut_factors`); its model goes on with it."""
    adapter = run.module.adapter
    if not isinstance(adapter, FixedRank) or adapter.wrap_head:
        raise InputError(
            f"--budget is {budget}, and the adapter is {adapter.name if adapter is not None else None}; allowed: "
            "LoRA and LoRA-XS of this project, without wrap_head. Leave --budget out."
        )
    coefficients, exponent = adapter.layer_areas()
    used = float((coefficients * torch.tensor(list(adapter.discrete_ranks().values())) ** exponent).sum())
    least = float(coefficients.min())  # of rank 1
    if not least <= budget <= used:
        raise InputError(
            f"--budget is {budget:,}; allowed: {least:,.0f} to {used:,.0f}, which the run has used. Give one of these, "
            "or train with a larger budget: an update can only be cut."
        )
    cut = cut_factors(adapter.low_rank_factors(), coefficients, exponent, budget)
    for layer, (A, B) in zip(adapter.adapted_layers, cut.values(), strict=True):
        layer.merge(B @ A)
    return cut


def head_settings(model: nn.Module, data: TokenizedDataModule) -> dict[str, object]:
    """What transformers must be told about a classification head, by the names its configurations have.

    Labels by name; the padding token, by which decoders find the token to classify; the problem, whatever the backbone
    was trained for: a pipeline answers each label's sigmoid in some, and that of a score.
    """
    labels = dict(enumerate(data.class_names))
    named = {"id2label": labels, "label2id": {name: label for label, name in labels.items()}}
    kind = named if labels else {"num_labels": 1}
    problem = "single_label_classification" if labels else "regression"
    return {**kind, "problem_type": problem, "pad_token_id": _padding_token(model, data)}


def _padding_token(model: nn.Module, data: TokenizedDataModule) -> int:
    """The tokenizer's; where positions are counted from the backbone's own (RoBERTa's kind), that one."""
    tables = [module for name, module in model.named_modules() if name.endswith("position_embeddings")]
    counted = [table.padding_idx for table in tables if getattr(table, "padding_idx", None) is not None]
    return counted[0] if counted else data.tokenizer.pad_token_id


def task_type(model: nn.Module) -> str:
    """PEFT's name of what a model class is for."""
    name = type(model).__name__
    return "SEQ_CLS" if name.endswith("ForSequenceClassification") else "CAUSAL_LM"
