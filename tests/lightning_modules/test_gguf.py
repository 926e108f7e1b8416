"""A GGUF file is the same model as the folder it was made from."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests import tiny

gguf = pytest.importorskip("gguf")

NAMES = {f"self_attn.{letter}_proj": f"attn_{letter}" for letter in "qkv"} | {"self_attn.o_proj": "attn_output"}
NAMES |= {f"mlp.{name}_proj": f"ffn_{name}" for name in ("gate", "up", "down")}
NAMES |= {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
NAMES |= {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def permuted(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of query and key in llama.cpp's order: pairs of the rotation beside each other."""
    return weight.view(heads, 2, -1, weight.shape[1]).transpose(1, 2).reshape(weight.shape)


def write_gguf(folder: str, path: Path) -> None:
    """Writes the tiny Llama of a folder as llama.cpp's converter would, in float32."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    config = model.config
    backend = json.loads((Path(folder) / "tokenizer.json").read_text())["model"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    tokens = sorted(backend["vocab"], key=backend["vocab"].get)
    tokens += [f"<unused{number}>" for number in range(config.vocab_size - len(tokens))]
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL if token.startswith("<") else 1 for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in backend["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    for name, tensor in model.state_dict().items():
        if "q_proj" in name:
            tensor = permuted(tensor, config.num_attention_heads)
        if "k_proj" in name:
            tensor = permuted(tensor, config.num_key_value_heads)
        name = name.replace("model.layers.", "blk.")
        for theirs, ours in NAMES.items():
            name = name.replace(theirs, ours)
        writer.add_tensor(name, tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def backbone(tiny_llama, tmp_path) -> str:
    write_gguf(tiny_llama, tmp_path / "tiny.gguf")
    return str(tmp_path / "tiny.gguf")


def test_a_gguf_file_gives_the_logits_of_the_folder(backbone, tiny_llama, wikitext_folder):
    module, data = tiny.make_language_module(backbone), tiny.make_wikitext(backbone, wikitext_folder)
    tiny.make_trainer().validate(module, datamodule=data, verbose=False)
    rows = torch.randint(0, 320, (2, 30), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = module.model.eval()(rows).logits
        expected = AutoModelForCausalLM.from_pretrained(tiny_llama).eval()(rows).logits
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert {parameter.dtype for parameter in module.model.parameters()} == {torch.float32}
    text = "the cat sees dogs"
    theirs = AutoTokenizer.from_pretrained(tiny_llama)(text, add_special_tokens=False)["input_ids"]
    assert data.tokenizer(text, add_special_tokens=False)["input_ids"] == theirs
