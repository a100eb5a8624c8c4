"""To faiss and back, for collections that outgrow a laptop: same vectors, lists, ids and results.

faiss is imported when a function here is called, and nowhere else in the package.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

from minirag.errors import UsageError
from minirag.retrieval.flat import FlatIndex
from minirag.retrieval.ids import Ids, as_ids, check_distinct
from minirag.retrieval.ivf import IVFIndex
from minirag.retrieval.rows import Centroids, lay_out, one_list
from minirag.retrieval.store import VectorIndex
from minirag.retrieval.vectors import Floats, Metric, as_vectors


def _faiss() -> ModuleType:
    try:
        import faiss
    except ImportError:
        raise UsageError("faiss is not installed: pip install faiss-cpu.") from None
    module: ModuleType = faiss
    return module


def to_faiss(index: VectorIndex) -> Any:
    """The same index in faiss.

    Parameters
    ----------
    index : FlatIndex or IVFIndex
        What it holds now; an untrained ``IVFIndex`` counts as flat.

    Returns
    -------
    faiss.IndexIDMap2 or faiss.IndexIVFFlat
        By inner product for cosine and ip (the vectors of a cosine index are normalised already:
        normalise the queries, ``faiss.normalize_L2``), or by L2.
    """
    faiss = _faiss()
    rows, dim = index.rows, index.dim
    flat = faiss.IndexFlatL2 if index.metric == "l2" else faiss.IndexFlatIP
    live = rows.all_live()
    if rows.centroids is None:
        theirs = faiss.IndexIDMap2(flat(dim))
        theirs.add_with_ids(rows.vectors[live], rows.ids[live])
        return theirs
    quantizer = flat(dim)
    quantizer.add(rows.centroids.vectors)
    metric = faiss.METRIC_L2 if index.metric == "l2" else faiss.METRIC_INNER_PRODUCT
    theirs = faiss.IndexIVFFlat(quantizer, dim, len(rows.size), metric)
    ends = np.cumsum(rows.live)
    for number, (end, n) in enumerate(zip(ends.tolist(), rows.live.tolist(), strict=True)):
        members = live[end - n : end]
        vectors, ids = rows.vectors[members], rows.ids[members]
        theirs.invlists.add_entries(
            number, n, faiss.swig_ptr(ids), faiss.swig_ptr(vectors.view(np.uint8))
        )
    theirs.ntotal = len(live)
    return theirs


def from_faiss(theirs: Any, *, metric: Metric | None = None) -> FlatIndex | IVFIndex:
    """A faiss index as one of ours.

    Parameters
    ----------
    theirs : faiss index
        ``IndexFlat`` (ids are then the row numbers), an ``IndexIDMap`` of one, or ``IndexIVFFlat``.
    metric : optional
        Give "cosine" for an inner-product index of vectors that are normalised.

    Raises
    ------
    UsageError
        If it is of another kind, or holds vectors or ids that our indexes refuse.
    """
    faiss = _faiss()
    theirs = faiss.downcast_index(theirs)
    by_product = theirs.metric_type == faiss.METRIC_INNER_PRODUCT
    if not by_product and theirs.metric_type != faiss.METRIC_L2:
        raise UsageError(f"faiss metric {theirs.metric_type} is unknown here: inner product or L2.")
    own: Metric = metric or ("ip" if by_product else "l2")
    if (own == "l2") == by_product:
        raise UsageError(f"the faiss index is not by {own}: leave the metric out.")
    if isinstance(theirs, faiss.IndexIVFFlat):
        return _ivf_of(theirs, own)
    ids = np.arange(theirs.ntotal)
    if isinstance(theirs, (faiss.IndexIDMap, faiss.IndexIDMap2)):
        ids = faiss.vector_to_array(theirs.id_map)
        theirs = faiss.downcast_index(theirs.index)
    if not isinstance(theirs, faiss.IndexFlat):
        raise UsageError(
            f"a faiss {type(theirs).__name__} has no counterpart here: give an IndexFlat, an "
            "IndexIDMap of one, or an IndexIVFFlat."
        )
    index = FlatIndex(theirs.d, own)
    vectors, ids = _checked(_floats(theirs.get_xb(), theirs.ntotal, theirs.d), ids, own)
    index.hold(one_list(vectors, ids), int(ids.max(initial=-1)) + 1)
    return index


def _ivf_of(theirs: Any, metric: Metric) -> IVFIndex:
    faiss, dim, n_lists = _faiss(), theirs.d, theirs.nlist
    index = IVFIndex(dim, metric, n_lists)
    if not theirs.is_trained:
        return index
    centroids = Centroids.of(theirs.quantizer.reconstruct_n(0, n_lists))
    stored = theirs.invlists
    sizes = [stored.list_size(number) for number in range(n_lists)]
    vectors = np.empty((sum(sizes), dim), np.float32)
    ids = np.empty(sum(sizes), np.int64)
    end = 0
    for number, n in enumerate(sizes):
        start, end = end, end + n
        if n:
            codes = faiss.rev_swig_ptr(stored.get_codes(number), n * theirs.code_size)
            vectors[start:end] = codes.view(np.float32).reshape(n, dim)
            ids[start:end] = faiss.rev_swig_ptr(stored.get_ids(number), n)
    vectors, ids = _checked(vectors, ids, metric)
    lists = np.repeat(np.arange(n_lists), sizes)
    rows = lay_out(one_list(vectors, ids), np.arange(len(ids)), lists, centroids)
    index.hold(rows, int(ids.max(initial=-1)) + 1)
    return index


def _floats(pointer: Any, n: int, dim: int) -> Floats:
    """A copy (n, D) of what a faiss pointer shows."""
    if n == 0:
        return np.empty((0, dim), np.float32)
    return np.array(_faiss().rev_swig_ptr(pointer, n * dim), np.float32).reshape(n, dim)


def _checked(vectors: Floats, ids: Ids, metric: Metric) -> tuple[Floats, Ids]:
    vectors, norms = as_vectors(vectors, vectors.shape[1], "ip", "faiss vectors")
    check_distinct(as_ids(ids))
    if metric == "cosine" and not np.all((np.abs(norms - 1) < 1e-4) | (norms == 0)):
        raise UsageError("the faiss vectors are not of length 1: they can't be a cosine index.")
    return vectors, ids
