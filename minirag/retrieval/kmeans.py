"""K-means: the centroids that an IVF index sorts its vectors by (Lloyd 1982).

Assign every vector to its nearest centroid, move every centroid to the mean of its vectors, and
again: neither step can raise the inertia, the sum of squared distances to the own centroid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minirag.errors import UsageError
from minirag.retrieval.vectors import (
    Floats,
    as_count,
    as_vectors,
    half_squares,
    row_norms,
)

_PRODUCTS_PER_BLOCK = 1 << 19  # 2 MB of float32
Start = Literal["random", "k-means++"]


@dataclass(frozen=True)
class KMeans:
    """What :func:`kmeans` found."""

    centroids: Floats  # (k, D)
    sizes: NDArray[np.intp]  # (k,) vectors that the last step found nearest to each
    inertia: tuple[float, ...]  # as each step found it, strictly falling
    reseeded: int  # how many empty clusters were given a new centroid


def kmeans(
    x: ArrayLike,
    k: int,
    *,
    spherical: bool = False,
    iterations: int = 25,
    start: Start = "random",
    seed: int | np.random.Generator = 0,
) -> KMeans:
    """Cluster vectors.

    Parameters
    ----------
    x : (n, D)
    k : int
        Clusters, 1 to n.
    spherical : bool
        Centroids of length 1, each vector goes to that with the largest inner product (Dhillon and
        Modha 2001): for cosine and inner product.
    iterations : int
        At most; it ends sooner when the inertia no longer falls.
    start : {"random", "k-means++"}
        The first centroids: k of the vectors, or each drawn by its squared distance to those
        before (Arthur and Vassilvitskii 2007): better for small k, slow for thousands.

    Raises
    ------
    UsageError
        If k is not between 1 and n, or a vector is refused.
    """
    array = np.asarray(x)
    dim = array.shape[-1] if array.ndim else 1
    vectors, norms = as_vectors(array, dim, "l2", "vectors")
    if not 1 <= as_count(k) <= len(vectors):
        raise UsageError(
            f"{k} clusters of {len(vectors)} vectors: give a k from 1 to their number."
        )
    generator = np.random.default_rng(seed)
    pick = _plus_plus if start == "k-means++" else _random
    centroids = vectors[pick(vectors, norms, k, generator)]
    if spherical:
        centroids = _to_length_1(centroids, centroids)
    squares = float(np.dot(norms, norms))
    history: list[float] = []
    before, lists = centroids, np.empty(0, np.intp)
    reseeded = 0
    for _ in range(as_count(iterations, "iterations")):
        lists, products = assign(vectors, centroids, spherical=spherical)
        inertia = squares - 2.0 * float(products.sum(dtype=np.float64))
        if spherical:
            inertia += len(vectors)  # |c|² = 1 for each
        if history and not inertia < history[-1]:
            centroids = before  # rounding: it has stopped falling
            break
        history.append(inertia)
        before = centroids
        centroids, empty = _means(vectors, lists, centroids, spherical)
        if len(empty):
            far = np.argsort(norms * norms - 2.0 * products, kind="stable")[::-1][: len(empty)]
            centroids[empty] = vectors[far]
            reseeded += len(empty)
        if spherical:
            centroids = _to_length_1(centroids, before)
    sizes = np.bincount(lists, minlength=k)
    return KMeans(centroids, sizes, tuple(history), reseeded)


def assign(
    vectors: Floats, centroids: Floats, *, spherical: bool
) -> tuple[NDArray[np.intp], Floats]:
    """The nearest centroid of each vector, the first of equal ones.

    Parameters
    ----------
    vectors : (n, D)
    centroids : (k, D)
    spherical : bool
        Nearest by inner product, else by Euclidean distance.

    Returns
    -------
    numbers, products
        (n,) each: the centroid, and its x·c, less |c|²/2 unless spherical.
    """
    half = None if spherical else half_squares(row_norms(centroids))  # (k,)
    numbers = np.empty(len(vectors), np.intp)
    best = np.empty(len(vectors), np.float32)
    block = max(1, _PRODUCTS_PER_BLOCK // len(centroids))
    products = np.empty((block, len(centroids)), np.float32)
    for at in range(0, len(vectors), block):
        rows = vectors[at : at + block]
        part = np.matmul(rows, centroids.T, out=products[: len(rows)])  # (block, k)
        if half is not None:
            part -= half
        numbers[at : at + block] = winner = part.argmax(axis=1)
        best[at : at + block] = part[np.arange(len(rows)), winner]
    return numbers, best


def _means(
    vectors: Floats, lists: NDArray[np.intp], centroids: Floats, spherical: bool
) -> tuple[Floats, NDArray[np.intp]]:
    """Means (k, D) of the clusters (sums are enough for spherical), and which are empty."""
    sizes = np.bincount(lists, minlength=len(centroids))
    by_list, ends = np.argsort(lists, kind="stable"), np.cumsum(sizes)
    means = centroids.copy()
    for number in np.flatnonzero(sizes).tolist():
        members = by_list[ends[number] - sizes[number] : ends[number]]
        total = vectors.take(members, axis=0).sum(axis=0)  # (D,)
        means[number] = total if spherical else total / sizes[number]
    return means, np.flatnonzero(sizes == 0)


def _to_length_1(centroids: Floats, otherwise: Floats) -> Floats:
    """Centroids divided by their norm; those of norm 0 as they were."""
    norms = row_norms(centroids)[:, None]
    return np.where(norms > 0, centroids / np.where(norms > 0, norms, 1), otherwise).astype(
        np.float32
    )


def _random(
    vectors: Floats, norms: NDArray[np.float64], k: int, generator: np.random.Generator
) -> NDArray[np.intp]:
    return generator.choice(len(vectors), k, replace=False)


def _plus_plus(
    vectors: Floats, norms: NDArray[np.float64], k: int, generator: np.random.Generator
) -> NDArray[np.intp]:
    chosen = [int(generator.integers(len(vectors)))]
    distance = np.full(len(vectors), np.inf)  # squared, to the nearest chosen
    while len(chosen) < k:
        last = chosen[-1]
        to_last = norms**2 + norms[last] ** 2 - 2.0 * (vectors @ vectors[last])
        distance = np.minimum(distance, np.maximum(to_last, 0.0))
        distance[last] = 0.0
        total = distance.sum()
        if total > 0:
            chosen.append(int(generator.choice(len(vectors), p=distance / total)))
        else:  # fewer than k different vectors
            rest = np.setdiff1d(np.arange(len(vectors)), chosen)
            chosen.append(int(generator.choice(rest)))
    return np.array(chosen)
