"""One set of expectations, two implementations: ours and faiss.

What an index must answer is computed here by its definition, in float64; both implementations are
held to it, so that where they agree with it they agree with each other. Scores within 1e-5; equal
scores may stand in any order.
"""

from __future__ import annotations

import numpy as np
import pytest

from minirag.errors import UsageError
from minirag.retrieval import FlatIndex, IVFIndex
from minirag.retrieval.faiss_bridge import from_faiss, to_faiss

faiss = pytest.importorskip("faiss", reason="compares with faiss: pip install faiss-cpu")

METRICS = ("ip", "l2")


class Ours:
    """Our index behind the few calls that the tests make."""

    def __init__(self, dim, metric, centroids=None):
        self.index = FlatIndex(dim, metric) if centroids is None else IVFIndex(dim, metric)
        if centroids is not None:
            self.index.use_centroids(centroids)

    def add(self, x, ids):
        self.index.add(x, ids)

    def remove(self, ids):
        self.index.remove(ids)

    def search(self, q, k, nprobe=None, allowed=None):
        more = {} if nprobe is None else {"nprobe": nprobe}
        return self.index.search(q, k, allowed=allowed, **more)


class Theirs:
    """faiss behind the same calls."""

    def __init__(self, dim, metric, centroids=None):
        flat = faiss.IndexFlatL2 if metric == "l2" else faiss.IndexFlatIP
        if centroids is None:
            self.index = faiss.IndexIDMap2(flat(dim))
        else:
            quantizer = flat(dim)
            quantizer.add(centroids)
            kind = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
            self.index = faiss.IndexIVFFlat(quantizer, dim, len(centroids), kind)

    def add(self, x, ids):
        self.index.add_with_ids(np.asarray(x, np.float32), np.asarray(ids, np.int64))

    def remove(self, ids):
        self.index.remove_ids(np.asarray(ids, np.int64))

    def search(self, q, k, nprobe=None, allowed=None):
        selector = None if allowed is None else faiss.IDSelectorBatch(np.asarray(allowed))
        ivf = isinstance(self.index, faiss.IndexIVFFlat)
        kind = faiss.SearchParametersIVF if ivf else faiss.SearchParameters
        params = kind(sel=selector, **({"nprobe": nprobe} if ivf else {}))
        return self.index.search(np.atleast_2d(np.asarray(q, np.float32)), k, params=params)


