"""The bi-encoder: a text in, one unit vector out.

A transformer encoder gives a state for every token; pooling makes one vector of them; normalised,
the inner product of two vectors is the cosine of their angle (Reimers and Gurevych 2019). Mostly
questions and passages go through the same model; a bi-encoder may have a tower for each (Karpukhin
et al. 2020), and then questions have to go through :meth:`BiEncoder.encode_questions`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from minirag.errors import CheckpointError
from minirag.text.tokenizer import Tokenizer
from minirag.training.weights import shipped_or_other
from minirag.transformer import checkpoints
from minirag.transformer.hub import locate
from minirag.transformer.models import Encoder
from minirag.transformer.pooling import (
    Pooling,
    TruncationWarning,
    cut_to,
    max_tokens_of,
    pool,
    pooling_of,
)

QUESTIONS = "questions.safetensors"  # weights of the questions' tower, if they have their own

STRETCH = 16_384  # texts sorted by length together
TOKENS_PER_BATCH = 2048  # measured: larger batches fall out of the cache, smaller ones pay per call


class BiEncoder:
    """Texts to unit vectors.

    Attributes
    ----------
    name, fingerprint : str
        Which model this is; a knowledge base remembers them and refuses another.
    dim : int
        Numbers in a vector.
    max_tokens : int
        Longest text, special tokens included; the rest is cut off with a warning.
    """

    def __init__(
        self,
        model: Encoder,
        tokenizer: Tokenizer,
        *,
        name: str,
        fingerprint: str,
        pooling: Pooling = "mean",
        max_tokens: int | None = None,
        question_model: Encoder | None = None,
    ) -> None:
        self.model, self.tokenizer, self.pooling = model, tokenizer, pooling
        self.question_model = question_model or model
        self.name, self.fingerprint = name, fingerprint
        self.dim = model.config.d_model
        self.max_tokens = min(max_tokens or model.config.max_length, model.config.max_length)

    @classmethod
    def load(
        cls, name_or_path: str, *, dtype: torch.dtype = torch.float32, download: bool = False
    ) -> BiEncoder:
        """Load a model by name or from a directory in sentence-transformers' layout.

        Names are those of public models and of what minirag ships (``"retriever"``).

        Raises
        ------
        ModelUnavailable
            If the name is neither cached nor to be had.
        CheckpointError
            If it is not an encoder, or asks for a pooling that isn't one of ours.
        """
        files = locate(shipped_or_other(name_or_path), download=download)
        model = checkpoints.load(files.directory, dtype)
        if not isinstance(model, Encoder):
            raise CheckpointError(
                f"{files.name} is a {model.config.kind}; vectors come from an encoder, "
                "such as all-MiniLM-L6-v2."
            )
        pooling = pooling_of(files.directory)
        return cls(
            model,
            Tokenizer.load(files.directory),
            name=files.name,
            # the same weights pooled in another way are another encoder
            fingerprint=files.fingerprint + ("" if pooling == "mean" else f"-{pooling}"),
            pooling=pooling,
            max_tokens=max_tokens_of(files.directory),
            question_model=_question_model(files.directory, model, dtype),
        )

    def encode(self, texts: Sequence[str], *, progress: bool = False) -> NDArray[np.float32]:
        """Vectors of unit length, float32 (n, D), in the order of the texts."""
        return self._encode(self.model, texts, progress, "text")

    def encode_questions(
        self, questions: Sequence[str], *, progress: bool = False
    ) -> NDArray[np.float32]:
        """The same for questions, which may have a tower of their own."""
        return self._encode(self.question_model, questions, progress, "question")

    def _encode(
        self, model: Encoder, texts: Sequence[str], progress: bool, called: str
    ) -> NDArray[np.float32]:
        out = np.empty((len(texts), self.dim), dtype=np.float32)
        n_cut = 0
        # A stretch at a time: long enough to find texts of one length, short enough to hold.
        for start in range(0, len(texts), STRETCH):
            tokens = self.tokenizer.encode_batch(texts[start : start + STRETCH])
            n_cut += sum(len(ids) > self.max_tokens for ids in tokens)
            tokens = [cut_to(self.max_tokens, ids, self.tokenizer.n_special) for ids in tokens]
            # The bar counts tokens: the longest texts come first, and a text is no unit of work.
            with tqdm(
                desc=f"encoding {start + len(tokens):,} of {len(texts):,}",
                total=sum(map(len, tokens)),
                unit=" tokens",
                unit_scale=True,
                disable=not progress,
                leave=start + STRETCH >= len(texts),
            ) as bar:
                for rows in _batches_of_like_length(tokens, TOKENS_PER_BATCH):
                    vectors = self._vectors(model, [tokens[row] for row in rows])
                    out[[start + row for row in rows]] = vectors.float().numpy()
                    bar.update(sum(len(tokens[row]) for row in rows))
        if n_cut:
            which = f"{n_cut} of {len(texts)} {called}s have"
            if len(texts) == 1:
                which = f"the {called} has"
            warnings.warn(
                f"{which} more than the {self.max_tokens} tokens that {self.name} reads; what "
                "comes after them was cut off.",
                TruncationWarning,
                stacklevel=3,
            )
        return out

    @torch.inference_mode()
    def _vectors(self, model: Encoder, batch: list[list[int]]) -> Tensor:
        """Token ids, padded on the right, to unit vectors (B, D)."""
        lengths = torch.tensor([len(ids) for ids in batch])
        T = int(lengths.max())
        pad = model.config.pad_id or 0
        ids = torch.tensor([row + [pad] * (T - len(row)) for row in batch])  # (B, T)
        keep = None if bool((lengths == T).all()) else torch.arange(T) < lengths[:, None]
        device = model.device
        keep = None if keep is None else keep.to(device)
        states = model(ids.to(device), keep)
        return F.normalize(pool(states.float(), keep, self.pooling), dim=-1).cpu()


def _batches_of_like_length(tokens: list[list[int]], budget: int) -> Iterator[list[int]]:
    """Rows in batches of about ``budget`` tokens, longest first, so that little is padded."""
    order = sorted(range(len(tokens)), key=lambda row: -len(tokens[row]))
    start = 0
    while start < len(order):
        size = max(1, budget // max(1, len(tokens[order[start]])))
        yield order[start : start + size]
        start += size


def _question_model(directory: Path, model: Encoder, dtype: torch.dtype) -> Encoder | None:
    """The questions' own tower, of the same shape as the passages'; None if they share one."""
    path = directory / QUESTIONS
    if not path.is_file():
        return None
    questions = checkpoints.fill(model.config, checkpoints.read_tensors(path), path, dtype)
    assert isinstance(questions, Encoder)  # the configuration is an encoder's
    return questions
