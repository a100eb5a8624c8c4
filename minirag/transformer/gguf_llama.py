"""A Llama model out of a GGUF file: configuration, tensors and tokenizer in the hub's layout.

llama.cpp has its own names for everything, and its own order of the rows that rotary positions
turn. :func:`convert_llama` writes what the hub would hold, so that one loader reads both.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from minirag.errors import CheckpointError, DiskError
from minirag.files import write_text_atomically
from minirag.text.bpe import build_bpe
from minirag.text.tokenizer import Tokenizer
from minirag.transformer.gguf import GGUFFile

_TOKENS = "tokenizer.ggml.tokens"
_NORMAL, _CONTROL, _USER_DEFINED = 1, 3, 4  # GGUF's types of tokens


class _Metadata:
    """GGUF metadata, read with a sentence for whatever is missing or of another kind."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values

    def _read(self, key: str, what: str, fits: Callable[[Any], bool], default: Any) -> Any:
        value = self.values.get(key, default)
        if value is None:
            raise CheckpointError(f"the GGUF metadata lacks {key!r}.")
        if not fits(value):
            raise CheckpointError(f"the GGUF metadata's {key!r} is not {what}: {str(value)[:50]}.")
        return value

    def number(self, key: str, default: int | None = None) -> int:
        value = self._read(
            key,
            "a whole number from 1 on",
            lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= 1,
            default,
        )
        return int(value)

    def real(self, key: str, default: float | None = None) -> float:
        value = self._read(
            key,
            "a positive number",
            lambda value: isinstance(value, float) and 0 < value < np.inf,
            default,
        )
        # The shortest decimal that gives this float32: 1e-05, not 9.999999747378752e-06.
        return float(str(np.float32(value)))

    def text(self, key: str, default: str | None = None) -> str:
        value = self._read(key, "a text", lambda value: isinstance(value, str), default)
        return str(value)

    def strings(self, key: str) -> list[str]:
        values: list[str] = self._read(
            key,
            "a list of strings",
            lambda values: isinstance(values, list) and all(isinstance(v, str) for v in values),
            None,
        )
        return values

    def token_id(self, role: str) -> int | None:
        """Number of the token with this role, if the file names one."""
        key = f"tokenizer.ggml.{role}_token_id"
        index = self.values.get(key)
        if index is None:
            return None
        if not isinstance(index, int) or not 0 <= index < len(self.strings(_TOKENS)):
            raise CheckpointError(f"the GGUF metadata's {key!r} is not a token's number: {index}.")
        return index


def llama_config_from_gguf(meta: Mapping[str, Any], *, tied: bool = True) -> dict[str, Any]:
    """Write the metadata of a Llama model as the hub's ``config.json`` does.

    Parameters
    ----------
    meta : mapping
        :attr:`GGUFFile.metadata`.
    tied : bool
        Whether the output layer is the embedding: true if the file has no ``output.weight``.

    Raises
    ------
    CheckpointError
        If the model is of another family, needs what plain Llama lacks, or a value is missing.
    """
    values = _Metadata(meta)
    family = values.text("general.architecture", "")
    if family != "llama":
        raise CheckpointError(f"it holds a model of the family {family!r}, not 'llama'.")
    for key in ("llama.expert_count", "llama.rope.scaling.type", "llama.rope.scale_linear"):
        if meta.get(key) not in (None, 0, 1.0, "none"):
            raise CheckpointError(f"it sets {key} to {meta[key]!r}, which plain Llama has not.")
    d_model = values.number("llama.embedding_length")
    n_heads = values.number("llama.attention.head_count")
    if d_model % n_heads:
        raise CheckpointError(f"it gives {n_heads} heads for a width of {d_model}.")
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": values.number("llama.vocab_size", len(values.strings(_TOKENS))),
        "hidden_size": d_model,
        "intermediate_size": values.number("llama.feed_forward_length"),
        "num_hidden_layers": values.number("llama.block_count"),
        "num_attention_heads": n_heads,
        "num_key_value_heads": values.number("llama.attention.head_count_kv", n_heads),
        "head_dim": values.number("llama.rope.dimension_count", d_model // n_heads),
        "max_position_embeddings": values.number("llama.context_length"),
        "rms_norm_eps": values.real("llama.attention.layer_norm_rms_epsilon"),
        "rope_theta": values.real("llama.rope.freq_base", 10000.0),
        "rope_scaling": None,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": tied,
        "bos_token_id": values.token_id("bos"),
        "eos_token_id": values.token_id("eos"),
        "pad_token_id": values.token_id("padding"),
        "torch_dtype": "float32",
    }


_LLAMA_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
# Of a layer's number there is one way to write it, so that no two names mean the same tensor.
_GGUF_NAME = re.compile(r"(blk\.(?P<layer>0|[1-9][0-9]{0,3})\.)?(?P<part>\w+)\.weight")


