"""One state of a knowledge base: documents, their passages and vectors, which belong together.

A snapshot never changes. Changing makes the next one, and whoever holds the one before can go on
searching it: so a search sees a change wholly or not at all, without waiting for it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice

import numpy as np

from minirag.errors import UsageError
from minirag.retrieval.flat import FlatIndex
from minirag.retrieval.retriever import Hit, TextEncoder, Vectors, encode_checked
from minirag.text.documents import Document, Passage


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
    index : FlatIndex
        Of unit vectors, so that the inner product is the cosine; it keeps them to the last bit,
        which ``metric="cosine"``, normalising once more at each loading, would not.
    documents : mapping of document id to Document
    passages : mapping of vector id to Passage
        In ascending order of the vector ids, which the index gives and never gives again.
    vector_ids : mapping of document id to the vector ids of its passages
    """

    index: FlatIndex
    documents: Mapping[str, Document]
    passages: Mapping[int, Passage]
    vector_ids: Mapping[str, tuple[int, ...]]

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
        added = [np.empty((0, index.dim), np.float32), *(entry.vectors for entry in put)]
        new = iter(index.add(np.concatenate(added)).tolist())
        for entry in put:
            ids = tuple(islice(new, len(entry.passages)))
            documents[entry.document.id] = entry.document
            vector_ids[entry.document.id] = ids
            passages.update(zip(ids, entry.passages, strict=True))
        documents.update((document.id, document) for document in relabel)
        return Snapshot(index, documents, passages, vector_ids)

    def search(self, queries: Vectors, k: int) -> list[list[Hit]]:
        """The k best passages for each of the query vectors (Q, D), best first."""
        if k < 1:
            raise UsageError(f"k = {k} asks for no passage: give 1 or more.")
        scores, ids = self.index.search(queries, k)
        return [
            [Hit(self.passages[id], score) for score, id in zip(*row, strict=True)]
            for row in zip(scores.tolist(), ids.tolist(), strict=True)
        ]


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
        return self.snapshot.search(encode_checked(self.encoder, questions, progress=progress), k)
