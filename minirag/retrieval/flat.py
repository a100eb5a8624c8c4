"""The exact index: every vector is compared with every query.

:meth:`FlatIndex.search` for one query is the definition of the right answer (product, select,
sort); whatever is faster, :mod:`minirag.retrieval.blocked` for batches and
:mod:`minirag.retrieval.ivf` for large collections, is tested against it.
"""

from __future__ import annotations

import threading
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minirag.errors import StoreError, UsageError
from minirag.files import load_set, save_set
from minirag.retrieval.blocked import search_blocked
from minirag.retrieval.storage import files_named, open_array, space_of, whole_number, writer_of
from minirag.retrieval.vectors import (
    LARGEST_NORM,
    Floats,
    Ids,
    Metric,
    Rows,
    as_count,
    as_ids,
    as_vectors,
    best_first,
    check_distinct,
    check_space,
    exact_scores,
    half_squares,
    product_error,
    row_norms,
)

KIND = "flat-index"
LARGE = 50_000  # rows from which the blocked form is the faster one for a single query too


def search_one(
    rows: Rows, query: Floats, query_norm: NDArray[np.float64], k: int, metric: Metric
) -> tuple[Floats, Ids]:
    """The k best of ``rows`` for one query (D,), its norm (1,): product, select, sort."""
    products = rows.vectors @ query  # (N,)
    if rows.half_squares is not None:
        products -= rows.half_squares
    products[rows.dead] = -np.inf
    kth = np.partition(products, -k)[-k]
    error = product_error(metric, len(query), rows.largest_norm, query_norm)
    near = np.flatnonzero(products >= kth - 2 * error)  # nothing else can be among the k best
    scores = exact_scores(rows.vectors[near], query, metric)
    order = best_first(scores, rows.ids[near], metric)[:k]
    return scores[order], rows.ids[near[order]]


