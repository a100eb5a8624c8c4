"""The process that ``minirag bench search`` and ``bench index`` start: one JSON object a line."""

from __future__ import annotations

import contextlib
import io
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minirag.retrieval import FlatIndex, IVFIndex, Scan
from minirag.retrieval.rows import Rows
from minirag.retrieval.vectors import Floats, Metric

K = 10
PATIENCE = 10.0  # seconds after which a side has no more turns


def _peer(threads: int) -> Any:
    """The module faiss, or None if it is not installed."""
    try:
        import faiss
    except ImportError:
        print("faiss is not installed (pip install faiss-cpu): no ratios.", file=sys.stderr)
        return None
    faiss.omp_set_num_threads(threads)
    return faiss


def _vectors(n: int, dim: int, seed: int) -> Floats:
    """Vectors of length 1 that vary in about 12 directions, as embeddings do, and a little in all.

    The directions are the same for every seed, so that queries can be drawn like the vectors.
    """
    directions = np.random.default_rng(0).normal(size=(12, dim)).astype(np.float32)
    generator = np.random.default_rng(seed)
    x = np.empty((n, dim), np.float32)
    for start in range(0, n, 10_000):
        m = min(10_000, n - start)
        part = generator.standard_normal((m, 12), dtype=np.float32) @ directions
        part += generator.standard_normal((m, dim), dtype=np.float32)
        x[start : start + m] = part / np.linalg.norm(part, axis=1, keepdims=True)
    return x


