"""What searching is, apart from how it is done: a question in, passages with scores out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from minirag.errors import UsageError
from minirag.text.chunking import PassageTokenizer
from minirag.text.documents import Passage

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Hit:
    """A passage that a search found; scores compare within one search only, higher is better."""

    passage: Passage
    score: float
    similarity: float | None = None  # cosine with the question, whatever ranked it; None: unknown
    shared: float | None = None  # how much of its rare words (BM25.shared); None: not counted


class Retriever(Protocol):
    """Anything that finds passages for a question: by vectors, by words, by both."""

    def search(self, question: str, k: int) -> list[Hit]:
        """The ``k`` best passages, best first; fewer if there are fewer.

        Raises
        ------
        UsageError
            If the question is empty or ``k`` is less than 1.
        """


class BatchRetriever(Retriever, Protocol):
    """A retriever that takes many questions together, which is faster."""

    def search_many(
        self, questions: Sequence[str], k: int, *, progress: bool = False
    ) -> list[list[Hit]]:
        """:meth:`search` for each question."""


class TextEncoder(Protocol):
    """What a knowledge base needs of :class:`minirag.retrieval.encoder.BiEncoder`."""

    @property
    def name(self) -> str:
        """The model's name, for messages."""

    @property
    def fingerprint(self) -> str:
        """Differs between encoders whose vectors can't be compared."""

    @property
    def dim(self) -> int:
        """D, numbers in a vector."""

    @property
    def max_tokens(self) -> int:
        """Longest text it reads, special tokens included."""

    @property
    def tokenizer(self) -> PassageTokenizer:
        """Its own tokens, in which passages are measured."""

    def encode(self, texts: Sequence[str], *, progress: bool = False) -> Vectors:
        """Vectors (n, D) of length 1, in the order of the texts."""

    def encode_questions(self, questions: Sequence[str], *, progress: bool = False) -> Vectors:
        """The same for questions, if they are encoded in another way than passages."""


def encode_checked(
    encoder: TextEncoder,
    texts: Sequence[str],
    *,
    questions: bool = False,
    progress: bool = False,
) -> Vectors:
    """Vectors (n, D) of passages or of questions, after making sure that the encoder kept its word.

    Raises
    ------
    UsageError
        If their shape is wrong or their length is not 1.
    """
    if not texts:
        return np.empty((0, encoder.dim), np.float32)
    encode = encoder.encode_questions if questions else encoder.encode
    vectors = np.asarray(encode(texts, progress=progress), np.float32)
    if vectors.shape != (len(texts), encoder.dim):
        raise UsageError(
            f"{encoder.name} made vectors of shape {vectors.shape} of {len(texts)} texts: "
            f"({len(texts)}, {encoder.dim}) was expected."
        )
    lengths = np.linalg.norm(vectors, axis=1)
    if not np.all(np.abs(lengths - 1) < 1e-3):  # NaN fails, too
        raise UsageError(f"{encoder.name} made vectors whose length is not 1: normalise them.")
    return vectors
