"""Loading a tokenizer, and telling two of them apart."""

import hashlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.backbones import locate_backbone, pretrained_arguments
from common.errors import InputError, reason
from common.terminal import logger

if TYPE_CHECKING:  # transformers takes seconds to import
    from transformers import PreTrainedTokenizerBase as Tokenizer
else:
    Tokenizer = Any

# Settings that a tokenizer keeps nowhere show in its answer: case, accents, blanks, numbers, other scripts.
_PROBE = "The CAT's naïve\tco-op,  12,345.67 ½ ﬁ STRASSE 東京 🙂 don't\n"


def load_tokenizer(backbone: str, revision: str | None = None) -> Tokenizer:
    """`read_tokenizer`, able to pad: one without a pad token pads with its end-of-sequence token.

    `InputError`: see `read_tokenizer`, or there is no token to pad with.
    """
    tokenizer = read_tokenizer(backbone, revision)
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise InputError(
                f"the tokenizer of backbone {backbone!r} has neither a pad nor an end-of-sequence token, so "
                "rows can't be padded. Set one with tokenizer.add_special_tokens and save it with the model."
            )
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def read_tokenizer(backbone: str, revision: str | None = None) -> Tokenizer:
    """The tokenizer of `backbone` (see `common.backbones.locate_backbone`) as it is; revisions are the hub's.

    But for BPE's dropout, which would draw other tokens for a text, and so another answer, at each call. `InputError`:
    the backbone can't be found or reached, holds no tokenizer, or one that draws at random in another way.
    """
    from transformers import AutoTokenizer

    source, arguments = pretrained_arguments(locate_backbone(backbone))
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            source, revision=revision or "main", trust_remote_code=False, **arguments
        )
    except Exception as error:  # tokenizers raises bare Exception for a file it can't read
        raise InputError(
            f"the tokenizer of backbone {backbone!r} can't be loaded: {reason(error)} Allowed: a hub name such as "
            "roberta-large, a folder written by save_pretrained with its tokenizer files, or package:NAME. "
            "Without a connection, set HF_HOME to a cache that holds it and HF_HUB_OFFLINE=1, or give a "
            "folder; `--config quickstart.yaml` needs no hub."
        ) from error
    # transformers builds a tokenizer that knows only special tokens when the folder has no vocabulary.
    if len(tokenizer) <= len(set(tokenizer.all_special_ids)):
        raise InputError(
            f"backbone {backbone!r} holds no vocabulary (tokenizer.json, vocab.txt, …); "
            "save its tokenizer there with tokenizer.save_pretrained."
        )
    merges = getattr(getattr(tokenizer, "backend_tokenizer", None), "model", None)
    if merges is not None and (dropout := getattr(merges, "dropout", None)):
        merges.dropout = None
        logger.info(f"The tokenizer of {backbone} drops merges at random ({dropout:.0%}): not here.")
    if len({tuple(tokenizer.encode(_PROBE, verbose=False)) for _ in range(3)}) > 1:
        raise InputError(
            f"the tokenizer of backbone {backbone!r} draws a text's tokens at random, so no answer could be had again; "
            "allowed: one that doesn't. Take enable_sampling out of sp_model_kwargs in its tokenizer_config.json."
        )
    return tokenizer


def tokenizer_identity(tokenizer: Tokenizer) -> bytes:
    """Everything that decides which tokens a text becomes, as a hash: its settings, files, and answer to a text."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        serialized = _saved_files(tokenizer)
    else:
        # Calls leave their own padding and truncation here: they are not part of the identity.
        backend.no_padding()
        backend.no_truncation()
        serialized = backend.to_str().encode()
    settings = (
        type(tokenizer).__name__,
        tokenizer.model_input_names,
        sorted(tokenizer.special_tokens_map.items(), key=str),
        tokenizer.truncation_side,
        getattr(tokenizer, "split_special_tokens", False),
        tokenizer.encode(_PROBE, verbose=False),
    )
    return hashlib.sha256(f"{settings!r}/".encode() + serialized).digest()


def _saved_files(tokenizer: Tokenizer) -> bytes:
    """What a tokenizer written in Python saves: vocabulary, merges, and settings such as do_lower_case."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            tokenizer.save_pretrained(folder)
            return b"".join(file.read_bytes() for file in sorted(Path(folder).rglob("*")) if file.is_file())
    except OSError:  # nothing can be written: one of its kind, so that no cached tokens are taken for its own
        return os.urandom(16)
