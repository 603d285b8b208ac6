#!/usr/bin/env python3
"""Make a GGUF file that llama.cpp loads: a llama of two layers, 1.4 million random weights, 286 tokens.

    python -m venv venv && venv/bin/pip install gguf numpy
    venv/bin/python tools/make_llama.py OUT.gguf

Its rows are multiples of 256, so every block format fits. It says nothing sensible; it shows that files load and that
answers stay what they were. tools/run_llama.mjs runs it.
"""

import sys

import numpy as np
from gguf import GGUFWriter, TokenType

WIDTH, INNER, HEADS, LAYERS, CONTEXT = 256, 512, 4, 2, 256
# What a SentencePiece tokenizer cannot do without, each byte, and a few letters.
TOKENS = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)] + [chr(97 + k) for k in range(26)] + ["▁"]
KINDS = [TokenType.UNKNOWN] + [TokenType.CONTROL] * 2 + [TokenType.BYTE] * 256 + [TokenType.NORMAL] * 27
BLOCK = {
    "attn_norm": [WIDTH],
    "attn_q": [WIDTH, WIDTH],
    "attn_k": [WIDTH, WIDTH],
    "attn_v": [WIDTH, WIDTH],
    "attn_output": [WIDTH, WIDTH],
    "ffn_norm": [WIDTH],
    "ffn_gate": [INNER, WIDTH],
    "ffn_up": [INNER, WIDTH],
    "ffn_down": [WIDTH, INNER],
}


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    writer = GGUFWriter(sys.argv[1], "llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(TOKENS)
    writer.add_token_scores([0.0] * len(TOKENS))
    writer.add_token_types(KINDS)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    random = np.random.default_rng(7)
    shapes = {"token_embd": [len(TOKENS), WIDTH]}
    for layer in range(LAYERS):
        shapes |= {f"blk.{layer}.{name}": shape for name, shape in BLOCK.items()}
    shapes |= {"output_norm": [WIDTH], "output": [len(TOKENS), WIDTH]}
    for name, shape in shapes.items():
        values = np.ones(shape) if len(shape) == 1 else random.standard_normal(shape) * 0.05
        writer.add_tensor(f"{name}.weight", values.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