class FlatIndex:
    """Exact nearest-neighbour search over vectors in memory, with ids that stay.

    Results come best first, equal scores by id ascending; there are min(k, n) of them, never a
    padding. Any thread may search while another one updates: a search sees the state before or
    after an update, never between.

    Parameters
    ----------
    dim : int
        D, the vectors' dimension.
    metric : {"cosine", "ip", "l2"}
        Cosine (both sides are normalised; a zero vector scores 0), inner product, or squared
        Euclidean distance (the smaller the better).
    """

    def __init__(self, dim: int, metric: Metric = "cosine") -> None:
        check_space(dim, metric)
        self.dim = int(dim)
        self.metric: Metric = metric
        # Updates take the lock and end by replacing `_seen`, one assignment; searches read `_seen`
        # once and work on what they got. Rows are written only where no `Rows` reaches yet.
        self._lock = threading.RLock()
        self._vectors: Floats = np.empty((0, self.dim), np.float32)  # (capacity, D)
        self._ids: Ids = np.empty(0, np.int64)
        self._half_squares: Floats = np.empty(0, np.float32)
        self._row_of: dict[int, int] = {}
        self._next_id = 0
        self._show(0, np.empty(0, np.intp), 0.0)

    def __len__(self) -> int:
        return self._seen.n_live

    def __contains__(self, id: int) -> bool:
        return id in self._row_of

    @property
    def ids(self) -> Ids:
        """All ids, ascending (n,)."""
        seen = self._seen
        return np.sort(np.delete(seen.ids, seen.dead))

    # -- searching ---------------------------------------------------------------------------------

    def search(
        self, queries: ArrayLike, k: int, *, allowed: Collection[int] | NDArray[Any] | None = None
    ) -> tuple[Floats, Ids]:
        """The k nearest vectors of each query.

        Parameters
        ----------
        queries : (Q, D) or (D,)
            One dimension counts as one query.
        k : int
            How many to return; fewer come if the index (or ``allowed``) holds fewer.
        allowed : ids, optional
            Search among these alone; ids that the index doesn't hold are passed over.

        Returns
        -------
        scores, ids
            float32 and int64, both (Q, min(k, n)). For one index the scores depend on the two
            vectors alone, to the last bit: not on k, on the batch, or on what else is held.
        """
        queries, norms = as_vectors(queries, self.dim, self.metric, "queries")
        rows = self._seen if allowed is None else self._only(allowed)
        k = min(as_count(k), rows.n_live)
        if len(queries) != 1 or k == 0 or len(rows.ids) > LARGE:
            return search_blocked(rows, queries, norms, k, self.metric)
        scores, ids = search_one(rows, queries[0], norms, k, self.metric)
        return scores[None], ids[None]

    def _only(self, allowed: Collection[int] | NDArray[Any]) -> Rows:
        with self._lock:  # the rows and the table of ids must be of one state
            found = [self._row_of.get(id) for id in np.unique(as_ids(allowed)).tolist()]
            seen = self._seen
        return seen.only(np.sort(np.array([row for row in found if row is not None], np.intp)))

    def get(self, ids: int | Collection[int] | NDArray[Any]) -> Floats:
        """Copies (n, D) of the vectors held under ``ids``, in their order.

        Under cosine they are the normalised ones.

        Raises
        ------
        UsageError
            If an id is not in the index.
        """
        wanted = as_ids(ids)
        with self._lock:
            rows, seen = self._rows_of(wanted), self._seen
        return seen.vectors[rows]

    # -- updating: check first, change after, so that a refused call changes nothing ---------------

    def add(self, x: ArrayLike, ids: int | Collection[int] | NDArray[Any] | None = None) -> Ids:
        """Add vectors (n, D) under new ids.

        Parameters
        ----------
        ids : (n,), optional
            Default: numbers counted on from the highest ever used, so that the id of a removed
            vector does not come back by itself.

        Returns
        -------
        (n,) int64
            The ids.

        Raises
        ------
        UsageError
            If an id is held already (see :meth:`upsert`) or given twice, or a vector is refused.
        """
        vectors, norms = as_vectors(x, self.dim, self.metric, "vectors")
        with self._lock:
            new = self._new_ids(len(vectors)) if ids is None else as_ids(ids)
            self._check_pairs(vectors, new)
            known = next((id for id in new.tolist() if id in self._row_of), None)
            if known is not None:
                raise UsageError(f"id {known} is in the index already: use upsert to replace it.")
            self._change(remove=np.empty(0, np.int64), vectors=vectors, norms=norms, add=new)
        return new

    def upsert(self, x: ArrayLike, ids: int | Collection[int] | NDArray[Any]) -> None:
        """Add vectors (n, D), replacing those that are held under the same ids (n,)."""
        vectors, norms = as_vectors(x, self.dim, self.metric, "vectors")
        new = as_ids(ids)
        self._check_pairs(vectors, new)
        with self._lock:
            known = np.array([id for id in new.tolist() if id in self._row_of], np.int64)
            self._change(remove=known, vectors=vectors, norms=norms, add=new)

    def remove(self, ids: int | Collection[int] | NDArray[Any]) -> None:
        """Take vectors out; an unknown id is refused, and then none is removed."""
        gone = as_ids(ids)
        check_distinct(gone)
        none = np.empty((0, self.dim), np.float32)
        with self._lock:
            self._change(remove=gone, vectors=none, norms=np.empty(0), add=gone[:0])

    def _new_ids(self, n: int) -> Ids:
        if self._next_id + n > np.iinfo(np.int64).max:
            raise UsageError("the ids up to 2**63 - 1 are used up: give ids yourself.")
        return np.arange(self._next_id, self._next_id + n, dtype=np.int64)

    def _check_pairs(self, vectors: Floats, ids: Ids) -> None:
        if len(vectors) != len(ids):
            raise UsageError(f"{len(vectors)} vectors came with {len(ids)} ids: give one id each.")
        check_distinct(ids)

    def _rows_of(self, ids: Ids) -> NDArray[np.intp]:
        try:
            return np.array([self._row_of[id] for id in ids.tolist()], np.intp)
        except KeyError as error:
            raise UsageError(f"id {error} is not in the index.") from None

    def _change(self, remove: Ids, vectors: Floats, norms: NDArray[np.float64], add: Ids) -> None:
        """Remove, then add, then show both at once. A replaced vector gets a new row."""
        gone = np.sort(self._rows_of(remove))
        dead = self._seen.dead
        dead = np.insert(dead, np.searchsorted(dead, gone), gone)
        start = len(self._seen.ids)
        stop = start + len(add)
        if len(add):  # else the arrays may be a mapped file's, which refuses even to write nothing
            self._reserve(stop)
            self._vectors[start:stop] = vectors
            self._half_squares[start:stop] = half_squares(norms)
            self._ids[start:stop] = add
        for id in remove.tolist():
            del self._row_of[id]
        self._row_of.update(zip(add.tolist(), range(start, stop), strict=True))
        self._next_id = max(self._next_id, int(add.max(initial=-1)) + 1)
        self._show(stop, dead, max(self._seen.largest_norm, float(norms.max(initial=0.0))))
        if 4 * len(dead) > stop:
            self._compact()

    def _reserve(self, n: int) -> None:
        """Make room for n rows, by half as much again, so that adding one by one stays cheap."""
        if n <= len(self._ids):
            return
        used, room = len(self._seen.ids), max(n, len(self._ids) * 3 // 2, 16)
        vectors, ids, half = self._vectors, self._ids, self._half_squares
        self._vectors = np.empty((room, self.dim), np.float32)
        self._ids, self._half_squares = np.empty(room, np.int64), np.empty(room, np.float32)
        self._vectors[:used], self._ids[:used] = vectors[:used], ids[:used]
        self._half_squares[:used] = half[:used]

    def _compact(self) -> None:
        """Copy the living rows into arrays of their own; done when a quarter is dead."""
        dead = self._seen.dead
        live = np.delete(np.arange(len(self._seen.ids)), dead)
        self._vectors, self._ids = self._vectors[live], self._ids[live]
        self._half_squares = self._half_squares[live]
        self._row_of = dict(zip(self._ids.tolist(), range(len(live)), strict=True))
        self._show(len(live), dead[:0], float(row_norms(self._vectors).max(initial=0.0)))

    def _show(self, n: int, dead: NDArray[np.intp], largest_norm: float) -> None:
        half = self._half_squares[:n] if self.metric == "l2" else None
        self._seen = Rows(self._vectors[:n], self._ids[:n], half, largest_norm, dead)

    def copy(self) -> FlatIndex:
        """An independent index of the same content: changing one leaves the other as it is."""
        other = FlatIndex(self.dim, self.metric)
        with self._lock:
            seen = self._seen
            other._vectors = np.array(self._vectors)
            other._ids, other._half_squares = self._ids.copy(), self._half_squares.copy()
            other._row_of, other._next_id = dict(self._row_of), self._next_id
        other._show(len(seen.ids), seen.dead, seen.largest_norm)
        return other

    # -- saving ------------------------------------------------------------------------------------

    def save(self, directory: Path | str) -> None:
        """Save into ``directory``: all or nothing, with checksums, what was there replaced last.

        Raises
        ------
        DiskError
            If writing fails; what was saved before is untouched.
        """
        with self._lock:
            if len(self._seen.dead):
                self._compact()
            seen, next_id = self._seen, self._next_id
        meta = {"dim": self.dim, "metric": self.metric, "count": seen.n_live, "next_id": next_id}
        files = {"vectors.npy": writer_of(seen.vectors), "ids.npy": writer_of(seen.ids)}
        save_set(Path(directory), KIND, files, meta)

    @classmethod
    def load(cls, directory: Path | str, *, mmap: bool = False, verify: bool = True) -> FlatIndex:
        """Read what :meth:`save` wrote.

        Parameters
        ----------
        mmap : bool
            Leave the vectors on disk, read when searched; the first ``add`` copies them to memory.
        verify : bool
            Compare the checksums of all files.

        Raises
        ------
        StoreError
            If something is missing, damaged, or not an index.
        """
        meta, paths = load_set(Path(directory), KIND, verify=verify)
        vector_file, id_file = files_named(paths, "vectors.npy", "ids.npy")
        n, (dim, metric) = whole_number(meta, "count"), space_of(meta)
        index = cls(dim, metric)
        index._ids = open_array(id_file, np.int64, (n,))
        index._vectors = open_array(vector_file, np.float32, (n, dim), mmap=mmap)
        norms = row_norms(index._vectors)
        index._half_squares = half_squares(norms)
        index._row_of = dict(zip(index._ids.tolist(), range(n), strict=True))
        index._next_id = whole_number(meta, "next_id", 2**63)
        ids_fit = n == 0 or (index._ids.min() >= 0 and index._ids.max() < index._next_id)
        if not (ids_fit and len(index._row_of) == n and np.all(norms <= LARGEST_NORM)):
            raise StoreError(
                f"{directory} holds doubled ids or impossible vectors: build it again."
            )
        index._show(n, np.empty(0, np.intp), float(norms.max(initial=0.0)))
        return index
