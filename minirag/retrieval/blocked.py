"""Exact search for many queries, block by block, so that no N × Q matrix of scores is held."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from minirag.retrieval.vectors import (
    Floats,
    Ids,
    Metric,
    Rows,
    best_first,
    exact_scores,
    product_error,
)


def search_blocked(
    rows: Rows, queries: Floats, query_norms: NDArray[np.float64], k: int, metric: Metric
) -> tuple[Floats, Ids]:
    """Scores (Q, k) and ids (Q, k) of the k best rows for each query (Q, D)."""
    scores = np.empty((len(queries), k), np.float32)
    ids = np.empty((len(queries), k), np.int64)
    if k == 0:
        return scores, ids
    errors = product_error(metric, queries.shape[1], rows.largest_norm, query_norms)
    for i, query in enumerate(queries):
        products = rows.vectors @ query
        if rows.half_squares is not None:
            products -= rows.half_squares
        products[rows.dead] = -np.inf
        near = np.flatnonzero(products >= np.partition(products, -k)[-k] - 2 * errors[i])
        exact = exact_scores(rows.vectors[near], query, metric)
        order = best_first(exact, rows.ids[near], metric)[:k]
        scores[i], ids[i] = exact[order], rows.ids[near[order]]
    return scores, ids
