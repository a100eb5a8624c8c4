"""How alike two questions are: by their vectors' cosine, or by the words they share.

Either is a state that never changes; adding or removing questions makes the next one. Scores lie
between 0 and 1 (cosines of vectors may fall below), and 1 is the same question.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from minirag.retrieval.bm25 import words
from minirag.retrieval.flat import FlatIndex
from minirag.retrieval.retriever import TextEncoder, encode_checked


class Likeness(Protocol):
    """Questions under their ids, and which of them is most like another one."""

    @property
    def name(self) -> str:
        """What compares: the encoder's name, or "words"."""

    def changed(self, drop: Collection[str], put: Mapping[str, str]) -> Likeness:
        """The state without ``drop`` (ids held here), then with the questions ``put`` by id."""

    def nearest_many(self, questions: Sequence[str]) -> list[tuple[str, float] | None]:
        """For each question the id most like it and how much; None if nothing is held at all."""


@dataclass(frozen=True)
class ByVectors:
    """Cosines of the questions' vectors: other words for the same thing are near each other.

    Stored questions and new ones are both questions, so both go through the questions' tower.
    """

    encoder: TextEncoder
    index: FlatIndex
    ids: Mapping[int, str] = field(default_factory=dict)  # by vector id

    @classmethod
    def empty(cls, encoder: TextEncoder) -> ByVectors:
        """No question yet."""
        return cls(encoder, FlatIndex(encoder.dim, "cosine"))

    @property
    def name(self) -> str:
        """The encoder's name."""
        return self.encoder.name

    def changed(self, drop: Collection[str], put: Mapping[str, str]) -> ByVectors:
        """See :meth:`Likeness.changed`; only what is put is encoded."""
        vectors = encode_checked(self.encoder, list(put.values()), questions=True)  # (n, D)
        index = self.index.copy()
        index.remove([row for row, id in self.ids.items() if id in drop or id in put])
        ids = {row: id for row, id in self.ids.items() if id not in drop and id not in put}
        ids.update(zip(index.add(vectors).tolist(), put, strict=True))
        return ByVectors(self.encoder, index, ids)

    def nearest_many(self, questions: Sequence[str]) -> list[tuple[str, float] | None]:
        """See :meth:`Likeness.nearest_many`; equal ones: the one that came first."""
        if not self.ids:
            return [None] * len(questions)
        vectors = encode_checked(self.encoder, questions, questions=True)  # (Q, D)
        scores, rows = self.index.search(vectors, 1)  # (Q, 1) each
        return [(self.ids[int(r[0])], float(s[0])) for s, r in zip(scores, rows, strict=True)]


@dataclass(frozen=True)
class ByWords:
    """Cosines of bags of words, each word weighing its BM25 idf: needs no model.

    A name that few questions have weighs most, "what is the" next to nothing. A word of the new
    question that no stored one has weighs as much as a word can, so that a question about something
    else is not taken for the same in other respects.
    """

    held: Mapping[str, frozenset[str]] = field(default_factory=dict)  # id to different words
    postings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # word to ids
    lengths: Mapping[str, float] = field(default_factory=dict)  # id to the norm of its weights

    @property
    def name(self) -> str:
        """What compares."""
        return "words"

    def changed(self, drop: Collection[str], put: Mapping[str, str]) -> ByWords:
        """See :meth:`Likeness.changed`; all weights are counted anew (1,000 questions: 10 ms)."""
        held = {id: has for id, has in self.held.items() if id not in drop and id not in put}
        held.update({id: frozenset(words(question)) for id, question in put.items()})
        postings: dict[str, list[str]] = {}
        for id, has in held.items():
            for word in has:
                postings.setdefault(word, []).append(id)
        lengths = {
            # sorted: floats add up the same in any run
            id: math.sqrt(sum(_idf(len(postings[word]), len(held)) ** 2 for word in sorted(has)))
            for id, has in held.items()
        }
        return ByWords(held, {word: tuple(ids) for word, ids in postings.items()}, lengths)

    def nearest_many(self, questions: Sequence[str]) -> list[tuple[str, float] | None]:
        """See :meth:`Likeness.nearest_many`; equal ones: the one that came first."""
        return [self._nearest(frozenset(words(question))) for question in questions]

    def _nearest(self, asked: frozenset[str]) -> tuple[str, float] | None:
        if not self.held:
            return None
        shared: Counter[str] = Counter()
        total = 0.0
        for word in sorted(asked):
            ids = self.postings.get(word, ())
            weight = _idf(len(ids), len(self.held)) ** 2
            total += weight
            for id in ids:
                shared[id] += weight  # type: ignore[assignment]  # Counter sums floats, too
        # what differs in its last bits alone, by the order of adding up, is as near
        best = max(self.held, key=lambda id: round(shared[id] / (self.lengths[id] or 1.0), 9))
        likeness = shared[best] / ((self.lengths[best] * math.sqrt(total)) or 1.0)
        return best, min(1.0, likeness)


def _idf(df: int, n: int) -> float:
    return math.log(1 + (n - df + 0.5) / (df + 0.5))
