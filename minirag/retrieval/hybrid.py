"""Searching by words, and by words and vectors together.

Vectors find what means the same; words find what is spelled the same, names above all (Sciavolino
et al. 2021 showed dense retrieval to fail on rare ones). The hybrid asks both and fuses their
rankings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from minirag.errors import UsageError
from minirag.retrieval.fusion import reciprocal_rank_fusion
from minirag.retrieval.ids import Ids
from minirag.retrieval.retriever import Hit, TextEncoder, Vectors, encode_checked
from minirag.retrieval.snapshot import Snapshot
from minirag.retrieval.vectors import Floats

DEPTH = 50  # of each ranking that is fused; more if more passages are asked for


def _check(questions: Sequence[str], k: int) -> None:
    if any(not question.strip() for question in questions):
        raise UsageError("the question is empty: ask something.")
    if k < 1:
        raise UsageError(f"k = {k} asks for no passage: give 1 or more.")


@dataclass(frozen=True)
class LexicalRetriever:
    """Search by words in one state of a knowledge base (a snapshot ``with_words``)."""

    snapshot: Snapshot
    encoder: TextEncoder

    def search(self, question: str, k: int) -> list[Hit]:
        """The ``k`` passages with most of the question's rare words, best first.

        Scores are BM25's, ``similarity`` the cosine: one shared word is no answer, so whether to
        abstain is decided by the cosine here, too. Passages that share no word with the question
        are not found at all.
        """
        return self.search_many([question], k)[0]

    def search_many(
        self, questions: Sequence[str], k: int, *, progress: bool = False
    ) -> list[list[Hit]]:
        """:meth:`search` for many questions, encoded together."""
        _check(questions, k)
        words = self.snapshot.words
        assert words is not None
        vectors = encode_checked(
            self.encoder, questions, questions=True, progress=progress
        )  # (Q, D)
        return [
            _measured(self.snapshot, question, *words.search(question, k), vector)
            for question, vector in zip(questions, vectors, strict=True)
        ]


@dataclass(frozen=True)
class HybridRetriever:
    """Search by vectors and by words in one state of a knowledge base, and fuse the rankings."""

    snapshot: Snapshot
    encoder: TextEncoder

    def search(self, question: str, k: int) -> list[Hit]:
        """The ``k`` best passages; scores are sums of reciprocal ranks, ``similarity`` the cosine.

        Ranks say nothing about how near a passage is, so the cosine goes along: whether to abstain
        is decided by it.
        """
        return self.search_many([question], k)[0]

    def search_many(
        self, questions: Sequence[str], k: int, *, progress: bool = False
    ) -> list[list[Hit]]:
        """:meth:`search` for many questions, encoded and searched together."""
        _check(questions, k)
        words, index, depth = self.snapshot.words, self.snapshot.index, max(k, DEPTH)
        assert words is not None
        vectors = encode_checked(
            self.encoder, questions, questions=True, progress=progress
        )  # (Q, D)
        by_vector = index.search(vectors, depth)[1]  # (Q, depth)
        found = []
        for question, vector, near in zip(questions, vectors, by_vector, strict=True):
            by_word = words.search(question, depth)[1]
            scores, ids = reciprocal_rank_fusion([near, by_word], k)
            found.append(_measured(self.snapshot, question, scores, ids, vector))
        return found


def _measured(
    snapshot: Snapshot, question: str, scores: Floats, ids: Ids, vector: Vectors
) -> list[Hit]:
    """Hits of any ranking (k,), each with its cosine to the question's vector (D,) and its words.

    A passage is near in two ways, and a ranking of both has forgotten how near.
    """
    assert snapshot.words is not None
    similarities = (snapshot.index.get(ids) @ vector).astype(np.float32)
    return snapshot.hits(scores, ids, similarities, snapshot.words.shared(question, ids))