def _turns(
    sides: dict[str, Callable[[], Any]], rounds: int
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Seconds of each side, turn by turn, and what each answered.

    Each is run once to warm up, and as often in a turn as fills about 20 ms of ours. If warming up
    has used up the patience with a side, that was its turn.
    """
    answers = {}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    spent: dict[str, float] = {}
    for name, side in sides.items():
        began = time.perf_counter()
        answers[name] = side()
        spent[name] = time.perf_counter() - began
        if spent[name] > PATIENCE:
            seconds[name].append(spent[name])
    repeats = max(1, int(0.02 / spent["ours"]))
    for _ in range(rounds):
        for name, side in sides.items():
            if spent[name] > PATIENCE:
                continue
            began = time.perf_counter()
            for _ in range(repeats):
                side()
            taken = time.perf_counter() - began
            spent[name] += taken
            seconds[name].append(taken / repeats)
    return seconds, answers


def _ratio(seconds: dict[str, list[float]], *theirs: str) -> float | None:
    """Their time by ours, the median over the turns, of the side that is the fastest of theirs."""
    ratios = [
        statistics.median(b / a for a, b in zip(seconds["ours"], seconds[name], strict=False))
        for name in theirs
        if name in seconds
    ]
    return min(ratios) if ratios else None


def _equal(ours: Any, theirs: Any) -> float:
    return float(np.mean(ours[1] == theirs[1]))


def _measure_search(
    faiss: Any,
    *,
    sizes: list[int],
    dims: list[int],
    batches: list[int],
    metric: Metric,
    rounds: int,
) -> Iterator[dict[str, Any]]:
    for dim in dims:
        for n in sizes:
            x = _vectors(n, dim, 1)
            index = FlatIndex(dim, metric)
            index.add(x)
            theirs = None
            if faiss is not None:
                theirs = (faiss.IndexFlatL2 if metric == "l2" else faiss.IndexFlatIP)(dim)
                theirs.add(x)
            for batch in batches:
                yield _one_search(faiss, index, theirs, _vectors(batch, dim, 2), rounds)


def _one_search(
    faiss: Any, index: FlatIndex, theirs: Any, queries: Floats, rounds: int
) -> dict[str, Any]:
    sides: dict[str, Callable[[], Any]] = {"ours": lambda: index.search(queries, K)}
    if faiss is not None:
        default = faiss.cvar.distance_compute_blas_threshold

        def search(threshold: int) -> Any:
            faiss.cvar.distance_compute_blas_threshold = threshold
            found = theirs.search(queries, K)
            faiss.cvar.distance_compute_blas_threshold = default
            return found

        sides |= {"default": lambda: search(default), "products": lambda: search(1)}
    seconds, answers = _turns(sides, rounds)
    return {
        "vectors": len(index),
        "dim": index.dim,
        "queries": len(queries),
        "ms": 1000 * statistics.median(seconds["ours"]),
        "ratio": _ratio(seconds, "default", "products"),
        "ratio_to_default": _ratio(seconds, "default"),
        "equal_ids": _equal(answers["ours"], answers["default"]) if faiss is not None else None,
        "seconds": seconds,
    }


def _measure_index(
    faiss: Any,
    *,
    sizes: list[int],
    dim: int,
    nprobes: list[int],
    queries: int,
    metric: Metric,
    rounds: int,
) -> Iterator[dict[str, Any]]:
    asked = _vectors(queries, dim, 2)
    for n in sizes:
        x = _vectors(n, dim, 1)
        began = time.perf_counter()
        index = IVFIndex(dim, metric)
        index.train(x)
        train_s = time.perf_counter() - began
        index.add(x)
        add_s = time.perf_counter() - began - train_s
        theirs, their_s = None, None
        lists = len(index.centroids)
        if faiss is not None:
            began = time.perf_counter()
            _faiss_ivf(faiss, dim, lists, metric, x).add(x)
            their_s = time.perf_counter() - began
            theirs = _faiss_ivf(faiss, dim, lists, metric, x, index.centroids)
            theirs.add(x)
        flat = FlatIndex(dim, metric)
        flat.add(x)
        exact = flat.search(asked, K)[1]
        once, _ = _turns({"ours": partial(flat.search, asked[0], K)}, rounds)
        yield {
            "vectors": n,
            "lists": lists,
            "train_s": train_s,
            "add_s": add_s,
            "ratio": None if their_s is None else their_s / (train_s + add_s),
            "megabytes": _bytes(index.rows) / 1e6,
            "exact_one_ms": 1000 * statistics.median(once["ours"]),
        }
        del flat, x
        for nprobe in nprobes:
            if nprobe <= lists:
                yield _one_probe(index, theirs, asked, exact, nprobe, rounds)


def _faiss_ivf(
    faiss: Any, dim: int, lists: int, metric: Metric, x: Floats, centroids: Floats | None = None
) -> Any:
    """faiss's IVF index, with these centroids or trained like ours."""
    quantizer = (faiss.IndexFlatL2 if metric == "l2" else faiss.IndexFlatIP)(dim)
    if centroids is not None:
        quantizer.add(centroids)
    kind = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
    index = faiss.IndexIVFFlat(quantizer, dim, lists, kind)
    if centroids is None:
        index.cp.niter = 10
        index.train(x)
    return index


def _bytes(rows: Rows) -> int:
    """What the arrays take; the table from ids to rows, about 100 bytes an id, comes on top."""
    centroids = 0 if rows.centroids is None else rows.centroids.vectors.nbytes
    return rows.vectors.nbytes + rows.ids.nbytes + rows.half_squares.nbytes + centroids


def _one_probe(
    index: IVFIndex, theirs: Any, asked: Floats, exact: NDArray[np.int64], nprobe: int, rounds: int
) -> dict[str, Any]:
    some = asked[:100]
    batch: dict[str, Callable[[], Any]]
    batch = {"ours": lambda: index.search(asked, K, nprobe=nprobe)}
    one = {"ours": lambda: [index.search(query, K, nprobe=nprobe) for query in some]}
    if theirs is not None:
        theirs.nprobe = nprobe
        batch["theirs"] = lambda: theirs.search(asked, K)
        if len(asked) * nprobe > theirs.nlist:  # faiss can't with fewer
            batch["big batch"] = lambda: _big_batch(theirs, asked)
        one["theirs"] = lambda: [theirs.search(query[None], K) for query in some]
    together, answers = _turns(batch, rounds)
    singly, _ = _turns(one, rounds)
    scan = Scan()
    ids = index.search(asked, K, nprobe=nprobe, scan=scan)[1]
    found = [len(np.intersect1d(a, b)) for a, b in zip(ids, exact, strict=True)]
    return {
        "vectors": len(index),
        "nprobe": nprobe,
        "recall": float(np.mean(found)) / K,
        "share": scan.share,
        "one_ms": 1000 * statistics.median(singly["ours"]) / len(some),
        "one_ratio": _ratio(singly, "theirs"),
        "batch_ms": 1000 * statistics.median(together["ours"]),
        "batch_ratio": _ratio(together, "theirs"),
        "big_batch_ratio": _ratio(together, "big batch"),
        "equal_ids": None if theirs is None else _equal(answers["ours"], answers["theirs"]),
        "seconds": {"batch": together, "hundred_singly": singly},
    }


def _big_batch(theirs: Any, asked: Floats) -> Any:
    """faiss's own way of answering list by list, which talks while it works."""
    from faiss.contrib.big_batch_search import big_batch_search

    with contextlib.redirect_stdout(io.StringIO()):
        return big_batch_search(theirs, asked, K)


def _main(what: str, settings: str) -> None:
    options = json.loads(settings)
    faiss = _peer(options.pop("threads"))
    versions = {"numpy": np.__version__, "faiss": None if faiss is None else faiss.__version__}
    print(json.dumps(versions), flush=True)
    measure = _measure_search if what == "search" else _measure_index
    for row in measure(faiss, **options):
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    _main(*sys.argv[1:])
