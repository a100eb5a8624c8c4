"""Exact search for many queries, block by block, so that no N × Q matrix of scores is held.

A block of vectors times a batch of queries is one matrix product, its scores (about 2 MB) stay in
the processor's cache. Almost none of them matter: of each group of rows only the maximum is looked
at, and only groups whose maximum reaches the running k-th best score are opened.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from minirag.retrieval.store import Rows
from minirag.retrieval.vectors import (
    Floats,
    Ids,
    Metric,
    exact_scores,
    product_error,
)

SCORES_PER_BLOCK = 1 << 19  # 2 MB of float32
QUERIES_PER_PASS = 256  # enough that the products, not reading the vectors, take the time
GROUP = 32  # rows of which only the maximum is looked at
ENTRIES_PER_STEP = 1 << 14
LOWEST = np.finfo(np.float32).min  # any row that may be found scores higher; dead rows score -inf


def search_blocked(
    rows: Rows, queries: Floats, query_norms: NDArray[np.float64], k: int, metric: Metric
) -> tuple[Floats, Ids]:
    """Scores and ids (Q, k) of the k best ``rows`` (one list, k live at least) for each query."""
    scores = np.empty((len(queries), k), np.float32)
    ids = np.empty((len(queries), k), np.int64)
    errors = product_error(metric, queries.shape[1], rows.largest_norm, query_norms)
    for start in range(0, len(queries) if k else 0, QUERIES_PER_PASS):
        batch = slice(start, start + QUERIES_PER_PASS)
        found = Candidates(rows.vectors, rows.ids, queries[batch], k, metric, errors[batch])
        _one_pass(rows, queries[batch], found)
        scores[batch], ids[batch] = found.best()
    return scores, ids


def _one_pass(rows: Rows, queries: Floats, found: Candidates) -> None:
    n, n_queries, k = int(rows.size[0]), len(queries), found.k
    block = min(n, max(SCORES_PER_BLOCK // n_queries, 4 * k))
    size = max(1, min(GROUP, block // (2 * k)))  # more groups than k: see the first threshold
    n_groups = -(-block // size)
    products = np.empty((size * n_groups, n_queries), np.float32)
    for start in range(0, n, block):
        stop = min(start + block, n)
        live = products[: stop - start]
        np.matmul(rows.vectors[start:stop], queries.T, out=live)  # (block, Q)
        if found.metric == "l2":
            live -= rows.half_squares[start:stop, None]
        live[rows.dead_between(start, stop)] = -np.inf
        products[stop - start :] = -np.inf  # the last block's rest
        maxima = products.reshape(size, n_groups, n_queries).max(axis=0)  # (groups, Q)
        if start == 0 and n_groups > k:  # k groups reach it, so k rows do
            found.raise_to(np.partition(maxima, -k, axis=0)[-k])
        # Flat positions: g * Q + q in the maxima, (s * G + g) * Q + q in the products.
        opened = np.flatnonzero(maxima >= found.threshold)
        members = products.reshape(size, -1).take(opened, axis=1)  # (size, opened)
        hits = np.flatnonzero(members >= found.threshold[opened % n_queries])
        s, which = np.divmod(hits, len(opened) or 1)
        group, query = np.divmod(opened[which], n_queries)
        found.take(query, start + s * n_groups + group, members.ravel()[hits])


class Candidates:
    """The rows that may still be among the k best of each query, and the score to beat.

    A row's product is off its exact score by at most ``errors`` of its query, so a row can be left
    out for good only when its product is more than twice that below the k-th best product.
    """

    def __init__(
        self, vectors: Floats, ids: Ids, queries: Floats, k: int, metric: Metric, errors: Floats
    ) -> None:
        self.vectors, self.ids, self.queries, self.k, self.metric = vectors, ids, queries, k, metric
        self.margin = 2 * errors  # (Q,)
        self.threshold = np.full(len(queries), LOWEST, np.float32)  # (Q,) products to reach
        # One entry each: number of the query, number of the row, product.
        self.query = self.row = np.empty(0, np.intp)
        self.product = np.empty(0, np.float32)
        self._limit = 0

    def raise_to(self, products: Floats) -> None:
        """Say that k rows of each query reach these products (Q,)."""
        np.maximum(self.threshold, products - self.margin, out=self.threshold)

    def take(self, query: NDArray[np.intp], row: NDArray[np.intp], product: Floats) -> None:
        """Add entries; when they have doubled, leave out those that can't be among the k best."""
        if len(query):
            self.query = np.concatenate((self.query, query))
            self.row = np.concatenate((self.row, row))
            self.product = np.concatenate((self.product, product))
            if len(self.query) > self._limit:
                self._narrow()
                if len(self.query) > 8 * self.k * len(self.queries):  # many equal vectors:
                    self._keep(self._ranked()[1])  # let their ids decide
                self._limit = max(2 * len(self.query), 2 * self.k * len(self.queries))

    def best(self) -> tuple[Floats, Ids]:
        """Scores and ids (Q, k) of the k best entries of each query, best first."""
        self._narrow()
        scores, order = self._ranked()
        shape = (len(self.queries), self.k)
        return scores[order].reshape(shape), self.ids[self.row[order]].reshape(shape)

    def _narrow(self) -> None:
        """Raise the thresholds to the k-th best products; keep the entries that reach them."""
        last = np.cumsum(np.bincount(self.query, minlength=len(self.queries)))  # (Q,)
        first = np.concatenate(([0], last[:-1]))
        has_k = np.flatnonzero(last - first >= self.k)
        kth = np.full(len(self.queries), LOWEST, np.float32)
        order = _by_product(self.query, self.product)
        kth[has_k] = self.product[order[first[has_k] + self.k - 1]]
        self.raise_to(kth)
        self._keep(np.flatnonzero(self.product >= self.threshold[self.query]))

    def _keep(self, which: NDArray[np.intp]) -> None:
        self.query, self.row = self.query[which], self.row[which]
        self.product = self.product[which]

    def _ranked(self) -> tuple[Floats, NDArray[np.intp]]:
        """Exact scores of all entries, and which entries are the k best of each query, in order."""
        scores = np.empty(len(self.row), np.float32)
        for start in range(0, len(scores), ENTRIES_PER_STEP):
            part = slice(start, start + ENTRIES_PER_STEP)
            rows, queries = self.vectors[self.row[part]], self.queries[self.query[part]]
            scores[part] = exact_scores(rows, queries, self.metric)
        key = scores if self.metric == "l2" else -scores
        order = np.lexsort((self.ids[self.row], key, self.query))
        query = self.query[order]
        rank = np.arange(len(query)) - np.searchsorted(query, query)
        return scores, order[rank < self.k]


def _by_product(query: NDArray[np.intp], product: Floats) -> NDArray[np.intp]:
    """The order of entries by query, and the largest product first within each.

    One sort of whole numbers takes a fraction of the time of ``lexsort``: a float32 read as an
    integer keeps its order once the negative ones, stored as sign and size, are turned round.
    """
    bits = product.view(np.int32).astype(np.int64)
    rising = np.where(bits < 0, -(bits & 0x7FFFFFFF), bits)  # within ± 2**31
    return np.argsort((query << 33) - rising)
