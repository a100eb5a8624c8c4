"""BM25: passages by the words they share with the question, rare words counting most.

Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009), as Lucene
computes it: a passage's score is the sum over the question's words of ::

    idf · tf / (tf + k1 · (1 - b + b · length / mean length))
    idf = ln(1 + (N - df + ½) / (df + ½))

where tf is how often the word stands in the passage and df in how many of the N passages.
"""

from __future__ import annotations

import json
import re
import threading
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minirag.errors import StoreError, UsageError
from minirag.files import load_set, save_set
from minirag.retrieval.ids import Ids, as_ids, check_distinct, check_held, ids_for, one_id_each
from minirag.retrieval.storage import (
    files_named,
    open_array,
    text_writer_of,
    whole_number,
    writer_of,
)
from minirag.retrieval.vectors import Floats, as_count

KIND = "bm25-index"
_WORD = re.compile(r"\w+")


def words(text: str) -> list[str]:
    """Runs of letters and digits, in small letters; accents stay."""
    return _WORD.findall(unicodedata.normalize("NFC", text).lower())


@dataclass(frozen=True)
class _Counts:
    """One passage: which words it has, and how often each."""

    terms: NDArray[np.int32]  # (different words,)
    tf: NDArray[np.int32]


@dataclass(frozen=True)
class _Postings:
    """For each word the passages that have it, and what it adds to their scores."""

    ids: Ids  # (n,) ascending
    vocabulary: dict[str, int]
    start: NDArray[np.int64]  # (V + 1,) where each word's postings begin
    text: NDArray[np.int32]  # (postings,) row in ids
    weight: Floats  # (postings,)


