"""What a backbone can take, so that tokens it can't are known before anything is trained."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from common.backbones import locate_backbone, pretrained_arguments
from common.errors import InputError, shown
from datamodules.tokenization import TokenizedSplit
from datamodules.tokenizer import Tokenizer

if TYPE_CHECKING:
    from transformers import PretrainedConfig

# What transformers calls a table of positions that a longer row would read beyond; rotary and relative ones have none.
_OF_POSITIONS = ("position_embeddings", "wpe", "embed_positions", "positions_embed", "pos_encoding")
_POSITION_TABLES = (*_OF_POSITIONS, "char_position_embeddings")


@dataclass(frozen=True)
class ModelLimits:
    """What is not known, or not limited, is None."""

    tokens: int | None = None  # rows of the word embedding: token ids are below it
    positions: int | None = None  # tokens of the longest row; of longer ones the answer may depend on those beside them
    token_types: int | None = None  # rows of the table of token types
    sentence_end: int | None = None  # the end-of-sequence token, where a classification head reads the state above it
    shortest: int = 1  # tokens of the shortest row

    def check(
        self,
        split: TokenizedSplit,
        tokenizer: Tokenizer,
        backbone: str,
        where: Callable[[int], str],
        classified: bool = True,
    ) -> None:
        """Looks at all tokens of a split; `where` names a row in messages.

        `InputError`: a token id or type that the model has no embedding for; a row that is too short; or rows whose
        ends of sequence differ in number, of which a model that reads their last one refuses to make a batch.
        """
        if (short := split.lengths < self.shortest).any():
            row = int(short.int().argmax())
            raise InputError(
                f"{where(row)}: {int(split.lengths[row])} tokens; allowed with {backbone}: {self.shortest} or more, of "
                "which it makes one. Write more, or remove the row."
            )
        tables = (("token id", split.input_ids, self.tokens), ("token type", split.token_type_ids, self.token_types))
        for what, ids, limit in tables:
            if ids is None or limit is None or (largest := int(ids.max())) < limit:
                continue
            place = int(ids.argmax())
            row = int(torch.searchsorted(split.offsets, place, right=True)) - 1
            token = tokenizer.convert_ids_to_tokens(int(split.input_ids[place]))
            raise InputError(
                f"{where(row)}: {what} {largest} ({shown(token)}); allowed with {backbone}: 0 to {limit - 1}, which is "
                "what its embedding has. The tokenizer was made for another model, or has been given tokens that the "
                "model doesn't know: use the model's own tokenizer, or save the model with resize_token_embeddings."
            )
        if not classified or self.sentence_end is None:
            return
        before = nn.functional.pad((split.input_ids == self.sentence_end).cumsum(0), (1, 0))  # (tokens + 1,)
        counts = before[split.offsets].diff()  # (rows,)
        usual = int(counts.mode().values)
        odd = (counts != usual) | (counts == 0)  # (rows,)
        if odd.any():
            row = int(odd.int().argmax())
            name = tokenizer.convert_ids_to_tokens(self.sentence_end)
            raise InputError(
                f"{where(row)}: {int(counts[row])} end-of-sequence tokens ({name!r}); allowed with {backbone}, which "
                f"reads a row at its last one: {max(usual, 1)}, as in the other rows. Take it out of the text, or use "
                "the tokenizer that was made for this model."
            )


@lru_cache(maxsize=4)
def read_limits(backbone: str, revision: str | None = None) -> ModelLimits:
    """The limits of a model that is known by its configuration: its weights aren't loaded."""
    from transformers import AutoConfig, AutoModel

    source, arguments = pretrained_arguments(locate_backbone(backbone))
    try:
        config = AutoConfig.from_pretrained(source, revision=revision or "main", trust_remote_code=False, **arguments)
        with torch.device("meta"):
            model = AutoModel.from_config(config, trust_remote_code=False)
    except Exception:  # what is wrong with a model is said where it is loaded
        return ModelLimits()
    words = None
    with contextlib.suppress(NotImplementedError):  # characters, say
        words = _rows(getattr(model.get_input_embeddings(), "weight", None))  # Perceiver's are no tokens
    types = [_rows(getattr(module, "token_type_embeddings", None)) for module in model.modules()]
    return ModelLimits(
        tokens=words,
        positions=_positions(model, config),
        token_types=min((rows for rows in types if rows is not None), default=None),
        sentence_end=config.eos_token_id if getattr(config, "is_encoder_decoder", False) else None,
        shortest=getattr(config, "downsampling_rate", 1),  # of CANINE
    )


def _positions(model: nn.Module, config: "PretrainedConfig") -> int | None:
    found = []
    for module in model.modules():
        for name in _POSITION_TABLES:
            table = getattr(module, name, None)
            if (rows := _rows(table)) is None:
                continue
            padding = getattr(table, "padding_idx", None)  # RoBERTa counts positions from the one after it
            found.append(rows - getattr(table, "offset", 0 if padding is None else padding + 1))
    text = config.get_text_config()
    known = getattr(text, "max_position_embeddings", None)
    rope = getattr(text, "rope_parameters", None) or {}
    for part in (rope, *(part for part in rope.values() if isinstance(part, dict))):  # of all layers, or by their kind
        kind = part.get("rope_type") or ""
        if kind == "longrope":
            found.append(part["original_max_position_embeddings"])
        elif known and "dynamic" in kind:
            found.append(known)
    if config.model_type == "mpt":  # its bias for distances is made once
        found.append(config.max_seq_len)
    if getattr(config, "attention_type", None) == "block_sparse":  # BigBird: shorter batches have full attention
        found.append((5 + 2 * config.num_random_blocks) * config.block_size)
    return min([*found, *([known] if known else [])]) if found else None


def _rows(table: object) -> int | None:
    weight = getattr(table, "weight", table)
    return len(weight) if isinstance(weight, Tensor) and weight.ndim == 2 else None
