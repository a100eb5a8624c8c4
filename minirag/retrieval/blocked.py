"""Exact search for many queries, block by block, so that no N × Q matrix of scores is held.

A block of vectors times a batch of queries is one matrix product, its scores (about 1 MB) stay in
the processor's cache. Almost none of them matter: of each group of rows only the maximum is looked
at, and only groups whose maximum reaches the running k-th best score are opened.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from minirag.retrieval.candidates import Candidates
from minirag.retrieval.ids import Ids
from minirag.retrieval.rows import Rows
from minirag.retrieval.vectors import Floats, Metric, product_error

SCORES_PER_BLOCK = 1 << 18  # 1 MB of float32
QUERIES_PER_PASS = 256  # enough that the products, not reading the vectors, take the time
GROUP = 32  # rows of which only the maximum is looked at


def search_blocked(
    rows: Rows, queries: Floats, query_norms: NDArray[np.float64], k: int, metric: Metric
) -> tuple[Floats, Ids]:
    """Scores and ids (Q, k) of the k best ``rows`` (one list, k live at least) for each query."""
    scores = np.empty((len(queries), k), np.float32)
    ids = np.empty((len(queries), k), np.int64)
    errors = product_error(metric, queries.shape[1], rows.largest_norm, query_norms)
    for start in range(0, len(queries) if k else 0, QUERIES_PER_PASS):
        batch = slice(start, start + QUERIES_PER_PASS)
        found = Candidates(rows, queries[batch], k, metric, errors[batch])
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
        if len(rows.dead):
            live[rows.dead_between(start, stop)] = -np.inf
        products[stop - start :] = -np.inf  # the last block's rest
        maxima = products.reshape(size, n_groups, n_queries).max(axis=0)  # (groups, Q)
        if start == 0 and n_groups > k:  # k groups reach it, so k rows do
            found.raise_to(np.partition(maxima, -k, axis=0)[-k])
        # Flat positions: g * Q + q in the maxima, (s * G + g) * Q + q in the products.
        opened = (maxima >= found.threshold).ravel().nonzero()[0]
        members = products.reshape(size, -1).take(opened, axis=1)  # (size, opened)
        hits = (members >= found.threshold[opened % n_queries]).ravel().nonzero()[0]
        s, which = np.divmod(hits, len(opened) or 1)
        group, query = np.divmod(opened[which], n_queries)
        found.take(query, start + s * n_groups + group, members.ravel()[hits])
