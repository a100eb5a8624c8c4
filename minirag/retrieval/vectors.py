"""What every index shares: checks of what comes in, and scores that don't depend on the way taken.

A matrix product rounds differently for one query and for a batch, for one block size and for
another, for one BLAS and for the next. So that an answer is the same whichever way it was found,
products serve only to *select*: everything within the rounding error of the k-th best is kept, and
:func:`exact_scores` scores these few again in float64. What holds then, bit for bit on one machine:
the top 10 is the head of the top 100, a batch equals its queries one by one, and an IVF index that
probes every list equals exact search.
"""

from __future__ import annotations

import operator
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minirag.errors import UsageError
from minirag.retrieval.ids import Ids

Metric = Literal["cosine", "ip", "l2"]
Floats = NDArray[np.float32]

LARGEST_NORM = 2.0**62  # so that (|x| + |q|)², at most 2**126, is still a float32
LOWEST = np.finfo(np.float32).min  # any row that may be found has more; dead rows have -inf
_UNIT_ROUNDOFF = 2.0**-24  # of float32
_TINY = float(np.finfo(np.float32).tiny)  # products below it lose digits
_CHUNK = 1024  # rows turned into float64 at a time


def check_space(dim: int, metric: str) -> None:
    """Refuse a dimension or a metric that no index can have."""
    if metric not in ("cosine", "ip", "l2"):
        raise UsageError(f"unknown metric {metric!r}: choose 'cosine', 'ip' or 'l2'.")
    if isinstance(dim, bool) or not isinstance(dim, (int, np.integer)) or dim < 1:
        raise UsageError(f"dim is {dim!r}; it must be a whole number, 1 or more.")


def as_count(k: int, name: str = "k") -> int:
    """``k`` as a Python int, 0 or more."""
    try:
        count = operator.index(k)
    except TypeError:
        raise UsageError(f"{name} is {k!r}; it must be a whole number.") from None
    if count < 0:
        raise UsageError(f"{name} is {count}; it must be 0 or more.")
    return count


def as_vectors(
    x: ArrayLike, dim: int, metric: Metric, name: str
) -> tuple[Floats, NDArray[np.float64]]:
    """Turn what a caller gives into rows that an index can hold or look for.

    Parameters
    ----------
    x : (n, D) or (D,) array of numbers
        Any real type, strides included; one dimension counts as one vector.
    name : str
        What ``x`` is, for messages: ``"vectors"`` or ``"queries"``.

    Returns
    -------
    rows, norms
        ``rows`` (n, D), float32 and contiguous, divided by their norm if the metric is cosine (a
        zero vector stays zero, so it scores 0); ``norms`` (n,) the Euclidean norms of ``rows``.
        ``rows`` may be ``x`` itself: copy before keeping.

    Raises
    ------
    UsageError
        Another dimension, not numbers, or a row that is not finite or too large, with its number.
    """
    try:
        array = np.asarray(x)
    except ValueError as error:
        raise UsageError(f"{name} are not rows of {dim} numbers: {error}") from None
    if array.ndim < 2:
        array = array.reshape(0 if array.size == 0 else 1, -1 if array.size else dim)
    if array.dtype.kind not in "fiu" or array.ndim != 2:
        raise UsageError(
            f"{name} have shape {array.shape} and type {array.dtype}: "
            f"give real numbers in rows of {dim}."
        )
    if array.shape[1] != dim:
        raise UsageError(
            f"{name} have {array.shape[1]} dimensions, the index holds {dim}: "
            "use the encoder that the index was built with."
        )
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite: refused below
        rows = np.ascontiguousarray(array, np.float32)
    norms = row_norms(rows)
    largest = norms.max(initial=0.0)  # NaN if there is one
    if not largest < np.inf:
        raise UsageError(
            f"row {np.isfinite(norms).argmin()} of the {name} holds NaN or infinity (in float32): "
            "leave it out or find out where it comes from."
        )
    if metric == "cosine":
        return _normalised(rows, norms), np.sign(norms)
    if largest > LARGEST_NORM:
        raise UsageError(
            f"row {norms.argmax()} of the {name} has norm {largest:.3g}, and squares beyond "
            f"{LARGEST_NORM:.3g} overflow float32: scale the vectors down."
        )
    return rows, norms


