"""The exact index: every vector is compared with every query.

:func:`search_one` is the definition of the right answer: product, select, sort. Whatever is faster,
:mod:`minirag.retrieval.blocked` for batches and :mod:`minirag.retrieval.ivf` for large collections,
is tested against it.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minirag.retrieval.blocked import search_blocked
from minirag.retrieval.ids import Ids
from minirag.retrieval.index_files import load_rows, save_rows
from minirag.retrieval.rows import Rows
from minirag.retrieval.store import VectorIndex
from minirag.retrieval.vectors import (
    Floats,
    Metric,
    as_count,
    as_vectors,
    best_first,
    exact_scores,
    near_best,
    product_error,
)

KIND = "flat-index"


def search_one(
    rows: Rows, query: Floats, query_norm: NDArray[np.float64], k: int, metric: Metric
) -> tuple[Floats, Ids]:
    """The k best of ``rows`` (one list) for a query (D,), its norm (1,): product, select, sort."""
    n = rows.size[0]
    products = rows.vectors[:n] @ query  # (N,)
    if metric == "l2":
        products -= rows.half_squares[:n]
    products[rows.dead] = -np.inf
    error = product_error(metric, len(query), rows.largest_norm, query_norm)
    near = near_best(products, k, 2 * error)  # nothing else can be among the k best
    scores = exact_scores(rows.vectors[near], query, metric)
    order = best_first(scores, rows.ids[near], metric)[:k]
    return scores[order], rows.ids[near[order]]


def search_all(
    rows: Rows, queries: Floats, norms: NDArray[np.float64], k: int, metric: Metric
) -> tuple[Floats, Ids]:
    """Scores and ids (Q, k) of the k best of ``rows`` (one list), whichever way is faster."""
    if len(queries) != 1 or k == 0:
        return search_blocked(rows, queries, norms, k, metric)
    scores, ids = search_one(rows, queries[0], norms, k, metric)
    return scores[None], ids[None]


class FlatIndex(VectorIndex):
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
            float32 and int64, both (Q, min(k, n)). On one machine a score depends on the two
            vectors alone, to the last bit: not on k, on the batch, or on what else is held.
        """
        queries, norms = as_vectors(queries, self.dim, self.metric, "queries")
        rows = self._only(allowed)
        return search_all(rows, queries, norms, min(as_count(k), rows.n_live), self.metric)

    def copy(self) -> FlatIndex:
        """An independent index of the same content: changing one leaves the other as it is.

        The vectors are shared until one of the two outgrows them, so that a copy costs little.
        """
        other = FlatIndex(self.dim, self.metric)
        self._copy_to(other)
        return other

    def save(self, directory: Path | str) -> None:
        """Save into ``directory``: all or nothing, with checksums, what was there replaced last.

        Raises
        ------
        DiskError
            If writing fails; what was saved before is untouched.
        """
        rows, next_id = self.state()
        save_rows(Path(directory), KIND, rows, self.metric, next_id)

    @classmethod
    def load(cls, directory: Path | str, *, mmap: bool = False, verify: bool = True) -> FlatIndex:
        """Read what :meth:`save` wrote.

        Parameters
        ----------
        mmap : bool
            Leave the vectors on disk, read when searched; the first ``add`` copies them to memory.
        verify : bool
            Compare the checksums of all files and look at every vector: all of them are read once.

        Raises
        ------
        StoreError
            If something is missing, damaged, or not an index.
        """
        rows, metric, next_id, _ = load_rows(Path(directory), KIND, mmap=mmap, verify=verify)
        index = cls(rows.vectors.shape[1], metric)
        index.hold(rows, next_id)
        return index
