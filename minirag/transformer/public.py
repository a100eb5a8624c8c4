"""Public checkpoints in our blocks: which choices make a BERT, a GPT-2, a Llama, a BART.

A family is a configuration and a table of names: ours on the left, theirs on the right. This is
the only file that knows a family's name; the blocks know choices alone.
"""

from __future__ import annotations

import re
import reprlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minirag.errors import CheckpointError
from minirag.transformer.config import TransformerConfig

ACTIVATION_NAMES = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
}

_MOST = 1 << 62  # of a whole number: more can't be meant, and 10**400 has no square root


class Values:
    """A family's ``config.json``, read with sentences for what is missing or not supported."""

    def __init__(self, values: dict[str, Any], source: Path) -> None:
        self.values, self.source = values, source

    def _wrong(self, name: str, needed: str) -> CheckpointError:
        value = reprlib.repr(self.values.get(name))
        return CheckpointError(
            f"{self.source}: config.json says {name} = {value}; {needed} is needed."
        )

    def number(self, name: str, default: int | None = None, least: int = 1) -> int:
        """A whole number that must be there, unless the family has a default."""
        value = self.values.get(name)
        value = default if value is None else value
        if type(value) is not int or not least <= value <= _MOST:
            raise self._wrong(name, f"a whole number from {least} on")
        return value

    def real(self, name: str, default: float) -> float:
        """A number, or the family's default."""
        value = self.values.get(name, default)
        if type(value) not in (int, float) or not abs(value) <= sys.float_info.max:
            raise self._wrong(name, "a number")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        """True or false, or the family's default."""
        value = self.values.get(name, default)
        if not isinstance(value, bool):
            raise self._wrong(name, "true or false")
        return value

    def part(self, name: str) -> Values:
        """An object inside the file; an empty one if it is absent or null."""
        value = self.values.get(name)
        if value is not None and not isinstance(value, dict):
            raise self._wrong(name, "an object")
        return Values(value or {}, self.source)

    def token(self, name: str) -> int | None:
        """A token's id, if one is given; some files write -1 for none."""
        return None if self.values.get(name) in (None, -1) else self.number(name, least=0)

    def ends(self) -> tuple[int, ...]:
        """The ids that end a text: one, several, or none."""
        name = "eos_token_id"
        value = self.values.get(name)
        ids = value if isinstance(value, list) else [] if value is None else [value]
        if any(type(index) is not int for index in ids):
            raise self._wrong(name, "a token's number, or a list of them,")
        return tuple(ids)

    def activation(self, name: str, default: str) -> Any:
        """The non-linearity under our name."""
        value = self.values.get(name, default)
        if not isinstance(value, str) or value not in ACTIVATION_NAMES:
            raise CheckpointError(
                f"{self.source}: the activation {reprlib.repr(value)} is not supported; "
                f"these are: {', '.join(ACTIVATION_NAMES)}."
            )
        return ACTIVATION_NAMES[value]

    def must_be(self, name: str, default: object, *allowed: object) -> None:
        """Refuse an option that would change the result and that the blocks don't have."""
        value = self.values.get(name, default)
        if value not in allowed:
            raise CheckpointError(
                f"{self.source}: config.json says {name} = {reprlib.repr(value)}, "
                f"which is not supported (only {' or '.join(map(repr, allowed))})."
            )


def _tied(v: Values, names: set[str], head: str, default: bool) -> bool:
    """Whether the head's matrix is the token embedding: said so, or there is no other."""
    return v.flag("tie_word_embeddings", default) or head not in names


def _bert_config(v: Values, names: set[str]) -> TransformerConfig:
    v.must_be("position_embedding_type", "absolute", "absolute")
    v.must_be("is_decoder", False, False)
    has_head = any(name.startswith("cls.predictions.") for name in names)
    return TransformerConfig(
        kind="encoder",
        vocab_size=v.number("vocab_size"),
        d_model=v.number("hidden_size"),
        n_layers=v.number("num_hidden_layers"),
        n_heads=v.number("num_attention_heads"),
        d_ff=v.number("intermediate_size"),
        max_length=v.number("max_position_embeddings"),
        positions="learned",
        norm_eps=v.real("layer_norm_eps", 1e-12),
        norm_first=False,
        embedding_norm=True,
        activation=v.activation("hidden_act", "gelu"),
        bias=True,
        n_token_types=v.number("type_vocab_size", least=0),
        head="masked-lm" if has_head else "none",
        head_bias=has_head,
        tied=_tied(v, names, "cls.predictions.decoder.weight", True),
        dropout=v.real("hidden_dropout_prob", 0.1),
        attention_dropout=v.real("attention_probs_dropout_prob", 0.1),
        pad_id=v.token("pad_token_id"),
    )