class BM25:
    """A lexical index, with the ids and the rules of ``FlatIndex``.

    The postings are made anew at the first search after an update (about 0.1 s for 5,000
    passages). Any thread may search while another one updates: a search sees the state before or
    after an update, never between.

    Parameters
    ----------
    k1 : float
        How fast repeating a word stops to count; 0 or more.
    b : float
        How much long passages are held back; 0 to 1.
    tokenize : function
        Text to words, for passages and questions alike.
    """

    def __init__(
        self, k1: float = 1.5, b: float = 0.75, tokenize: Callable[[str], list[str]] = words
    ) -> None:
        if not (k1 >= 0 and 0 <= b <= 1):
            raise UsageError(f"k1 = {k1}, b = {b}: give a k1 of 0 or more and a b from 0 to 1.")
        self.k1, self.b, self.tokenize = float(k1), float(b), tokenize
        self._lock = threading.RLock()
        self._counts: dict[int, _Counts] = {}
        self._vocabulary: dict[str, int] = {}
        self._next_id = 0
        self._postings: _Postings | None = None  # None after an update

    def __len__(self) -> int:
        return len(self._counts)

    def __contains__(self, id: int) -> bool:
        return id in self._counts

    @property
    def ids(self) -> Ids:
        """All ids, ascending (n,)."""
        ids: Ids = self._current().ids.copy()
        return ids

    # -- updating ----------------------------------------------------------------------------------

    def add(
        self, texts: Sequence[str], ids: int | Collection[int] | NDArray[Any] | None = None
    ) -> Ids:
        """Add texts under new ids, by default counted on from the highest ever used.

        Raises
        ------
        UsageError
            If an id is held already (see :meth:`upsert`) or given twice.
        """
        texts = _as_texts(texts)
        with self._lock:
            new = ids_for(len(texts), "texts", ids, self._next_id, self._counts)
            self._put(texts, new)
        return new

    def upsert(self, texts: Sequence[str], ids: int | Collection[int] | NDArray[Any]) -> None:
        """Add texts, replacing those that are held under the same ids."""
        texts = _as_texts(texts)
        new = one_id_each(len(texts), "texts", ids)
        with self._lock:
            self._put(texts, new)

    def remove(self, ids: int | Collection[int] | NDArray[Any]) -> None:
        """Take texts out; an unknown id is refused, and then none is removed."""
        gone = as_ids(ids)
        check_distinct(gone)
        with self._lock:
            check_held(gone, self._counts)
            for id in gone.tolist():
                del self._counts[id]
            self._postings = None

    def _put(self, texts: Sequence[str], ids: Ids) -> None:
        counts = [Counter(self.tokenize(text)) for text in texts]
        for id, count in zip(ids.tolist(), counts, strict=True):
            terms = [self._vocabulary.setdefault(term, len(self._vocabulary)) for term in count]
            self._counts[id] = _Counts(
                np.array(terms, np.int32), np.array(list(count.values()), np.int32)
            )
        self._next_id = max(self._next_id, int(ids.max(initial=-1)) + 1)
        self._postings = None

    # -- searching ---------------------------------------------------------------------------------

    def search(
        self, query: str, k: int, *, allowed: Collection[int] | NDArray[Any] | None = None
    ) -> tuple[Floats, Ids]:
        """The k best texts for a query, among those that share a word with it.

        Parameters
        ----------
        allowed : ids, optional
            Search among these alone; the word statistics stay those of all texts.

        Returns
        -------
        scores, ids
            float32 and int64, each (k,) or shorter; best first, equal scores by id ascending.
        """
        postings = self._current()
        scores = self._scores(postings, query)
        if allowed is not None:
            scores[~np.isin(postings.ids, as_ids(allowed))] = 0.0
        k = min(as_count(k), int(np.count_nonzero(scores)))
        if k == 0:
            return np.empty(0, np.float32), np.empty(0, np.int64)
        kth = np.partition(scores, len(scores) - k)[len(scores) - k]
        best = np.flatnonzero(scores >= kth)  # ids ascending, and the sort is stable
        best = best[np.argsort(-scores[best], kind="stable")][:k]
        return scores[best], postings.ids[best]

    def scores(self, query: str) -> Floats:
        """The scores of all texts (n,), in the order of :attr:`ids`.

        A word that the query has twice counts twice.
        """
        return self._scores(self._current(), query)

    def shared(self, query: str, ids: Ids) -> Floats:
        """How much of a query some texts (k,) hold: scores that compare between collections.

        A score grows with the collection, since a rare word weighs ln n. Here the unit is the
        weight, idf, of a word that a single text has: a name that stands once in a text of mean
        length is worth 1 / (1 + k1), one that the text is all about nearly 1.
        """
        postings = self._current()
        n = len(postings.ids)
        rarest = np.float32(np.log(1 + (n - 0.5) / 1.5))
        shared: Floats = self._scores(postings, query)[np.searchsorted(postings.ids, ids)] / rarest
        return shared

    def _scores(self, postings: _Postings, query: str) -> Floats:
        asked = [postings.vocabulary.get(term, -1) for term in self.tokenize(query)]
        known = [term for term in asked if 0 <= term < len(postings.start) - 1]
        parts = [slice(postings.start[term], postings.start[term + 1]) for term in known]
        if not parts:
            return np.zeros(len(postings.ids), np.float32)
        text = np.concatenate([postings.text[part] for part in parts])
        weight = np.concatenate([postings.weight[part] for part in parts])
        return np.bincount(text, weight, minlength=len(postings.ids)).astype(np.float32)

    def _current(self) -> _Postings:
        postings = self._postings
        if postings is None:
            with self._lock:
                postings = self._postings or self._invert()
                self._postings = postings
        return postings

    def _columns(self) -> tuple[Ids, NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]:
        """Ids (n,) ascending, where each text's words begin (n + 1,), the words, how often each."""
        ids = np.array(sorted(self._counts), np.int64)
        counts = [self._counts[id] for id in ids.tolist()]
        start = np.cumsum([0, *(len(count.terms) for count in counts)])
        none = np.empty(0, np.int32)
        terms = np.concatenate([none, *(count.terms for count in counts)])
        return ids, start, terms, np.concatenate([none, *(count.tf for count in counts)])

    def _invert(self) -> _Postings:
        ids, first, terms, tf = self._columns()
        n = len(ids)
        text = np.repeat(np.arange(n, dtype=np.int32), np.diff(first))
        length = np.bincount(text, weights=tf, minlength=n)  # (n,) words in each
        df = np.bincount(terms, minlength=len(self._vocabulary))
        idf = np.log(1 + (n - df + 0.5) / (df + 0.5))
        relative = length / length.mean() if length.any() else length
        weight = idf[terms] * tf / (tf + self.k1 * (1 - self.b + self.b * relative[text]))
        order = np.argsort(terms, kind="stable")
        start = np.concatenate(([0], np.cumsum(df)))
        return _Postings(
            ids, self._vocabulary, start, text[order], weight[order].astype(np.float32)
        )

    def copy(self) -> BM25:
        """An independent index of the same content; the texts' words are shared."""
        other = BM25(self.k1, self.b, self.tokenize)
        with self._lock:
            other._counts, other._vocabulary = dict(self._counts), dict(self._vocabulary)
            other._next_id, other._postings = self._next_id, self._postings
        return other

    # -- saving ------------------------------------------------------------------------------------

    def save(self, directory: Path | str) -> None:
        """Save into ``directory``; see :meth:`FlatIndex.save`. ``tokenize`` is not saved."""
        with self._lock:
            ids, start, terms, tf = self._columns()
            vocabulary, next_id = list(self._vocabulary), self._next_id
        used, number = np.unique(terms, return_inverse=True)  # words of removed texts are left out
        text = json.dumps([vocabulary[term] for term in used.tolist()])
        files: dict[str, Callable[[Path], None]] = {
            "ids.npy": writer_of(ids),
            "start.npy": writer_of(start.astype(np.int64)),
            "terms.npy": writer_of(number.astype(np.int32)),
            "tf.npy": writer_of(tf),
            "vocabulary.json": text_writer_of(text),
        }
        meta = {
            "k1": self.k1,
            "b": self.b,
            "count": len(ids),
            "pairs": len(terms),
            "words": len(used),
            "next_id": next_id,
        }
        save_set(Path(directory), KIND, files, meta)

    @classmethod
    def load(
        cls,
        directory: Path | str,
        *,
        tokenize: Callable[[str], list[str]] = words,
        verify: bool = True,
    ) -> BM25:
        """Read what :meth:`save` wrote; ``tokenize`` must be the function it was built with.

        Raises
        ------
        StoreError
            If something is missing, damaged, or not such an index.
        """
        meta, paths = load_set(Path(directory), KIND, verify=verify)
        n, pairs, n_words = (whole_number(meta, key) for key in ("count", "pairs", "words"))
        names = ("ids.npy", "start.npy", "terms.npy", "tf.npy", "vocabulary.json")
        *arrays, vocabulary_file = files_named(paths, *names)
        ids = open_array(arrays[0], np.int64, (n,))
        start = open_array(arrays[1], np.int64, (n + 1,))
        terms = open_array(arrays[2], np.int32, (pairs,))
        tf = open_array(arrays[3], np.int32, (pairs,))
        try:
            vocabulary = json.loads(vocabulary_file.read_bytes())
            index = cls(meta["k1"], meta["b"], tokenize)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise StoreError(f"{directory} is damaged ({error}): build the index again.") from None
        text = np.repeat(np.arange(n), np.maximum(np.diff(start), 0)) if pairs else np.empty(0)
        index._next_id = whole_number(meta, "next_id", 2**63)
        right = (
            isinstance(vocabulary, list)
            and all(isinstance(word, str) for word in vocabulary)
            and len(set(vocabulary)) == n_words == len(vocabulary)
            and start[0] == 0
            and start[-1] == pairs
            and np.all(np.diff(start) >= 0)
            and (n == 0 or (np.all(np.diff(ids) > 0) and ids[0] >= 0 and ids[-1] < index._next_id))
            and (pairs == 0 or (tf.min() > 0 and terms.min() >= 0 and terms.max() < n_words))
            and len(np.unique(text * n_words + terms)) == pairs  # no word twice in one text
        )
        if not right:
            raise StoreError(f"{directory} holds impossible postings: build the index again.")
        index._vocabulary = {word: number for number, word in enumerate(vocabulary)}
        for row, id in enumerate(ids.tolist()):
            part = slice(start[row], start[row + 1])
            index._counts[id] = _Counts(terms[part], tf[part])
        return index


def _as_texts(texts: Sequence[str]) -> list[str]:
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        raise UsageError("texts must be a list of strings, one for each passage.")
    return list(texts)
