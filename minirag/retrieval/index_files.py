"""Indexes on disk: vectors, ids and lists in plain ``.npy`` files, with checksums."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from minirag.errors import StoreError
from minirag.files import load_set, save_set
from minirag.retrieval.rows import NO_ROWS, Centroids, Rows
from minirag.retrieval.storage import (
    files_named,
    norm_of,
    open_array,
    space_of,
    whole_number,
    writer_of,
)
from minirag.retrieval.vectors import LARGEST_NORM, Metric, half_squares, row_norms

UNIT_ERROR = 1e-6  # how far rounding to float32 can take a norm from 1, and more


def save_rows(
    directory: Path,
    kind: str,
    rows: Rows,
    metric: Metric,
    next_id: int,
    settings: Mapping[str, Any] | None = None,
) -> None:
    """Save what an index holds, list after list, the dead and the free room left out.

    ``settings`` are more plain values for the manifest, which :func:`load_rows` gives back.
    """
    live = rows.all_live()
    together = len(live) > 0 and live[-1] - live[0] == len(live) - 1
    packed = slice(live[0], live[-1] + 1) if together else live  # a view, or else a copy
    files: dict[str, Callable[[Path], None]] = {
        "vectors.npy": writer_of(rows.vectors[packed]),
        "ids.npy": writer_of(rows.ids[packed]),
        "half_squares.npy": writer_of(rows.half_squares[packed]),
    }
    meta: dict[str, Any] = {
        "metric": metric,
        "dim": rows.vectors.shape[1],
        "count": len(live),
        "next_id": next_id,
        "largest_norm": rows.largest_norm,
        "lists": 0,
        **(settings or {}),
    }
    if rows.centroids is not None:
        meta["lists"] = len(rows.size)
        files["centroids.npy"] = writer_of(rows.centroids.vectors)
        files["sizes.npy"] = writer_of(rows.live.astype(np.int64))
    save_set(directory, kind, files, meta)


def load_rows(
    directory: Path, kind: str, *, mmap: bool, verify: bool
) -> tuple[Rows, Metric, int, dict[str, Any]]:
    """Read what :func:`save_rows` wrote: rows, metric, next id, and all that the manifest says.

    ``verify`` looks at every vector. Without it their norms are taken from the files, so that with
    ``mmap`` no vector is read before a search.

    Raises
    ------
    StoreError
        If something is missing, damaged, or can't be an index.
    """
    meta, paths = load_set(directory, kind, verify=verify)
    dim, metric = space_of(meta)
    n, lists = whole_number(meta, "count"), whole_number(meta, "lists")
    next_id = whole_number(meta, "next_id", 2**63)
    vector_file, id_file = files_named(paths, "vectors.npy", "ids.npy")
    vectors = open_array(vector_file, np.float32, (n, dim), mmap=mmap)
    ids = open_array(id_file, np.int64, (n,))
    centroids, size = None, np.array([n])
    if lists:
        centroid_file, size_file = files_named(paths, "centroids.npy", "sizes.npy")
        centroids = Centroids.of(open_array(centroid_file, np.float32, (lists, dim)))
        size = open_array(size_file, np.int64, (lists,))
    half_file = paths.get("half_squares.npy")  # None: saved by an earlier version
    if verify or half_file is None:
        norms = row_norms(vectors)
        halves, largest = half_squares(norms), float(norms.max(initial=0.0))
        possible = norms <= LARGEST_NORM
        if metric == "cosine":
            possible &= (norms == 0) | (np.abs(norms - 1) < UNIT_ERROR)
    else:  # no vector is read before a search
        halves, largest = open_array(half_file, np.float32, (n,)), norm_of(meta)
        possible = halves <= half_squares(np.array(largest))
    right = [
        n == 0 or (ids.min() >= 0 and ids.max() < next_id and len(np.unique(ids)) == n),
        np.all((size >= 0) & (size <= n)) and size.sum() == n,
        bool(np.all(possible)),
        centroids is None or centroids.largest_norm <= LARGEST_NORM,
    ]
    if not all(right):
        what = ("ids", "list sizes", "vectors", "centroids")[right.index(False)]
        raise StoreError(f"{directory} holds impossible {what}: build the index again.")
    start = np.cumsum(size) - size
    rows = Rows(vectors, ids, halves, largest, start, size, NO_ROWS, centroids)
    return rows, metric, next_id, meta
