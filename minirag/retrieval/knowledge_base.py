"""The knowledge base: documents that can be asked, kept current while they are asked."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from tqdm import tqdm

from minirag.errors import StoreError, UsageError
from minirag.retrieval.hybrid import HybridRetriever, LexicalRetriever
from minirag.retrieval.retriever import Hit, Retriever, TextEncoder, encode_checked
from minirag.retrieval.snapshot import DenseRetriever, Entry, Snapshot
from minirag.retrieval.snapshot_files import StoredInfo, load_snapshot, read_info, save_snapshot
from minirag.text.chunking import check_sizes, chunk, passage_text_for_encoder
from minirag.text.documents import Document, Passage
from minirag.text.markdown import is_markdown
from minirag.text.readers import read_documents
from minirag.text.report import Report

RETRIEVERS = ("dense", "lexical", "hybrid")
DEFAULT_SIZE = 256  # tokens; fewer if the encoder reads fewer


@dataclass(frozen=True)
class Changes:
    """What an update did: documents by what became of them, and passages encoded for it."""

    added: int = 0
    changed: int = 0
    removed: int = 0
    unchanged: int = 0
    encoded: int = 0


class KnowledgeBase:
    """Documents, their passages, and the passages' vectors by one encoder.

    Any thread may search while another one updates: a search sees the state before or after an
    update, never between. Updates are all or nothing: they check first and change after.

    Parameters
    ----------
    encoder : TextEncoder
        Makes the vectors, of passages and of questions.
    size : int, optional
        Tokens of a passage as the encoder reads it, at most. Default: as many as the encoder
        reads, and at most 256.
    overlap : int, optional
        Tokens that neighbouring passages share, at most. Default: an eighth of ``size``.

    Raises
    ------
    UsageError
        If ``size`` is more than the encoder reads.
    """

    def __init__(
        self, encoder: TextEncoder, *, size: int | None = None, overlap: int | None = None
    ) -> None:
        self.encoder = encoder
        self.size = min(DEFAULT_SIZE, encoder.max_tokens) if size is None else size
        self.overlap = self.size // 8 if overlap is None else overlap
        if self.size > encoder.max_tokens:
            raise UsageError(
                f"passages of {self.size} tokens are too long: {encoder.name} reads "
                f"{encoder.max_tokens}; the rest would never be found."
            )
        check_sizes(encoder.tokenizer, self.size, self.overlap)
        self._writing = threading.RLock()
        self._snapshot = Snapshot.empty(encoder.dim)  # replaced in one assignment, never changed

    # -- what is in it -----------------------------------------------------------------------------

    @property
    def documents(self) -> list[Document]:
        """All documents, in the order in which they came."""
        return list(self._snapshot.documents.values())

    @property
    def passages(self) -> list[Passage]:
        """All passages, in the order in which they came."""
        return list(self._snapshot.passages.values())

    def document(self, id: str) -> Document:
        """The document of this id.

        Raises
        ------
        UsageError
            If there is none.
        """
        document = self._snapshot.documents.get(id)
        if document is None:
            raise UsageError(f"there is no document {id!r} in the knowledge base.")
        return document

    def __contains__(self, id: str) -> bool:
        return id in self._snapshot.documents

    def __len__(self) -> int:
        """How many documents there are."""
        return len(self._snapshot.documents)

    # -- searching ---------------------------------------------------------------------------------

    def dense(self) -> DenseRetriever:
        """A searcher of the present state: several searches with it all see the same documents."""
        return DenseRetriever(self._snapshot, self.encoder)

    def lexical(self) -> LexicalRetriever:
        """The same by words (BM25); the first call counts them (5,000 passages: .25 s)."""
        return LexicalRetriever(self._with_words(), self.encoder)

    def hybrid(self) -> HybridRetriever:
        """The same by vectors and by words, their rankings fused."""
        return HybridRetriever(self._with_words(), self.encoder)

    def retriever(self, kind: str) -> DenseRetriever | LexicalRetriever | HybridRetriever:
        """One of these by its name: ``dense``, ``lexical`` or ``hybrid``.

        Raises
        ------
        UsageError
            If it is none of them.
        """
        if kind not in RETRIEVERS:
            raise UsageError(
                f"there is no retriever {kind!r}: give one of {', '.join(RETRIEVERS)}."
            )
        made: DenseRetriever | LexicalRetriever | HybridRetriever = getattr(self, kind)()
        return made

    def live(self, kind: str) -> Retriever:
        """A retriever of this kind that searches whatever the knowledge base holds by then."""
        self.retriever(kind)  # a wrong name is told now
        return _Live(self, kind)

    def _with_words(self) -> Snapshot:
        if self._snapshot.words is None:
            with self._writing:
                self._snapshot = self._snapshot.with_words()
        return self._snapshot

    def search(self, question: str, k: int) -> list[Hit]:
        """The ``k`` passages nearest to the question, best first; fewer if there are fewer.

        Returns
        -------
        list of Hit
            Scores are cosines. Equal ones stand in the order in which the passages came.

        Raises
        ------
        UsageError
            If the question is empty or ``k`` is less than 1.
        """
        return self.dense().search(question, k)

    def search_many(
        self, questions: Sequence[str], k: int, *, progress: bool = False
    ) -> list[list[Hit]]:
        """:meth:`search` for many questions, encoded and searched together."""
        return self.dense().search_many(questions, k, progress=progress)

    def search_vectors(self, queries: ArrayLike, k: int) -> list[list[Hit]]:
        """:meth:`search` for questions that are encoded already: vectors (Q, D) of length 1."""
        return self._snapshot.search(np.asarray(queries, np.float32), k)

    # -- changing ----------------------------------------------------------------------------------

    def add(
        self,
        documents: Iterable[Document],
        *,
        progress: bool = False,
        report: Report | None = None,
    ) -> Changes:
        """Add documents that are not there yet.

        Parameters
        ----------
        report : Report, optional
            Collects what the encoder will not see whole; see :func:`minirag.text.chunking.chunk`.

        Raises
        ------
        UsageError
            If an id is there already (see :meth:`upsert`), or comes twice; nothing is added.
        """
        new = _distinct(documents)
        with self._writing:
            for document in new:
                if document.id in self:
                    raise UsageError(
                        f"there is a document {document.id!r} already: use upsert to replace it."
                    )
            return self._update([], new, progress, report)

    def change(
        self, document: Document, *, progress: bool = False, report: Report | None = None
    ) -> Changes:
        """Replace the document of the same id, which must be there."""
        with self._writing:
            self.document(document.id)
            return self._update([], [document], progress, report)

    def upsert(
        self,
        documents: Iterable[Document],
        *,
        progress: bool = False,
        report: Report | None = None,
    ) -> Changes:
        """Add documents, replacing those whose ids are there; equal ones are left alone."""
        new = _distinct(documents)
        with self._writing:
            return self._update([], new, progress, report)

    def delete(self, ids: str | Iterable[str]) -> Changes:
        """Delete documents; if one is not there, none is deleted and UsageError raised."""
        gone = [ids] if isinstance(ids, str) else list(dict.fromkeys(ids))
        with self._writing:
            for id in gone:
                self.document(id)
            return self._update(gone, [], False, None)

    def update_from(
        self,
        source: Path | str | Iterable[Document],
        *,
        progress: bool = False,
        report: Report | None = None,
    ) -> Changes:
        """Make the knowledge base hold exactly the documents of a source, touching what changed.

        Parameters
        ----------
        source : path or documents
            A path is read by :func:`minirag.text.readers.read_documents`. Documents that the
            source does not have (any more) are removed; equal ones are not encoded again.
        report : Report, optional
            Collects what was left out in reading, too.

        Raises
        ------
        DocumentError
            If nothing can be read at the path; the knowledge base stays as it is.
        """
        if isinstance(source, Path | str):
            source = read_documents(source, report)
        new = _distinct(source)
        with self._writing:
            gone = self._snapshot.documents.keys() - {document.id for document in new}
            return self._update(sorted(gone), new, progress, report)

    def _update(
        self, drop: Sequence[str], new: Sequence[Document], progress: bool, report: Report | None
    ) -> Changes:
        """Encode what is new, then show the next state; whatever fails, fails before that."""
        before = self._snapshot
        differing, relabelled = [], []
        for document in new:
            known = before.documents.get(document.id)
            if known is None or not _same_passages(known, document):
                differing.append(document)
            elif known != document:
                relabelled.append(document)
        entries = self._encode(differing, progress, report)
        self._snapshot = before.changed(drop, entries, relabelled)
        n_changed = sum(document.id in before.documents for document in differing)
        return Changes(
            added=len(differing) - n_changed,
            changed=n_changed,
            removed=len(drop),
            unchanged=len(new) - len(differing),
            encoded=sum(len(entry.passages) for entry in entries),
        )

    def _encode(
        self, documents: Sequence[Document], progress: bool, report: Report | None
    ) -> list[Entry]:
        tokenizer = self.encoder.tokenizer
        cut = [
            chunk(document, tokenizer, size=self.size, overlap=self.overlap, report=report)
            for document in tqdm(
                documents,
                desc="cutting",
                unit=" documents",
                disable=not (progress and documents),
                leave=False,
            )
        ]
        texts = [passage_text_for_encoder(passage) for passages in cut for passage in passages]
        vectors = encode_checked(self.encoder, texts, progress=progress)  # (P, D)
        entries, start = [], 0
        for document, passages in zip(documents, cut, strict=True):
            stop = start + len(passages)
            entries.append(Entry(document, passages, vectors[start:stop]))
            start = stop
        return entries

    # -- saving ------------------------------------------------------------------------------------

    def save(self, directory: Path | str) -> None:
        """Save into ``directory``: all or nothing, with checksums, what was there replaced last.

        Raises
        ------
        DiskError
            If writing fails; what was saved before is untouched.
        """
        with self._writing:
            snapshot = self._snapshot
            info = StoredInfo(
                encoder_name=self.encoder.name,
                encoder_fingerprint=self.encoder.fingerprint,
                dim=self.encoder.dim,
                size=self.size,
                overlap=self.overlap,
                n_documents=len(snapshot.documents),
                n_passages=len(snapshot.passages),
                n_lists=len(snapshot.centroids),
                trained_skew=snapshot.trained_skew,
            )
            save_snapshot(Path(directory), snapshot, info)

    @staticmethod
    def info(directory: Path | str) -> StoredInfo:
        """What is saved in ``directory``: the encoder it needs, its settings and counts.

        Raises
        ------
        StoreError
            If there is no knowledge base, or it is damaged.
        """
        return read_info(Path(directory))

    @classmethod
    def load(
        cls, directory: Path | str, encoder: TextEncoder, *, verify: bool = True
    ) -> KnowledgeBase:
        """Read what :meth:`save` wrote; ``verify`` compares the files' checksums, too.

        Raises
        ------
        StoreError
            If something is missing or damaged, or it was built with another encoder.
        """
        snapshot, info = load_snapshot(Path(directory), verify=verify)
        if (info.encoder_fingerprint, info.dim) != (encoder.fingerprint, encoder.dim):
            raise StoreError(
                f"{directory} was built with the encoder {info.encoder_name} "
                f"({info.encoder_fingerprint[:12]}), and {encoder.name} "
                f"({encoder.fingerprint[:12]}) was given: their vectors can't be compared. "
                f"Load it with {info.encoder_name}, or build it again."
            )
        try:
            base = cls(encoder, size=info.size, overlap=info.overlap)
        except UsageError as error:
            raise StoreError(f"{directory} can't be used: {error}") from error
        base._snapshot = snapshot
        return base


@dataclass(frozen=True)
class _Live:
    base: KnowledgeBase
    kind: str

    def search(self, question: str, k: int) -> list[Hit]:
        return self.base.retriever(self.kind).search(question, k)


def _distinct(documents: Iterable[Document]) -> list[Document]:
    found: dict[str, Document] = {}
    for document in documents:
        if not document.id:
            raise UsageError("a document has no id: give it one.")
        if document.id in found:
            raise UsageError(f"the document id {document.id!r} was given twice.")
        found[document.id] = document
    return list(found.values())


def _same_passages(a: Document, b: Document) -> bool:
    """Whether two documents of one id are cut and encoded alike (their sources may differ)."""
    return (a.text, a.title, is_markdown(a.source)) == (b.text, b.title, is_markdown(b.source))
