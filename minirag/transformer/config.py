"""What a transformer can be made of: every choice in one frozen dataclass."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from minirag.errors import CheckpointError

Kind = Literal["encoder", "decoder", "encoder-decoder"]


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
    pad_id: int | None = None
    bos_id: int | None = None
    eos_ids: tuple[int, ...] = ()  # any of them ends a generation
    decoder_start_id: int | None = None  # first token of an encoder-decoder's answer

    def __post_init__(self) -> None:
        for name in ("vocab_size", "d_model", "n_layers", "n_heads", "d_ff", "max_length"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise CheckpointError(
                    f"configuration: {name} is {value!r}, not a whole number from 1 on."
                )
        for name, most in (("n_layers", 1024), ("n_decoder_layers", 1024), ("max_length", 1 << 20)):
            if getattr(self, name) > most:  # a file from outside must not make us take all memory
                raise CheckpointError(
                    f"configuration: {name} is {getattr(self, name)}; {most} is the most."
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
        return json.dumps({"minirag": 1, **dataclasses.asdict(self)}, indent=2) + "\n"

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
        if "eos_ids" in given:
            given["eos_ids"] = tuple(given["eos_ids"])
        try:
            return cls(**given)
        except TypeError as error:
            raise CheckpointError(f"{source}: the configuration is incomplete ({error}).") from None
