"""What a transformer can be made of: every choice in one frozen dataclass."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import reprlib
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from minirag.errors import CheckpointError

Kind = Literal["encoder", "decoder", "encoder-decoder"]

# The least and the most of every number; a file from outside must not make us take all memory.
_RANGES: dict[str, tuple[float, float]] = {
    "vocab_size": (1, 1 << 24),
    "d_model": (1, 1 << 16),
    "n_layers": (1, 1024),
    "n_heads": (1, 1 << 16),
    "d_ff": (1, 1 << 20),
    "max_length": (1, 1 << 20),
    "n_kv_heads": (0, 1 << 16),
    "n_decoder_layers": (0, 1024),
    "rope_theta": (1, 1e12),
    "norm_eps": (0, 1),
    "n_token_types": (0, 1 << 16),
    "embedding_scale": (1e-6, 1e6),
    "dropout": (0, 1),
    "attention_dropout": (0, 1),
}
_MAX_HEAD_DIM = 1024
_MAX_ROTARY = 1 << 27  # numbers in each of the two tables of rotary positions: 512 MB
_IN_WORDS: dict[Any, str] = {  # what a field's type allows, in words
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    int | None: "a whole number or null",
    float | None: "a number or null",
    tuple[int, ...]: "a list of whole numbers",
}


@dataclass(frozen=True)
class TransformerConfig:
    """The shape of a model. Two models with equal configurations hold the same tensors.

    The defaults are those of a modern small decoder; :mod:`minirag.transformer.public` says which
    choices make a BERT, a GPT-2, a Llama or a BART.
    """

    kind: Kind
    vocab_size: int
    d_model: int  # width of the residual stream
    n_layers: int  # blocks in the tower; in the encoder's tower if there are two
    n_heads: int
    d_ff: int  # width inside the feed-forward layer
    max_length: int  # longest sequence, in tokens
    n_kv_heads: int = 0  # grouped-query attention: heads that share keys and values; 0: n_heads
    n_decoder_layers: int = 0  # of an encoder-decoder; 0: as many as the encoder has
    positions: Literal["learned", "rotary"] = "rotary"
    rope_theta: float = 10_000.0  # base of the rotary wavelengths
    norm: Literal["layer", "rms"] = "layer"
    norm_eps: float = 1e-5
    norm_first: bool = True  # pre-norm (GPT, Llama); else post-norm (BERT, BART)
    embedding_norm: bool = False  # a norm after the embeddings (BERT, BART)
    activation: Literal["gelu", "gelu_tanh", "relu", "silu"] = "gelu"
    gated: bool = False  # silu and gated: SwiGLU
    bias: bool = False  # biases in the linear layers
    n_token_types: int = 0  # BERT's segment embeddings
    head: Literal["none", "linear", "masked-lm"] = "linear"  # what turns states into logits
    head_bias: bool = False
    tied: bool = True  # the head's matrix is the token embedding
    embedding_scale: float = 1.0
    dropout: float = 0.0
    attention_dropout: float | None = None  # of the attention's weights; None: as dropout
    pad_id: int | None = None
    bos_id: int | None = None
    eos_ids: tuple[int, ...] = ()  # any of them ends a generation
    decoder_start_id: int | None = None  # first token of an encoder-decoder's answer

    def __post_init__(self) -> None:
        for name, kind in _field_types().items():
            value = getattr(self, name)
            if not _is_of(kind, value):
                raise CheckpointError(
                    f"configuration: {name} is {reprlib.repr(value)}; {_allowed(kind)} is needed."
                )
            least, most = _RANGES.get(name, (-math.inf, math.inf))
            if isinstance(value, int | float) and not least <= value <= most:
                raise CheckpointError(
                    f"configuration: {name} is {reprlib.repr(value)}; "
                    f"{least:,} is the least, {most:,} the most."
                )
        for name in ("pad_id", "decoder_start_id"):  # a model is given these to read
            index = getattr(self, name)
            if index is not None and not 0 <= index < self.vocab_size:
                raise CheckpointError(
                    f"configuration: {name} is {index}; the vocabulary's ids are 0 to "
                    f"{self.vocab_size - 1}."
                )
        if self.d_model % self.n_heads:
            raise CheckpointError(
                f"configuration: d_model = {self.d_model} can't be split evenly "
                f"over n_heads = {self.n_heads}."
            )
        if self.n_heads % self.kv_heads:
            raise CheckpointError(
                f"configuration: n_heads = {self.n_heads} is not a multiple "
                f"of n_kv_heads = {self.kv_heads}."
            )
        if self.positions == "rotary" and self.head_dim % 2:
            raise CheckpointError(
                f"configuration: rotary positions turn pairs of numbers; a head of "
                f"{self.head_dim} has an odd one."
            )
        if self.head_dim > _MAX_HEAD_DIM:
            raise CheckpointError(
                f"configuration: d_model = {self.d_model} over n_heads = {self.n_heads} makes "
                f"heads of {self.head_dim} numbers; {_MAX_HEAD_DIM:,} are the most."
            )
        if self.positions == "rotary" and self.max_length * self.head_dim > _MAX_ROTARY:
            raise CheckpointError(
                f"configuration: rotary positions for max_length = {self.max_length} and heads of "
                f"{self.head_dim} need tables of {self.max_length * self.head_dim:,} numbers; "
                f"{_MAX_ROTARY:,} are the most."
            )

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.d_model // self.n_heads

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values; fewer than ``n_heads`` if queries share them."""
        return self.n_kv_heads or self.n_heads

    @property
    def decoder_layers(self) -> int:
        """Blocks in the decoder's tower of an encoder-decoder."""
        return self.n_decoder_layers or self.n_layers

    def to_json(self) -> str:
        """As text for ``config.json``; ``"minirag"`` in it says that the layout is ours."""
        values = dataclasses.asdict(self)
        if self.attention_dropout is None:  # a later field: files without it stay as they are
            del values["attention_dropout"]
        return json.dumps({"minirag": 1, **values}, indent=2) + "\n"

    @classmethod
    def from_dict(cls, values: dict[str, Any], source: Path) -> TransformerConfig:
        """The configuration in a ``config.json`` of ours, already parsed.

        Raises
        ------
        CheckpointError
            If a field is unknown, missing or can't be meant; ``source`` is named.
        """
        given = {key: value for key, value in values.items() if key != "minirag"}
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(given) - known):
            raise CheckpointError(f"{source}: unknown field {unknown[0]!r} in the configuration.")
        if isinstance(given.get("eos_ids"), list):  # JSON has no tuples
            given["eos_ids"] = tuple(given["eos_ids"])
        try:
            return cls(**given)
        except TypeError as error:
            raise CheckpointError(f"{source}: the configuration is incomplete ({error}).") from None
        except CheckpointError as error:
            raise CheckpointError(f"{source}: {error}") from None


@functools.cache
def _field_types() -> dict[str, Any]:
    return typing.get_type_hints(TransformerConfig)


def _is_of(kind: Any, value: object) -> bool:
    """Whether a value from JSON is of a field's type. True is no whole number here, 1 is a real."""
    if typing.get_origin(kind) is Literal:
        return value in typing.get_args(kind)
    if kind == tuple[int, ...]:
        return isinstance(value, tuple) and all(type(item) is int for item in value)
    kinds = typing.get_args(kind) or (kind,)  # int | None has two
    return type(value) in kinds or (type(value) is int and float in kinds)


def _allowed(kind: Any) -> str:
    """A field's type in words."""
    if typing.get_origin(kind) is Literal:
        return f"one of {', '.join(typing.get_args(kind))}"
    return _IN_WORDS[kind]