def _gpt2_config(v: Values, names: set[str]) -> TransformerConfig:
    v.must_be("scale_attn_by_inverse_layer_idx", False, False)
    v.must_be("scale_attn_weights", True, True)
    v.must_be("add_cross_attention", False, False)
    return TransformerConfig(
        kind="decoder",
        vocab_size=v.number("vocab_size"),
        d_model=v.number("n_embd"),
        n_layers=v.number("n_layer"),
        n_heads=v.number("n_head"),
        d_ff=v.number("n_inner", 4 * v.number("n_embd")),
        max_length=v.number("n_positions"),
        positions="learned",
        norm_eps=v.real("layer_norm_epsilon", 1e-5),
        activation=v.activation("activation_function", "gelu_new"),
        bias=True,
        tied=_tied(v, names, "lm_head.weight", True),
        dropout=v.real("resid_pdrop", 0.1),
        attention_dropout=v.real("attn_pdrop", 0.1),
        pad_id=v.token("pad_token_id"),
        bos_id=v.token("bos_token_id"),
        eos_ids=v.ends(),
    )


def _llama_config(v: Values, names: set[str]) -> TransformerConfig:
    rope = v.part("rope_parameters" if v.values.get("rope_parameters") else "rope_scaling")
    rope.must_be("rope_type", rope.values.get("type", "default"), "default")
    v.must_be("mlp_bias", False, False)
    v.must_be("attention_bias", False, False)
    v.must_be("pretraining_tp", 1, 1)
    d_model, n_heads = v.number("hidden_size"), v.number("num_attention_heads")
    v.must_be("head_dim", None, None, d_model // n_heads)
    return TransformerConfig(
        kind="decoder",
        vocab_size=v.number("vocab_size"),
        d_model=d_model,
        n_layers=v.number("num_hidden_layers"),
        n_heads=n_heads,
        n_kv_heads=v.number("num_key_value_heads", n_heads),
        d_ff=v.number("intermediate_size"),
        max_length=v.number("max_position_embeddings"),
        rope_theta=rope.real("rope_theta", v.real("rope_theta", 10_000.0)),
        norm="rms",
        norm_eps=v.real("rms_norm_eps", 1e-6),
        activation=v.activation("hidden_act", "silu"),
        gated=True,
        tied=_tied(v, names, "lm_head.weight", False),
        attention_dropout=v.real("attention_dropout", 0.0),
        pad_id=v.token("pad_token_id"),
        bos_id=v.token("bos_token_id"),
        eos_ids=v.ends(),
    )


def _bart_config(v: Values, names: set[str]) -> TransformerConfig:
    width = {v.number("encoder_attention_heads"), v.number("decoder_attention_heads")}
    inner = {v.number("encoder_ffn_dim"), v.number("decoder_ffn_dim")}
    if len(width) > 1 or len(inner) > 1:
        raise CheckpointError(
            f"{v.source}: encoder and decoder differ in heads or feed-forward width; "
            "that is not supported."
        )
    d_model = v.number("d_model")
    return TransformerConfig(
        kind="encoder-decoder",
        vocab_size=v.number("vocab_size"),
        d_model=d_model,
        n_layers=v.number("encoder_layers"),
        n_decoder_layers=v.number("decoder_layers"),
        n_heads=width.pop(),
        d_ff=inner.pop(),
        max_length=v.number("max_position_embeddings"),
        positions="learned",
        norm_first=False,
        embedding_norm=True,
        activation=v.activation("activation_function", "gelu"),
        bias=True,
        head_bias="final_logits_bias" in names,
        tied=_tied(v, names, "lm_head.weight", True),
        embedding_scale=d_model**0.5 if v.flag("scale_embedding", False) else 1.0,
        dropout=v.real("dropout", 0.1),
        attention_dropout=v.real("attention_dropout", 0.0),
        pad_id=v.token("pad_token_id"),
        bos_id=v.token("bos_token_id"),
        eos_ids=v.ends(),
        decoder_start_id=v.token("decoder_start_token_id"),
    )


def _as_is(tensor: Tensor) -> Tensor:
    return tensor


def _transposed(tensor: Tensor) -> Tensor:
    return tensor.t()  # GPT-2 keeps its matrices as (in, out); linear layers as (out, in)


def _third(i: int) -> Callable[[Tensor], Tensor]:
    """One of query, key, value, which GPT-2 keeps side by side: (D, 3 D) -> (D, D), or (3 D,)."""
    return lambda tensor: (tensor.t() if tensor.dim() == 2 else tensor).chunk(3, dim=0)[i]


def _first_row(tensor: Tensor) -> Tensor:
    return tensor[0]


def _without_offset(tensor: Tensor) -> Tensor:
    return tensor[2:]  # BART's table of positions begins with two rows that no token uses


Rule = tuple[str, Callable[[Tensor], Tensor]]  # their name, and what makes ours of it


def _linear(ours: str, theirs: str) -> dict[str, Rule]:
    return {f"{ours}.{part}": (f"{theirs}.{part}", _as_is) for part in ("weight", "bias")}


_BERT_LAYER = "encoder.layer.{i}."
_BERT: dict[str, Rule] = {
    "tower.embeddings.token.weight": ("embeddings.word_embeddings.weight", _as_is),
    "tower.embeddings.position.weight": ("embeddings.position_embeddings.weight", _as_is),
    "tower.embeddings.token_type.weight": ("embeddings.token_type_embeddings.weight", _as_is),
    **_linear("tower.embeddings.norm", "embeddings.LayerNorm"),
    **_linear("tower.blocks.{i}.attention.query", _BERT_LAYER + "attention.self.query"),
    **_linear("tower.blocks.{i}.attention.key", _BERT_LAYER + "attention.self.key"),
    **_linear("tower.blocks.{i}.attention.value", _BERT_LAYER + "attention.self.value"),
    **_linear("tower.blocks.{i}.attention.output", _BERT_LAYER + "attention.output.dense"),
    **_linear("tower.blocks.{i}.attention_norm", _BERT_LAYER + "attention.output.LayerNorm"),
    **_linear("tower.blocks.{i}.feed_forward.up", _BERT_LAYER + "intermediate.dense"),
    **_linear("tower.blocks.{i}.feed_forward.down", _BERT_LAYER + "output.dense"),
    **_linear("tower.blocks.{i}.feed_forward_norm", _BERT_LAYER + "output.LayerNorm"),
    **_linear("head.transform", "cls.predictions.transform.dense"),
    **_linear("head.norm", "cls.predictions.transform.LayerNorm"),
    "head.matrix.weight": ("cls.predictions.decoder.weight", _as_is),
    "head.bias": ("cls.predictions.decoder.bias", _as_is),
}

_GPT2: dict[str, Rule] = {
    "tower.embeddings.token.weight": ("wte.weight", _as_is),
    "tower.embeddings.position.weight": ("wpe.weight", _as_is),
    **{
        f"tower.blocks.{{i}}.attention.{ours}.{part}": (f"h.{{i}}.attn.c_attn.{part}", _third(n))
        for n, ours in enumerate(("query", "key", "value"))
        for part in ("weight", "bias")
    },
    **{
        f"tower.blocks.{{i}}.{ours}.{part}": (
            f"h.{{i}}.{theirs}.{part}",
            _transposed if part == "weight" else _as_is,
        )
        for ours, theirs in (
            ("attention.output", "attn.c_proj"),
            ("feed_forward.up", "mlp.c_fc"),
            ("feed_forward.down", "mlp.c_proj"),
        )
        for part in ("weight", "bias")
    },
    **_linear("tower.blocks.{i}.attention_norm", "h.{i}.ln_1"),
    **_linear("tower.blocks.{i}.feed_forward_norm", "h.{i}.ln_2"),
    **_linear("tower.final_norm", "ln_f"),
    "head.matrix.weight": ("lm_head.weight", _as_is),
}

_LLAMA: dict[str, Rule] = {
    ours: (theirs, _as_is)
    for ours, theirs in {
        "tower.embeddings.token.weight": "embed_tokens.weight",
        "tower.blocks.{i}.attention.query.weight": "layers.{i}.self_attn.q_proj.weight",
        "tower.blocks.{i}.attention.key.weight": "layers.{i}.self_attn.k_proj.weight",
        "tower.blocks.{i}.attention.value.weight": "layers.{i}.self_attn.v_proj.weight",
        "tower.blocks.{i}.attention.output.weight": "layers.{i}.self_attn.o_proj.weight",
        "tower.blocks.{i}.attention_norm.weight": "layers.{i}.input_layernorm.weight",
        "tower.blocks.{i}.feed_forward.gate.weight": "layers.{i}.mlp.gate_proj.weight",
        "tower.blocks.{i}.feed_forward.up.weight": "layers.{i}.mlp.up_proj.weight",
        "tower.blocks.{i}.feed_forward.down.weight": "layers.{i}.mlp.down_proj.weight",
        "tower.blocks.{i}.feed_forward_norm.weight": "layers.{i}.post_attention_layernorm.weight",
        "tower.final_norm.weight": "norm.weight",
        "head.matrix.weight": "lm_head.weight",
    }.items()
}


def _bart_tower(tower: str) -> dict[str, Rule]:
    attentions = [("attention", "self_attn")]
    if tower == "decoder":
        attentions.append(("cross", "encoder_attn"))
    rules: dict[str, Rule] = {
        f"{tower}.embeddings.position.weight": (
            f"{tower}.embed_positions.weight",
            _without_offset,
        ),
        **_linear(f"{tower}.embeddings.norm", f"{tower}.layernorm_embedding"),
        **_linear(f"{tower}.blocks.{{i}}.feed_forward.up", f"{tower}.layers.{{i}}.fc1"),
        **_linear(f"{tower}.blocks.{{i}}.feed_forward.down", f"{tower}.layers.{{i}}.fc2"),
        **_linear(
            f"{tower}.blocks.{{i}}.feed_forward_norm", f"{tower}.layers.{{i}}.final_layer_norm"
        ),
    }
    for ours, theirs in attentions:
        for our_part, their_part in (
            ("query", "q_proj"),
            ("key", "k_proj"),
            ("value", "v_proj"),
            ("output", "out_proj"),
        ):
            rules |= _linear(
                f"{tower}.blocks.{{i}}.{ours}.{our_part}",
                f"{tower}.layers.{{i}}.{theirs}.{their_part}",
            )
        rules |= _linear(
            f"{tower}.blocks.{{i}}.{ours}_norm", f"{tower}.layers.{{i}}.{theirs}_layer_norm"
        )
    return rules


_BART: dict[str, Rule] = {
    "encoder.embeddings.token.weight": ("shared.weight", _as_is),
    **_bart_tower("encoder"),
    **_bart_tower("decoder"),
    "head.matrix.weight": ("lm_head.weight", _as_is),
    "head.bias": ("final_logits_bias", _first_row),
}


@dataclass(frozen=True)
class Family:
    """How one family's files become ours."""

    configure: Callable[[Values, set[str]], TransformerConfig]
    rules: dict[str, Rule]
    prefix: str  # that a checkpoint with a head puts before the body's names
    unneeded: str  # tensors without a part in the result: copies, masks, an unused pooler
    # Where the name on the left is absent, the tensor goes by the one on the right.
    stand_ins: Mapping[str, str] = field(default_factory=dict)
    # Tied, the left is the right; untied, it may have been trained apart, which ours can't be.
    copies: Mapping[str, str] = field(default_factory=dict)


FAMILIES = {
    "bert": Family(
        _bert_config,
        _BERT,
        prefix="bert.",
        unneeded=r"pooler\.dense\.(weight|bias)|embeddings\.position_ids"
        r"|cls\.seq_relationship\.(weight|bias)|cls\.predictions\.bias",
        # Tied, the two are one tensor, and most files hold it under the shorter name alone.
        stand_ins={"cls.predictions.decoder.bias": "cls.predictions.bias"},
    ),
    "gpt2": Family(
        _gpt2_config, _GPT2, prefix="transformer.", unneeded=r"h\.\d+\.attn\.(bias|masked_bias)"
    ),
    "llama": Family(
        _llama_config,
        _LLAMA,
        prefix="model.",
        unneeded=r"layers\.\d+\.self_attn\.rotary_emb\.inv_freq",
    ),
    "bart": Family(
        _bart_config,
        _BART,
        prefix="model.",
        unneeded=r"(encoder|decoder)\.embed_tokens\.weight",
        copies={
            "encoder.embed_tokens.weight": "shared.weight",
            "decoder.embed_tokens.weight": "shared.weight",
        },
    ),
}


def to_ours(
    values: dict[str, Any], tensors: dict[str, Tensor], source: Path
) -> tuple[TransformerConfig, dict[str, Tensor]]:
    """Our configuration and tensors of a public checkpoint.

    Parameters
    ----------
    values : dict
        Its ``config.json``.
    tensors : dict
        Its tensors under its own names.

    Raises
    ------
    CheckpointError
        If the family is unknown, an option is not supported, or a tensor is missing or left over.
    """
    family = FAMILIES.get(str(values.get("model_type")))
    if family is None:
        raise CheckpointError(
            f"{source}: config.json says model_type = {values.get('model_type')!r}; "
            f"these families can be read: {', '.join(FAMILIES)}."
        )
    theirs = {_plain_name(name, family.prefix): tensor for name, tensor in tensors.items()}
    for name, other in family.stand_ins.items():
        if name not in theirs and other in theirs:
            theirs[name] = theirs[other]
    config = family.configure(Values(values, source), set(theirs))
    for copy, of in family.copies.items() if not config.tied else ():
        if copy in theirs and of in theirs and not torch.equal(theirs[copy], theirs[of]):
            raise CheckpointError(
                f"{source}: {copy} differs from {of}; models with several token embeddings "
                "are not supported."
            )
    ours: dict[str, Tensor] = {}
    used: set[str] = set()
    for our_name, (their_name, convert) in _expanded(family, config):
        if their_name not in theirs:
            raise CheckpointError(f"{source}: the tensor {their_name} is missing.")
        try:
            ours[our_name] = convert(theirs[their_name])
        except (IndexError, RuntimeError):  # of a shape that can't be cut or turned
            shape = tuple(theirs[their_name].shape)
            raise CheckpointError(
                f"{source}: the tensor {their_name} has the impossible shape {shape}."
            ) from None
        used.add(their_name)
    unneeded = re.compile(family.unneeded)
    for name in sorted(set(theirs) - used):
        tied_copy = config.tied and name == family.rules["head.matrix.weight"][0]
        if not (tied_copy or unneeded.fullmatch(name)):
            raise CheckpointError(f"{source}: unexpected tensor {name}.")
    return config, ours


def _plain_name(name: str, prefix: str) -> str:
    """Without the prefix, and with norms under the names that newer files use."""
    name = name.removeprefix(prefix)
    return re.sub(r"\bgamma$", "weight", re.sub(r"\bbeta$", "bias", name))


def _expanded(family: Family, config: TransformerConfig) -> list[tuple[str, Rule]]:
    """The table's rules for this configuration, one for every layer."""
    rules = []
    for our_name, (their_name, convert) in family.rules.items():
        if our_name.startswith("head.") and config.head == "none":
            continue
        if our_name == "head.matrix.weight" and config.tied:
            continue
        if our_name == "head.bias" and not config.head_bias:
            continue
        if "{i}" not in our_name:
            rules.append((our_name, (their_name, convert)))
            continue
        n = config.decoder_layers if our_name.startswith("decoder.") else config.n_layers
        rules += [(our_name.format(i=i), (their_name.format(i=i), convert)) for i in range(n)]
    return rules
