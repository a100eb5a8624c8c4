"""The bi-encoder while it is trained: two towers, pooled and normalised, with gradients.

:mod:`minirag.retrieval.encoder` uses what is trained here: :func:`save_bi_encoder` writes it in the
layout of sentence-transformers, from which ``BiEncoder.load`` reads.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from minirag.errors import CheckpointError, ModelUnavailable
from minirag.files import write_atomically, write_text_atomically
from minirag.retrieval.encoder import QUESTIONS, BiEncoder
from minirag.text.reading_format import framing_tokenizer
from minirag.text.tokenizer import Tokenizer
from minirag.training.batches import cut_into_batches, pad_right
from minirag.training.weights import locate_weights
from minirag.transformer import checkpoints
from minirag.transformer.models import Encoder
from minirag.transformer.pooling import Pooling, pool, pooling_of, without_head

Towers = Literal["shared", "separate"]

# Texts of a batch are encoded in groups of like length: almost nothing is padded, and a group of so
# many tokens stays in the cache. The loss sees all groups together.
TOKENS_PER_GROUP = 4096


@dataclass(frozen=True)
class Group:
    """Texts of like length, side by side, filled up on the right."""

    rows: Tensor  # (b,) which texts of the batch they are
    ids: Tensor  # (b, T) int64
    keep: Tensor  # (b, T) bool: real tokens


@dataclass(frozen=True)
class Texts:
    """The texts of a batch, in groups."""

    groups: tuple[Group, ...]
    n_tokens: int  # without padding

    def to(self, device: torch.device) -> Texts:
        """The same on another device."""
        moved = (Group(g.rows.to(device), g.ids.to(device), g.keep.to(device)) for g in self.groups)
        return Texts(tuple(moved), self.n_tokens)


def group_texts(
    tokens: Sequence[Sequence[int]], pad_id: int, tokens_per_group: int = TOKENS_PER_GROUP
) -> Texts:
    """Token ids of texts, laid out so that little is padded."""
    groups = []
    rows = range(len(tokens))
    for group in cut_into_batches(rows, lambda row: len(tokens[row]), tokens_per_group):
        ids, keep = pad_right([tokens[row] for row in group], pad_id)
        groups.append(Group(torch.tensor(group), ids, keep))
    return Texts(tuple(groups), sum(map(len, tokens)))


class DualEncoder(nn.Module):
    """Questions and passages to vectors of length 1, through one tower or through one each.

    Parameters
    ----------
    passages : Encoder
    questions : Encoder, optional
        Default: the passages' own. One tower learns from both sides, and the names in a question
        and in its passage are the same to it from the start; two can specialise.
    pooling : {"mean", "cls", "last"}
        What makes one vector of a text's states: their mean, or the first or last token's.
    """

    def __init__(
        self, passages: Encoder, questions: Encoder | None = None, pooling: Pooling = "mean"
    ) -> None:
        super().__init__()
        self.passages = passages
        self.questions = passages if questions is None else questions
        self.pooling: Pooling = pooling

    @classmethod
    def from_base(cls, base: Encoder, towers: Towers, pooling: Pooling) -> DualEncoder:
        """Begin from a pretrained encoder; separate towers begin as twins."""
        passages = without_head(base)
        twin = copy.deepcopy(passages) if towers == "separate" else None
        return cls(passages, twin, pooling)

    @property
    def towers(self) -> Towers:
        """Whether questions have a tower of their own."""
        return "shared" if self.questions is self.passages else "separate"

    def encode_passages(self, texts: Texts) -> Tensor:
        """Vectors (N, D) of length 1, in the order of the texts."""
        return self._encode(self.passages, texts)

    def encode_questions(self, texts: Texts) -> Tensor:
        """Vectors (Q, D) of length 1, in the order of the texts."""
        return self._encode(self.questions, texts)

    def _encode(self, tower: Encoder, texts: Texts) -> Tensor:
        vectors = []
        for group in texts.groups:
            states = tower(group.ids, group.keep).float()  # (b, T, D)
            vectors.append(F.normalize(pool(states, group.keep, self.pooling), dim=-1))  # (b, D)
        rows = torch.cat([group.rows for group in texts.groups])
        return torch.cat(vectors)[rows.argsort()]

    def as_encoder(self, tokenizer: Tokenizer, max_tokens: int) -> BiEncoder:
        """The same weights as an encoder of texts, for searching while training."""
        return BiEncoder(
            self.passages,
            tokenizer,
            name="in training",
            fingerprint="",
            pooling=self.pooling,
            max_tokens=max_tokens,
            question_model=self.questions,
        )


@dataclass(frozen=True)
class Base:
    """What a training of a retriever begins from."""

    directory: Path
    model: Encoder
    tokenizer: Tokenizer  # puts the frame around texts that the retriever will always read
    pooling: Pooling | None = None  # of one that is a retriever already


def load_base(name_or_path: str) -> Base:
    """A pretrained encoder, or a retriever with one tower, by its name or directory.

    Raises
    ------
    ModelUnavailable
        If it is not there.
    CheckpointError
        If it is no encoder, has two towers, or its tokenizer has no tokens to frame texts with.
    """
    directory = Path(name_or_path)
    if not (directory / checkpoints.CONFIG).is_file():
        try:
            directory = locate_weights(name_or_path)
        except ModelUnavailable as error:
            hint = f"{error} For a retriever: minirag train-retriever."
            raise ModelUnavailable(hint) from None
    model = checkpoints.load(directory)
    if not isinstance(model, Encoder):
        raise CheckpointError(
            f"{directory} holds a {model.config.kind}; a retriever begins from an encoder, such as "
            "bert-base."
        )
    if (directory / QUESTIONS).is_file():
        raise CheckpointError(
            f"{directory} holds a retriever with two towers: give one with a shared tower, or the "
            "encoder that it began from."
        )
    pooling = pooling_of(directory) if (directory / "1_Pooling").is_dir() else None
    return Base(directory, model, framing_tokenizer(Tokenizer.load(directory)), pooling)


def save_bi_encoder(
    model: DualEncoder,
    tokenizer: Tokenizer,
    directory: Path,
    *,
    max_tokens: int,
    dtype: torch.dtype | None = None,
) -> None:
    """Write all that ``BiEncoder.load`` needs: weights, tokenizer, pooling and length.

    Parameters
    ----------
    dtype : torch.dtype, optional
        Store weights in this type; default: as they are.

    Raises
    ------
    DiskError
        If writing fails.
    """
    checkpoints.save(model.passages, directory, dtype)
    (directory / QUESTIONS).unlink(missing_ok=True)  # another retriever's, if it lay here before
    if model.towers == "separate":
        tensors = {
            name: p.detach().to("cpu", dtype or p.dtype).contiguous()
            for name, p in model.questions.named_parameters()
        }
        write_atomically(directory / QUESTIONS, lambda part: save_file(tensors, part))
    tokenizer.save(directory)
    modes = {"mean": "mean_tokens", "cls": "cls_token", "last": "lasttoken"}
    pooling: dict[str, object] = {
        "word_embedding_dimension": model.passages.config.d_model,
        **{f"pooling_mode_{mode}": how == model.pooling for how, mode in modes.items()},
    }
    _write_json(directory / "1_Pooling" / "config.json", pooling)
    _write_json(directory / "sentence_bert_config.json", {"max_seq_length": max_tokens})


def _write_json(path: Path, values: dict[str, object]) -> None:
    write_text_atomically(path, json.dumps(values, indent=2) + "\n")
