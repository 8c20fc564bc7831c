"""Write the tiny Llama as a GGUF file, for tests of its conversion back."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

NAMES = {
    "embed_tokens": "token_embd",
    "norm": "output_norm",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
HEADS = {"q_proj": 4, "k_proj": 2}


def gguf_name(name: str) -> str:
    """Return the GGUF name of a tensor of the tiny Llama."""
    layer, part = re.fullmatch(r"model\.(?:layers\.(\d+)\.)?(.+)\.weight", name).groups()
    return (f"blk.{layer}." if layer else "") + NAMES[part] + ".weight"


def permute(name: str, tensor: Any) -> Any:
    """Order the rows of query and key weights as GGUF does: halves of a head interleaved."""
    heads = next((count for part, count in HEADS.items() if part in name), None)
    if heads is None:
        return tensor
    shape = tensor.shape
    halves = tensor.reshape(heads, 2, shape[0] // heads // 2, *shape[1:])
    return halves.swapaxes(1, 2).reshape(shape)


def write_gguf(folder: Path, path: Path, kind: str, leave_out: str | None = None) -> Path:
    """Write the tiny Llama in ``folder`` to ``path``, its matrices stored as ``kind`` (Q4_1, ...).

    The tensor ``leave_out`` is not written.
    """
    import gguf
    from safetensors.numpy import load_file

    config = json.loads((folder / "config.json").read_text("utf-8"))
    vocabulary = json.loads((folder / "tokenizer.json").read_text("utf-8"))["model"]
    tokens = sorted(vocabulary["vocab"], key=vocabulary["vocab"].get)

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if n < 3 else 1 for n in range(len(tokens))])  # control, normal
    writer.add_token_merges([" ".join(pair) for pair in vocabulary["merges"]])
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_pad_token_id(config["pad_token_id"])
    writer.add_chat_template((folder / "chat_template.jinja").read_text("utf-8"))
    for name, weights in load_file(folder / "model.safetensors").items():
        if gguf_name(name) == leave_out:
            continue
        stored = gguf.GGMLQuantizationType[kind if weights.ndim == 2 else "F32"]
        data = gguf.quantize(permute(name, weights), stored)
        writer.add_tensor(gguf_name(name), data, raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