def _llama_name(path: Path, name: str) -> str:
    """``blk.3.attn_q.weight`` -> ``model.layers.3.self_attn.q_proj.weight``."""
    found = _GGUF_NAME.fullmatch(name)
    if found is None or found["part"] not in _LLAMA_NAMES:
        raise CheckpointError(f"{path} holds a tensor that plain Llama has not: {name[:80]!r}.")
    layer = "" if found["layer"] is None else f"model.layers.{found['layer']}."
    return f"{layer}{_LLAMA_NAMES[found['part']]}.weight"


def _undo_rotary_order(weight: NDArray[np.float32], n_heads: int) -> NDArray[np.float32]:
    """Put the rows of a query or key projection back into the hub's order.

    Rotary positions turn pairs of a head's values. GGUF has the two of a pair side by side
    (0, 1), (2, 3), ...; the hub's files have them half a head apart: (0, D/2), (1, D/2 + 1), ...
    """
    rows, d_model = weight.shape
    pairs = weight.reshape(n_heads, rows // n_heads // 2, 2, d_model)
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(rows, d_model)


def llama_tensors_from_gguf(file: GGUFFile) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield each tensor under the name, and in the row order, that the hub's Llama files use.

    Yields
    ------
    name, weight
        float32, one tensor at a time, in the order of the file.

    Raises
    ------
    CheckpointError
        If the file holds a tensor that plain Llama has not.
    """
    config = llama_config_from_gguf(file.metadata)
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    for name in file.tensors:
        hub_name = _llama_name(file.path, name)
        weight = file.read(name)
        for part, n_heads in heads.items():
            if name.endswith(f".{part}.weight"):
                if weight.ndim != 2 or weight.shape[0] % (2 * n_heads):
                    raise CheckpointError(
                        f"{file.path}: tensor {name!r} has shape {weight.shape}, "
                        f"which does not fit {n_heads} heads."
                    )
                weight = _undo_rotary_order(weight, n_heads)
        yield hub_name, weight


def tokenizer_from_gguf(meta: Mapping[str, Any]) -> Tokenizer:
    """Build the tokenizer (and chat template) that a GGUF file carries in its metadata.

    Raises
    ------
    CheckpointError
        If it is not a byte-level BPE with a known way of cutting words.
    """
    values = _Metadata(meta)
    model = values.text("tokenizer.ggml.model", "")
    if model != "gpt2":
        raise CheckpointError(
            f"its tokenizer is of the kind {model!r}; only 'gpt2' (byte-level BPE) can be read."
        )
    tokens = values.strings(_TOKENS)
    kinds = meta.get("tokenizer.ggml.token_type", [_NORMAL] * len(tokens))
    if not isinstance(kinds, list) or len(kinds) != len(tokens):
        raise CheckpointError("its token types are not as many as its tokens.")

    def of_kind(wanted: int) -> list[str]:
        return [token for token, kind in zip(tokens, kinds, strict=True) if kind == wanted]

    def token(role: str) -> str | None:
        index = values.token_id(role)
        return None if index is None else tokens[index]

    add_bos = meta.get("tokenizer.ggml.add_bos_token") is True
    backend = build_bpe(
        tokens,
        values.strings("tokenizer.ggml.merges"),
        special=of_kind(_CONTROL),
        added=of_kind(_USER_DEFINED),
        split=values.text("tokenizer.ggml.pre"),
        first_token=token("bos") if add_bos else None,
    )
    return Tokenizer(
        backend,
        pad_token=token("padding"),
        bos_token=token("bos"),
        eos_token=token("eos"),
        chat_template=values.text("tokenizer.chat_template", "") or None,
    )


def convert_llama(path: Path, directory: Path, *, progress: bool = False) -> None:
    """Write a GGUF file's model into an empty directory as the hub lays models out, in float32.

    Dequantised 4-bit weights (``d q + m``) are not exact in 16 bits. Kept as float32 the file is
    mapped into memory at once, where dequantising would take a second or more at each start.

    Raises
    ------
    CheckpointError
        If the file is damaged or is not a Llama model.
    DiskError
        If writing fails.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    with GGUFFile(path) as file:
        try:
            config = llama_config_from_gguf(file.metadata, tied="output.weight" not in file.tensors)
            tokenizer = tokenizer_from_gguf(file.metadata)
        except CheckpointError as error:
            raise CheckpointError(f"{path} can't be converted: {error}") from None
        write_text_atomically(directory / "config.json", json.dumps(config, indent=2) + "\n")
        tokenizer.save(directory)
        converted = tqdm(
            llama_tensors_from_gguf(file),
            desc=f"converting {path.name}",
            total=len(file.tensors),
            unit="tensor",
            disable=None if progress else True,  # None: only on a terminal
        )
        tensors = dict(converted)
    weights = directory / "model.safetensors"
    try:
        save_file(tensors, weights, metadata={"format": "pt"})
    except (OSError, SafetensorError) as error:
        raise DiskError(f"could not write {weights}: {error}. Is the disk full?") from error
    # safetensors lets nobody else read the file; a cache may be shared by a class.
    weights.chmod((directory / "config.json").stat().st_mode)
