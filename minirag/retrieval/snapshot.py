"""One state of a knowledge base: documents, their passages and vectors, which belong together.

A snapshot never changes. Changing makes the next one, and whoever holds the one before can go on
searching it: so a search sees a change wholly or not at all, without waiting for it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice

import numpy as np
from numpy.typing import NDArray

from minirag.errors import UsageError
from minirag.retrieval.bm25 import BM25
from minirag.retrieval.flat import FlatIndex
from minirag.retrieval.ivf import IVFIndex
from minirag.retrieval.retriever import Hit, TextEncoder, Vectors, encode_checked
from minirag.text.chunking import passage_text_for_encoder
from minirag.text.documents import Document, Passage

# Measured on one core, 384 numbers a vector: an exact search of 50,000 passages takes 7.6 ms, one
# in lists .4 ms, and encoding the question 12 ms. Fewer are searched exactly: that costs next to
# nothing and misses nothing. Below half as many the lists are given up again.
LISTS_FROM = 50_000


@dataclass(frozen=True)
class Entry:
    """A document to be put in, with its passages and their vectors (n, D)."""

    document: Document
    passages: Sequence[Passage]
    vectors: Vectors


@dataclass(frozen=True)
class Snapshot:
    """Documents, passages and vectors at one moment.

    Attributes
    ----------
    index : FlatIndex or IVFIndex
        Of unit vectors, so that the inner product is the cosine; it keeps them to the last bit,
        which ``metric="cosine"``, normalising once more at each loading, would not.
    documents : mapping of document id to Document
    passages : mapping of vector id to Passage
        In ascending order of the vector ids, which the index gives and never gives again.
    vector_ids : mapping of document id to the vector ids of its passages
    words : BM25, optional
        Of the same passages under the same ids, from the first search by words on.
    """

    index: FlatIndex | IVFIndex
    documents: Mapping[str, Document]
    passages: Mapping[int, Passage]
    vector_ids: Mapping[str, tuple[int, ...]]
    words: BM25 | None = None

    @classmethod
    def empty(cls, dim: int) -> Snapshot:
        """Nothing yet."""
        return cls(FlatIndex(dim, "ip"), {}, {}, {})

    def changed(
        self, drop: Collection[str], put: Sequence[Entry], relabel: Iterable[Document] = ()
    ) -> Snapshot:
        """The state after leaving out ``drop`` (ids held here), then putting in ``put``.

        A document put in replaces the one of its id. ``relabel`` replaces documents that keep
        their passages. The cost is a copy of the vectors: 2 ms for 5,000 of 384 numbers.
        """
        documents, vector_ids = dict(self.documents), dict(self.vector_ids)
        passages, index = dict(self.passages), self.index.copy()
        gone = [id for id in chain(drop, (e.document.id for e in put)) if id in vector_ids]
        gone_vectors = [vector_id for id in gone for vector_id in vector_ids[id]]
        index.remove(gone_vectors)
        for vector_id in gone_vectors:
            del passages[vector_id]
        for id in gone:
            del vector_ids[id]
        for id in drop:
            del documents[id]
        words = None if self.words is None else self.words.copy()
        if words is not None:
            words.remove(gone_vectors)
        added = [np.empty((0, index.dim), np.float32), *(entry.vectors for entry in put)]
        new = iter(index.add(np.concatenate(added)).tolist())
        for entry in put:
            ids = tuple(islice(new, len(entry.passages)))
            documents[entry.document.id] = entry.document
            vector_ids[entry.document.id] = ids
            passages.update(zip(ids, entry.passages, strict=True))
            if words is not None:
                words.add([passage_text_for_encoder(passage) for passage in entry.passages], ids)
        documents.update((document.id, document) for document in relabel)
        return Snapshot(suited(index), documents, passages, vector_ids, words)

    @property
    def centroids(self) -> Vectors:
        """Of the index's lists (lists, D); (0, D) while it has none."""
        if isinstance(self.index, IVFIndex):
            return self.index.centroids
        return np.empty((0, self.index.dim), np.float32)

    @property
    def trained_skew(self) -> float | None:
        """How unequal the lists were at their training; None while there are none."""
        return self.index.trained_skew if isinstance(self.index, IVFIndex) else None

    def with_words(self) -> Snapshot:
        """The same, ready to be searched by words."""
        if self.words is not None:
            return self
        words = BM25()
        texts = [passage_text_for_encoder(passage) for passage in self.passages.values()]
        words.add(texts, list(self.passages))
        return replace(self, words=words)

    def search(self, queries: Vectors, k: int) -> list[list[Hit]]:
        """The k best passages for each of the query vectors (Q, D), best first."""
        if k < 1:
            raise UsageError(f"k = {k} asks for no passage: give 1 or more.")
        scores, ids = self.index.search(queries, k)
        return [self.hits(*row) for row in zip(scores, ids, strict=True)]

    def hits(
        self,
        scores: NDArray[np.float32],
        ids: NDArray[np.int64],
        similarities: NDArray[np.float32] | None = None,
        shared: NDArray[np.float32] | None = None,
    ) -> list[Hit]:
        """What a search gave (k,), as passages, with their cosines and what words they share."""
        similarities = scores if similarities is None else similarities
        words = [None] * len(ids) if shared is None else shared.tolist()
        return [
            Hit(self.passages[id], score, similarity, word)
            for id, score, similarity, word in zip(
                ids.tolist(), scores.tolist(), similarities.tolist(), words, strict=True
            )
        ]


def index_of(
    vectors: Vectors, centroids: Vectors, trained_skew: float | None = None
) -> FlatIndex | IVFIndex:
    """An index of unit vectors (n, D) under the ids 0, 1, ...; lists where centroids are given."""
    dim = vectors.shape[1]
    index = IVFIndex(dim, "ip", warn=False) if len(centroids) else FlatIndex(dim, "ip")
    if isinstance(index, IVFIndex):
        index.use_centroids(centroids, trained_skew)
    index.add(vectors)
    return index


def suited(index: FlatIndex | IVFIndex, lists_from: int = LISTS_FROM) -> FlatIndex | IVFIndex:
    """The same vectors in the kind of index that suits their number; new lists if they need it."""
    n = len(index)
    if isinstance(index, FlatIndex) and n >= lists_from:
        lists = IVFIndex(index.dim, index.metric, warn=False)
    elif isinstance(index, IVFIndex) and n < lists_from // 2:
        exact = FlatIndex(index.dim, index.metric)
        exact.add(index.get(index.ids), index.ids)
        return exact
    elif isinstance(index, IVFIndex) and index.unequal:
        lists = index
    else:
        return index
    if lists is not index:
        lists.add(index.get(index.ids), index.ids)
    lists.train()
    return lists


@dataclass(frozen=True)
class DenseRetriever:
    """Search by vectors in one state of a knowledge base, whatever becomes of it later."""

    snapshot: Snapshot
    encoder: TextEncoder

    def search(self, question: str, k: int) -> list[Hit]:
        """The ``k`` passages nearest to the question, best first; scores are cosines."""
        return self.search_many([question], k)[0]

    def search_many(
        self, questions: Sequence[str], k: int, *, progress: bool = False
    ) -> list[list[Hit]]:
        """:meth:`search` for many questions, encoded and searched together."""
        for question in questions:
            if not question.strip():
                raise UsageError("the question is empty: ask something.")
        vectors = encode_checked(self.encoder, questions, questions=True, progress=progress)
        return self.snapshot.search(vectors, k)
