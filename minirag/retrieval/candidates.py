"""The rows that may still be among the k best of many queries, while they are being searched."""

from __future__ import annotations

import numpy as np

from minirag.retrieval.ids import Ids
from minirag.retrieval.rows import NO_ROWS, RowNumbers, Rows
from minirag.retrieval.vectors import LOWEST, Floats, Metric, exact_scores

ALL = slice(None)
ENTRIES_PER_STEP = 1024
Entries = tuple[RowNumbers, RowNumbers, Floats]


class Candidates:
    """The rows that may still be among the k best of each query, and the score to beat.

    A row's product is off its exact score by at most ``errors`` of its query, so a row can be left
    out for good only when its product is more than twice that below the k-th best product.
    """

    def __init__(self, rows: Rows, queries: Floats, k: int, metric: Metric, errors: Floats) -> None:
        self.rows, self.queries, self.k, self.metric = rows, queries, k, metric
        self.margin = 2 * errors  # (Q,)
        self.threshold = np.full(len(queries), LOWEST, np.float32)  # (Q,) products to reach
        # One entry each: number of the query, number of the row, product.
        self._entries: Entries = (NO_ROWS, NO_ROWS, np.empty(0, np.float32))
        self._new: list[Entries] = []
        self._n_new, self._limit = 0, 0

    def raise_to(self, products: Floats, query: RowNumbers | slice = ALL) -> None:
        """Say that k rows of each of these queries (q,) reach these products (q,)."""
        reached = products - self.margin[query]
        self.threshold[query] = np.maximum(self.threshold[query], reached)

    def take(self, query: RowNumbers, row: RowNumbers, product: Floats) -> None:
        """Add entries; when they have doubled, leave out those that can't be among the k best."""
        if len(query):
            self._new.append((query, row, product))
            self._n_new += len(query)
            if self._n_new > self._limit:
                self._narrow()
                if len(self._entries[0]) > 8 * self.k * len(self.queries):  # many equal vectors:
                    self._keep(self._ranked()[1])  # let their ids decide
                self._limit = max(len(self._entries[0]), 2 * self.k * len(self.queries))

    def best(self) -> tuple[Floats, Ids]:
        """Scores and ids (Q, k) of the k best entries of each query, best first."""
        self._narrow()
        scores, order = self._ranked()
        shape = (len(self.queries), self.k)
        row = self._entries[1][order]
        return scores[order].reshape(shape), self.rows.ids[row].reshape(shape)

    def _narrow(self) -> None:
        """Sort; raise the thresholds to the k-th best products; keep what reaches them."""
        columns = zip(self._entries, *self._new, strict=True)
        query, row, product = (np.concatenate(column) for column in columns)
        self._entries, self._new, self._n_new = (query, row, product), [], 0
        order = _by_product(query, product)
        self._keep(order)
        query, row, product = self._entries
        first = np.searchsorted(query, np.arange(len(self.queries) + 1))
        has_k = np.flatnonzero(np.diff(first) >= self.k)
        self.raise_to(product[first[has_k] + self.k - 1], has_k)
        self._keep(np.flatnonzero(product >= self.threshold[query]))

    def _keep(self, which: RowNumbers) -> None:
        query, row, product = self._entries
        self._entries = query[which], row[which], product[which]

    def _ranked(self) -> tuple[Floats, RowNumbers]:
        """Exact scores of all entries, and which entries are the k best of each query, in order."""
        query, row, _ = self._entries
        scores = np.empty(len(row), np.float32)
        for start in range(0, len(row), ENTRIES_PER_STEP):
            part = slice(start, start + ENTRIES_PER_STEP)
            vectors, queries = self.rows.vectors[row[part]], self.queries[query[part]]
            scores[part] = exact_scores(vectors, queries, self.metric)
        order = np.lexsort((self.rows.ids[row], scores if self.metric == "l2" else -scores, query))
        rank = np.arange(len(query)) - np.searchsorted(query, query)  # sorted by query already
        return scores, order[rank < self.k]


def _by_product(query: RowNumbers, product: Floats) -> RowNumbers:
    """The order of entries by query, and the largest product first within each.

    One sort of whole numbers takes a fraction of the time of ``lexsort``: a float32 read as an
    integer keeps its order once the negative ones, stored as sign and size, are turned round.
    ``query << 33`` leaves 33 bits for the product: queries first, then the largest product.
    """
    bits = product.view(np.int32).astype(np.int64)
    rising = np.where(bits < 0, -(bits & 0x7FFFFFFF), bits)  # within ± 2**31
    return np.argsort((query << 33) - rising)
