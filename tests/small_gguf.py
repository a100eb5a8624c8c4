"""Writes small GGUF files byte by byte, for the tests: an independent reading of the format."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from minirag.transformer.quants import FORMATS

FORMAT_NUMBERS = {form.name: number for number, form in FORMATS.items()}


def string(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(data)) + data


def value(item: Any) -> bytes:
    """Type and value; floats as float32, whole numbers as uint32."""
    if isinstance(item, bool):
        return struct.pack("<I?", 7, item)
    if isinstance(item, int):
        return struct.pack("<II", 4, item)
    if isinstance(item, float):
        return struct.pack("<If", 6, item)
    if isinstance(item, str):
        return struct.pack("<I", 8) + string(item)
    elements = [value(element) for element in item]
    kind = elements[0][:4]
    return (
        struct.pack("<I", 9)
        + kind
        + struct.pack("<Q", len(item))
        + b"".join(element[4:] for element in elements)
    )


def gguf_bytes(
    metadata: dict[str, Any],
    tensors: Sequence[tuple[str, str, tuple[int, ...], bytes]] = (),
    *,
    version: int = 3,
    alignment: int = 32,
) -> bytes:
    """A whole file; ``tensors`` are (name, format, shape as in NumPy, bytes)."""
    header = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(metadata))
    for key, item in metadata.items():
        header += string(key) + value(item)
    body = b""
    for name, form, shape, data in tensors:
        body += b"\0" * (-len(body) % alignment)
        header += string(name) + struct.pack("<I", len(shape))
        header += struct.pack(f"<{len(shape)}Q", *reversed(shape))
        header += struct.pack("<IQ", FORMAT_NUMBERS[form], len(body))
        body += data
    return header + b"\0" * (-len(header) % alignment) + body


# A Llama so small that a test can hold it: 2 heads of 4, one of keys; 2 layers.
LLAMA = {"d_model": 8, "n_heads": 2, "n_kv_heads": 1, "d_ff": 12, "n_layers": 2}
WORDS = ("<|end|>", "<|turn|>", "Ġ", "a", "b", "ab", "Ġab", "1", "2", "12")
MERGES = ("a b", "Ġ ab", "1 2")
TEMPLATE = "{% for m in messages %}<|turn|>{{ m['role'] }} {{ m['content'] }}{% endfor %}"


def llama_metadata() -> dict[str, Any]:
    return {
        "general.architecture": "llama",
        "llama.block_count": LLAMA["n_layers"],
        "llama.context_length": 64,
        "llama.embedding_length": LLAMA["d_model"],
        "llama.feed_forward_length": LLAMA["d_ff"],
        "llama.attention.head_count": LLAMA["n_heads"],
        "llama.attention.head_count_kv": LLAMA["n_kv_heads"],
        "llama.rope.freq_base": 500.0,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": list(WORDS),
        "tokenizer.ggml.token_type": [3, 3] + [1] * (len(WORDS) - 2),
        "tokenizer.ggml.merges": list(MERGES),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 0,
        "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.chat_template": TEMPLATE,
    }


def llama_arrays(seed: int = 0) -> dict[str, np.ndarray]:
    """Random weights under GGUF's names, in GGUF's order of rows."""
    rng = np.random.default_rng(seed)
    d, kv, ff = LLAMA["d_model"], LLAMA["d_model"] // LLAMA["n_heads"], LLAMA["d_ff"]
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (len(WORDS), d)}
    for layer in range(LLAMA["n_layers"]):
        for name, shape in {
            "attn_norm": (d,),
            "ffn_norm": (d,),
            "attn_q": (d, d),
            "attn_k": (kv, d),
            "attn_v": (kv, d),
            "attn_output": (d, d),
            "ffn_gate": (ff, d),
            "ffn_up": (ff, d),
            "ffn_down": (d, ff),
        }.items():
            shapes[f"blk.{layer}.{name}.weight"] = shape
    shapes["output_norm.weight"] = (d,)
    return {name: rng.normal(size=shape).astype("<f4") for name, shape in shapes.items()}


def llama_gguf(seed: int = 0) -> bytes:
    arrays = llama_arrays(seed)
    return gguf_bytes(
        llama_metadata(),
        [(name, "F32", array.shape, array.tobytes()) for name, array in arrays.items()],
    )