def _chunks(n: int) -> list[slice]:
    """Slices of n rows, short enough for the float64 copies to stay in the processor's cache."""
    return [slice(start, start + _CHUNK) for start in range(0, n, _CHUNK)]


def row_norms(rows: Floats) -> NDArray[np.float64]:
    """Euclidean norms (n,) of ``rows`` (n, D), summed in float64; not finite where a row isn't."""
    if len(rows) > _CHUNK:
        return np.concatenate([row_norms(rows[part]) for part in _chunks(len(rows))])
    wide = rows.astype(np.float64)
    norms: NDArray[np.float64] = np.sqrt(np.einsum("nd,nd->n", wide, wide))
    return norms


def _normalised(rows: Floats, norms: NDArray[np.float64]) -> Floats:
    unit = np.empty_like(rows)
    safe = np.where(norms > 0, norms, 1.0)[:, None]
    for part in _chunks(len(rows)):
        unit[part] = rows[part] / safe[part]
    return unit


def near_best(products: Floats, k: int, margin: Floats) -> NDArray[np.intp]:
    """Where products (n,) come within ``margin`` of the k-th best, and perhaps a few more.

    Finding the k-th best of all takes long. That of the maxima of groups of 32 does nearly as well:
    where k groups reach a product, k rows do. Rows that may not be found have product -inf. Fewer
    than k groups may hold another, so the bound is never lower than the lowest finite number.
    """
    groups = len(products) // 32
    if groups > 2 * k:
        maxima = products[: 32 * groups].reshape(32, groups).max(axis=0)
        kth = np.partition(maxima, groups - k)[groups - k]
    else:
        kth = np.partition(products, len(products) - k)[len(products) - k]
    near: NDArray[np.intp] = (products >= np.maximum(kth - margin, LOWEST)).nonzero()[0]
    return near


def exact_scores(rows: Floats, queries: Floats, metric: Metric) -> Floats:
    """The scores that searches report: float64 sums of float32 vectors, rounded once.

    Parameters
    ----------
    rows : (n, D)
    queries : (n, D) or (D,)
        The query of each row, or one for all.

    Returns
    -------
    (n,) float32
        Inner products (cosines, when both sides are normalised), or squared distances for l2.
    """
    if len(rows) > _CHUNK:
        of = queries if queries.ndim > 1 else np.broadcast_to(queries, rows.shape)
        parts = _chunks(len(rows))
        return np.concatenate([exact_scores(rows[part], of[part], metric) for part in parts])
    terms = rows.astype(np.float64)  # (n, D)
    if metric == "l2":
        terms -= queries
        terms *= terms
    else:
        terms *= queries
    scores: Floats = terms.sum(axis=1).astype(np.float32)
    return scores


def best_first(scores: Floats, ids: Ids, metric: Metric) -> NDArray[np.intp]:
    """The order of every result: best score first (least distance for l2), then id ascending."""
    return np.lexsort((ids, scores if metric == "l2" else -scores))


def half_squares(norms: NDArray[np.float64]) -> Floats:
    """|x|²/2 (n,): what l2 takes from the products, so that the largest is the nearest.

    For |x - q|² = |q|² + 2 (|x|²/2 - x·q), and |q|² is the same for all x.
    """
    return (norms * norms / 2).astype(np.float32)


def product_error(
    metric: Metric, dim: int, largest_norm: float, query_norms: NDArray[np.float64]
) -> Floats:
    """Bound (Q,) on how far a float32 product, less ``half_squares``, is off the exact one.

    A sum of D products, in any order, is off by at most D·u·|x||q| (Higham, *Accuracy and Stability
    of Numerical Algorithms*, §3.1, u = 2**-24); the few units more are for the other roundings.
    """
    size = largest_norm * query_norms
    if metric == "l2":
        size = (largest_norm + query_norms) ** 2
    errors: Floats = ((dim + 8) * (_UNIT_ROUNDOFF * size + _TINY)).astype(np.float32)
    return errors
