"""From the states of a text's tokens to one vector: for searching, and for telling classes apart.

How a public encoder does it stands in sentence-transformers' files beside its weights.
"""

from __future__ import annotations

import dataclasses
import typing
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from minirag.errors import CheckpointError, UsageError
from minirag.files import read_json_object
from minirag.transformer.models import Encoder

Pooling = Literal["mean", "cls", "last"]


class TruncationWarning(UserWarning):
    """A text was longer than the encoder reads; its end has no part in the vector."""


def pool(states: Tensor, keep: Tensor | None, how: Pooling) -> Tensor:
    """States (B, T, D) of real tokens, which ``keep`` (B, T) marks, to one vector each (B, D)."""
    if how not in typing.get_args(Pooling):
        raise UsageError(
            f"pooling by {how!r} is not known: give one of {', '.join(typing.get_args(Pooling))}."
        )
    if keep is None:
        keep = torch.ones(states.shape[:2], dtype=torch.bool, device=states.device)
    if how == "mean":
        weights = keep.to(states.dtype)[..., None]  # (B, T, 1)
        return (states * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
    place = torch.arange(keep.size(1), device=keep.device)
    first_or_last = (
        keep.int().argmax(1) if how == "cls" else (place * keep).argmax(1)  # (B,)
    )
    return states[torch.arange(states.size(0), device=states.device), first_or_last]


def without_head(model: Encoder) -> Encoder:
    """The encoder alone, as a copy: whoever pools its states fills no gaps."""
    config = dataclasses.replace(model.config, head="none", head_bias=False)
    bare = Encoder(config)
    wanted = dict(model.named_parameters())
    with torch.no_grad():
        for name, parameter in bare.named_parameters():
            parameter.copy_(wanted[name])
    return bare


def cut_to(max_tokens: int, ids: list[int], n_special: int) -> list[int]:
    """At most ``max_tokens``: text goes, the special token that ends it stays."""
    if len(ids) <= max_tokens:
        return ids
    tail = ids[-1:] if n_special > 1 else []
    return ids[: max_tokens - len(tail)] + tail


def pooling_of(directory: Path) -> Pooling:
    """How sentence-transformers' ``1_Pooling/config.json`` says to pool; mean if it is silent."""
    values = read_json_object(directory / "1_Pooling" / "config.json", absent={})
    chosen = [name for name, on in values.items() if name.startswith("pooling_mode_") and on]
    if not chosen:
        return "mean"
    names: dict[str, Pooling] = {
        "pooling_mode_mean_tokens": "mean",
        "pooling_mode_cls_token": "cls",
        "pooling_mode_lasttoken": "last",
    }
    if len(chosen) > 1 or chosen[0] not in names:
        raise CheckpointError(
            f"{directory}: pooling by {', '.join(chosen)} is not supported; "
            f"one of these is: {', '.join(names)}."
        )
    return names[chosen[0]]


def max_tokens_of(directory: Path) -> int | None:
    """The length that ``sentence_bert_config.json`` names, if it names one."""
    values = read_json_object(directory / "sentence_bert_config.json", absent={})
    value = values.get("max_seq_length")
    return value if isinstance(value, int) and value > 2 else None