def nearness(a, b, metric):
    """Scores (A, B), the higher the nearer, in float64."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return -((a[:, None] - b[None]) ** 2).sum(-1) if metric == "l2" else a @ b.T


def expect(found, q, k, held, metric, centroids=None, nprobe=None):
    """``found`` is the k best of ``held`` (id to vector) in the lists that each query probes."""
    ids, x = np.array(list(held)), np.array(list(held.values())).astype(np.float32)
    scores, labels = found
    sign, checked = -1 if metric == "l2" else 1, 0
    for i, row in enumerate(nearness(q, x, metric)):
        reachable = np.ones(len(ids), bool)
        if centroids is not None:
            nearest = np.argsort(-nearness(q[i : i + 1], centroids, metric)[0])[:nprobe]
            reachable = np.isin(nearness(x, centroids, metric).argmax(axis=1), nearest)
        if reachable.sum() < min(k, len(ids)):
            continue  # faiss gives fewer than k there, we look on
        checked += 1
        best = sign * np.sort(row[reachable])[::-1][:k]
        got = labels[i][: len(best)]
        np.testing.assert_allclose(scores[i][: len(best)], best, rtol=1e-5, atol=1e-5)
        assert len(set(got.tolist())) == len(best)
        position = {id: at for at, id in enumerate(ids.tolist())}
        at = np.array([position[id] for id in got.tolist()], int)
        assert reachable[at].all()
        np.testing.assert_allclose(sign * row[at], best, rtol=1e-5, atol=1e-5)
    assert checked > len(q) / 2


def data(n, dim, seed=0):
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=(n, dim)) * rng.gamma(4, 0.25, size=(n, 1))).astype(np.float32)
    return x, rng.permutation(10 * n)[:n]


both = pytest.mark.parametrize("implementation", [Ours, Theirs])
metrics = pytest.mark.parametrize("metric", METRICS)


@both
@metrics
@pytest.mark.parametrize(("n", "dim", "k"), [(1, 1, 1), (77, 5, 10), (2000, 33, 100)])
def test_flat(implementation, metric, n, dim, k):
    x, ids = data(n, dim)
    q, _ = data(37, dim, seed=1)
    index = implementation(dim, metric)
    index.add(x, ids)
    expect(index.search(q, k), q, k, dict(zip(ids.tolist(), x, strict=True)), metric)


@both
@metrics
@pytest.mark.parametrize("nprobe", [1, 2, 3, 5, 8, 13, 21, 31])
@pytest.mark.parametrize("n_queries", [1, 40])
def test_ivf(implementation, metric, nprobe, n_queries):
    x, ids = data(1500, 17)
    q, _ = data(n_queries, 17, seed=2)
    centroids, _ = data(31, 17, seed=3)
    index = implementation(17, metric, centroids)
    index.add(x, ids)
    held = dict(zip(ids.tolist(), x, strict=True))
    expect(index.search(q, 10, nprobe), q, 10, held, metric, centroids, nprobe)


@both
@metrics
def test_the_order_is_best_first(implementation, metric):
    x, ids = data(300, 4)
    index = implementation(4, metric)
    index.add(x, ids)
    scores, _ = index.search(x[:9], 300)
    falls = np.diff(scores if metric == "ip" else -scores, axis=1)
    assert np.all(falls <= 0)


@both
@metrics
@pytest.mark.parametrize("nprobe", [2, 9])
def test_filtered(implementation, metric, nprobe):
    x, ids = data(900, 8)
    q, _ = data(11, 8, seed=4)
    centroids, _ = data(9, 8, seed=5)
    index = implementation(8, metric, centroids)
    index.add(x, ids)
    held = dict(zip(ids[::3].tolist(), x[::3], strict=True))
    found = index.search(q, 7, nprobe, allowed=ids[::3])
    expect(found, q, 7, held, metric, centroids, nprobe)


@both
@metrics
def test_duplicates(implementation, metric):
    x, ids = data(60, 6)
    x = np.concatenate((x, x, x))
    ids = np.arange(180)[::-1].copy()
    centroids, _ = data(5, 6, seed=6)
    q, _ = data(8, 6, seed=7)
    held = dict(zip(ids.tolist(), x, strict=True))
    for nprobe in (2, 5):
        index = implementation(6, metric, centroids)
        index.add(x, ids)
        expect(index.search(q, 10, nprobe), q, 10, held, metric, centroids, nprobe)


@both
@metrics
@pytest.mark.parametrize("inverted", [False, True])
def test_random_sequences_of_operations(implementation, metric, inverted):
    rng = np.random.default_rng(8)
    centroids = data(6, 5, seed=9)[0] if inverted else None
    index, held, next_id = implementation(5, metric, centroids), {}, 0
    nprobe = 4 if inverted else None
    for _ in range(60):
        if held and rng.random() < 0.4:
            gone = rng.choice(list(held), min(len(held), int(rng.integers(1, 30))), replace=False)
            index.remove(gone)
            held = {id: v for id, v in held.items() if id not in set(gone.tolist())}
        else:
            n = int(rng.integers(0, 40))
            x, ids = rng.normal(size=(n, 5)), np.arange(next_id, next_id + n)
            index.add(x, ids)
            held.update(zip(ids.tolist(), x.astype(np.float32), strict=True))
            next_id += n
        if held:
            q = rng.normal(size=(4, 5)).astype(np.float32)
            expect(index.search(q, 5, nprobe), q, 5, held, metric, centroids, nprobe)


# -- to faiss and back -----------------------------------------------------------------------------


def ours_of(metric, *, inverted):
    x, ids = data(800, 9)
    index = IVFIndex(9, metric, nlist=12) if inverted else FlatIndex(9, metric)
    if inverted:
        index.train(x)
    index.add(x, ids)
    index.remove(ids[::5])
    return index


@pytest.mark.parametrize("metric", ["cosine", *METRICS])
@pytest.mark.parametrize("inverted", [False, True])
def test_to_faiss_and_back(metric, inverted):
    index = ours_of(metric, inverted=inverted)
    theirs = to_faiss(index)
    assert theirs.ntotal == len(index)
    again = from_faiss(theirs, metric=metric)
    assert again.metric == metric
    np.testing.assert_array_equal(again.ids, index.ids)
    np.testing.assert_array_equal(again.get(index.ids), index.get(index.ids))
    q, _ = data(25, 9, seed=10)
    normal = q / np.linalg.norm(q, axis=1, keepdims=True) if metric == "cosine" else q
    for nprobe in (1, 4, 12) if inverted else (None,):
        more = {} if nprobe is None else {"nprobe": nprobe}
        if nprobe is not None:
            theirs.nprobe = nprobe
        scores, ids = index.search(q, 10, **more)
        their_scores, their_ids = theirs.search(normal.astype(np.float32), 10)
        np.testing.assert_array_equal(again.search(q, 10, **more)[1], ids)
        np.testing.assert_array_equal(again.search(q, 10, **more)[0], scores)
        full = (their_ids >= 0).all(axis=1)
        assert full.sum() > 20
        np.testing.assert_array_equal(their_ids[full], ids[full])
        np.testing.assert_allclose(their_scores[full], scores[full], rtol=1e-5, atol=1e-5)
    if inverted:
        np.testing.assert_array_equal(again.centroids, index.centroids)
        lists = [theirs.invlists.list_size(number) for number in range(12)]
        np.testing.assert_array_equal(lists, index.rows.live)
    assert again.add(q[:1]) == index.ids.max() + 1


def test_faiss_indexes_of_other_makers():
    x, _ = data(400, 6)
    trained = faiss.IndexIVFFlat(faiss.IndexFlatL2(6), 6, 7, faiss.METRIC_L2)
    empty = from_faiss(trained)
    assert len(empty) == 0
    trained.train(x)
    trained.add(x)
    trained.nprobe = 3
    plain = faiss.IndexFlatL2(6)
    plain.add(x)
    for theirs, more in ((trained, {"nprobe": 3}), (plain, {})):
        scores, ids = from_faiss(theirs).search(x[:30], 4, **more)
        np.testing.assert_array_equal(ids[:, 0], np.arange(30))
        np.testing.assert_allclose(scores, theirs.search(x[:30], 4)[0], rtol=1e-5, atol=1e-5)
    assert len(from_faiss(faiss.IndexFlatIP(6))) == 0
    assert len(from_faiss(to_faiss(FlatIndex(6)), metric="cosine")) == 0


def test_what_can_not_be_taken_over():
    x, _ = data(20, 6)
    product, hnsw = faiss.IndexFlatIP(6), faiss.IndexHNSWFlat(6, 8)
    product.add(x)
    hnsw.add(x)
    twice = faiss.IndexIDMap2(faiss.IndexFlatL2(6))
    twice.add_with_ids(x[:2], np.array([5, 5]))
    negative = faiss.IndexIDMap2(faiss.IndexFlatL2(6))
    negative.add_with_ids(x[:1], np.array([-7]))
    for theirs, metric, sentence in (
        (hnsw, None, "IndexHNSWFlat has no counterpart"),
        (product, "l2", "not by l2"),
        (product, "cosine", "not of length 1"),
        (twice, None, "id 5 is given twice"),
        (negative, None, "negative"),
        (faiss.IndexFlat(6, faiss.METRIC_L1), None, "metric"),
    ):
        with pytest.raises(UsageError, match=sentence):
            from_faiss(theirs, metric=metric)
