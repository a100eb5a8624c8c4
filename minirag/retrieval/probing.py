"""Search in the lists nearest to a query: the step that makes an IVF index fast, and not exact.

A batch is answered list by list, one matrix product for all queries that probe the list. Before
that, a part of each query's nearest list has settled a score that little else reaches.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from minirag.retrieval.candidates import Candidates
from minirag.retrieval.ids import Ids
from minirag.retrieval.rows import Centroids, RowNumbers, Rows
from minirag.retrieval.vectors import (
    Floats,
    Metric,
    best_first,
    exact_scores,
    near_best,
    product_error,
)

QUERIES_PER_PASS = 2048  # bounds the table of queries × lists
SETTLING = 8  # an eighth of the nearest list settles the first score to reach


@dataclass
class Scan:
    """What a search looked at; give one to ``IVFIndex.search``, which fills it in."""

    held: int = 0  # vectors that it might have found
    lists: NDArray[np.int64] | None = None  # (Q,) lists probed
    vectors: NDArray[np.int64] | None = None  # (Q,) vectors in them

    @property
    def share(self) -> float:
        """Vectors looked at per query, as a share of all."""
        looked_at = 0.0 if self.vectors is None or not len(self.vectors) else self.vectors.mean()
        return float(looked_at) / max(self.held, 1)


def search_lists(
    rows: Rows,
    queries: Floats,
    query_norms: NDArray[np.float64],
    k: int,
    nprobe: int,
    metric: Metric,
) -> tuple[Floats, Ids, NDArray[np.int64], NDArray[np.int64]]:
    """The k best rows (k live at least) of each query's ``nprobe`` nearest lists.

    Where these hold fewer than k, twice as many are probed, until they hold enough.

    Returns
    -------
    scores, ids
        (Q, k) each, best first.
    lists, vectors
        (Q,) each: how many were looked at.
    """
    errors = product_error(metric, queries.shape[1], rows.largest_norm, query_norms)
    if len(queries) == 1 and k > 0:
        probed = _lists_of_one(rows, queries[0], query_norms, k, nprobe, metric)
        best, ids = _search_one(rows, queries[0], k, probed, metric, errors)
        return best[None], ids[None], np.array([len(probed)]), rows.live[probed].sum(keepdims=True)
    scores = np.empty((len(queries), k), np.float32)
    ids = np.empty((len(queries), k), np.int64)
    lists, vectors = np.zeros(len(queries), np.int64), np.zeros(len(queries), np.int64)
    for start in range(0, len(queries) if k else 0, QUERIES_PER_PASS):
        batch = slice(start, start + QUERIES_PER_PASS)
        some, norms = queries[batch], query_norms[batch]
        near, nearest = _lists_of_many(rows, some, norms, k, nprobe, metric)
        lists[batch], vectors[batch] = near.sum(axis=1), near @ rows.live
        found = _search_many(rows, some, k, near, nearest, metric, errors[batch])
        scores[batch], ids[batch] = found
    return scores, ids, lists, vectors


# -- which lists -----------------------------------------------------------------------------------


def _lists_of_one(
    rows: Rows,
    query: Floats,
    query_norm: NDArray[np.float64],
    k: int,
    nprobe: int,
    metric: Metric,
) -> RowNumbers:
    """The numbers of the lists that one query (D,) probes."""
    assert rows.centroids is not None
    centroids, n_lists = rows.centroids, len(rows.size)
    products = centroids.vectors @ query  # (lists,)
    if metric == "l2":
        products -= centroids.half_squares
    error = product_error(metric, len(query), centroids.largest_norm, query_norm)
    while nprobe < n_lists:
        kth = np.partition(products, n_lists - nprobe)[n_lists - nprobe]
        near: RowNumbers = (products >= kth - 2 * error).nonzero()[0]
        if len(near) > nprobe:
            near = _decided(centroids, query, near, nprobe, metric)
        if rows.live[near].sum() >= k:
            return near
        nprobe = 2 * nprobe
    return np.arange(n_lists)


def _lists_of_many(
    rows: Rows,
    queries: Floats,
    query_norms: NDArray[np.float64],
    k: int,
    nprobe: int,
    metric: Metric,
) -> tuple[NDArray[np.bool_], RowNumbers]:
    """Which lists each query probes (Q, lists), and the nearest of *those* (Q,).

    The rows of the nearest settle the first threshold, so it must be among the lists probed.
    """
    assert rows.centroids is not None
    centroids, n_lists = rows.centroids, len(rows.size)
    products = queries @ centroids.vectors.T  # (Q, lists)
    if metric == "l2":
        products -= centroids.half_squares
    errors = product_error(metric, queries.shape[1], centroids.largest_norm, query_norms)
    near = np.ones(products.shape, bool)
    open_ones = np.arange(len(queries))  # queries whose lists are not settled
    while len(open_ones) and nprobe < n_lists:
        some = products[open_ones]
        kth = np.partition(some, n_lists - nprobe, axis=1)[:, n_lists - nprobe]
        near[open_ones] = some >= (kth - 2 * errors[open_ones])[:, None]
        for query in open_ones[np.count_nonzero(near[open_ones], axis=1) > nprobe]:
            lists = near[query].nonzero()[0]
            near[query] = False
            near[query, _decided(centroids, queries[query], lists, nprobe, metric)] = True
        open_ones = open_ones[near[open_ones] @ rows.live < k]
        nprobe = 2 * nprobe
    near[open_ones] = True
    nearest = products.argmax(axis=1)
    left_out = np.flatnonzero(~near[np.arange(len(near)), nearest])  # by exact scores: rare
    nearest[left_out] = np.where(near[left_out], products[left_out], -np.inf).argmax(axis=1)
    return near, nearest


def _decided(
    centroids: Centroids, query: Floats, lists: RowNumbers, nprobe: int, metric: Metric
) -> RowNumbers:
    """Of ``lists``, as near as rounding can tell, the ``nprobe`` that exact scores call nearest.

    So a query probes the same lists alone and in a batch.
    """
    scores = exact_scores(centroids.vectors[lists], query, metric)
    return np.sort(lists[best_first(scores, lists, metric)[:nprobe]])


# -- what is in them -------------------------------------------------------------------------------


def _search_one(
    rows: Rows, query: Floats, k: int, lists: RowNumbers, metric: Metric, error: Floats
) -> tuple[Floats, Ids]:
    """The k best rows of these lists for a query (D,): product, select, sort."""
    size, start = rows.size[lists], rows.start[lists]
    ends = size.cumsum()
    products = np.empty(int(ends[-1]), np.float32)
    vectors, some_dead = rows.vectors, len(rows.dead) > 0
    for at, n, end in zip(start.tolist(), size.tolist(), ends.tolist(), strict=True):
        part = np.dot(vectors[at : at + n], query, out=products[end - n : end])
        if metric == "l2":
            part -= rows.half_squares[at : at + n]
        if some_dead:
            part[rows.dead_between(at, at + n)] = -np.inf
    near = near_best(products, k, 2 * error)
    of = ends.searchsorted(near, side="right")  # the list of each
    row = near + (start + size - ends)[of]
    scores = exact_scores(vectors[row], query, metric)
    order = best_first(scores, rows.ids[row], metric)[:k]
    return scores[order], rows.ids[row[order]]


def _search_many(
    rows: Rows,
    queries: Floats,
    k: int,
    near: NDArray[np.bool_],
    nearest: RowNumbers,
    metric: Metric,
    errors: Floats,
) -> tuple[Floats, Ids]:
    """The k best rows of the lists marked ``near`` for each query, list by list."""
    found = Candidates(rows, queries, k, metric, errors)
    by_list = np.argsort(nearest, kind="stable")
    for number, who in _grouped(nearest[by_list], by_list):
        n = max(int(rows.size[number]) // SETTLING, 8 * k)
        products = _products(found, number, who, n)  # (at most n, q)
        if len(products) >= k:
            found.raise_to(np.partition(products.T, -k, axis=1)[:, -k], who)
    lists, of = np.nonzero(np.ascontiguousarray(near.T))
    for number, who in _grouped(lists, of):
        products = _products(found, number, who)  # (rows, q)
        hits = (products >= found.threshold[who]).ravel().nonzero()[0]
        row, one = np.divmod(hits, len(who))
        found.take(who[one], row + rows.start[number], products.ravel()[hits])
    return found.best()


def _grouped(lists: RowNumbers, queries: RowNumbers) -> Iterator[tuple[int, RowNumbers]]:
    """Each list (they come in order) with the queries that stand beside it."""
    ends = np.flatnonzero(np.diff(lists, append=-1)) + 1
    start = 0
    for end in ends.tolist():
        yield int(lists[start]), queries[start:end]
        start = end


def _products(found: Candidates, number: int, who: RowNumbers, most: int | None = None) -> Floats:
    """Products (n, q) of a list's rows, the first ``most`` of them, with the queries ``who``."""
    rows, at = found.rows, int(found.rows.start[number])
    stop = at + min(int(rows.size[number]), most or len(rows.ids))
    products: Floats = rows.vectors[at:stop] @ found.queries[who].T
    if found.metric == "l2":
        products -= rows.half_squares[at:stop, None]
    if len(rows.dead):
        products[rows.dead_between(at, stop)] = -np.inf
    return products
