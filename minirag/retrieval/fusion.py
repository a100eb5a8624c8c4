"""Fusion: several rankings of the same things made into one.

Reciprocal rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009) adds 1 / (k + rank) over the
rankings. It looks at ranks alone, so scores of different kinds (cosines, BM25) need no scaling.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minirag.errors import UsageError
from minirag.retrieval.ids import Ids, as_ids, check_distinct
from minirag.retrieval.vectors import Floats, as_count


def reciprocal_rank_fusion(
    rankings: Sequence[Collection[int] | NDArray[Any]], top: int | None = None, *, k: int = 60
) -> tuple[Floats, Ids]:
    """Fuse rankings.

    Parameters
    ----------
    rankings : sequence of ids
        Each best first, without repetition; they may differ in length and in what they hold.
    top : int, optional
        How many to return; default: everything that stands in a ranking.
    k : int
        The larger, the less the first places count more than the next ones.

    Returns
    -------
    scores, ids
        float32 and int64, best first, equal scores by id ascending.
    """
    if as_count(k) < 1:
        raise UsageError("k is 0; it must be 1 or more.")
    total: dict[int, float] = {}
    for ranking in rankings:
        ids = as_ids(ranking)
        check_distinct(ids)
        for rank, id in enumerate(ids.tolist(), start=1):
            total[id] = total.get(id, 0.0) + 1.0 / (k + rank)
    ids, scores = np.array(list(total), np.int64), np.array(list(total.values()), np.float32)
    order = np.lexsort((ids, -scores))[: None if top is None else as_count(top, "top")]
    return scores[order], ids[order]
