"""The IVF index: what it promises over and against the exact one."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from racing import searching

from minirag.errors import StoreError, UsageError
from minirag.files import LOCK, save_set
from minirag.retrieval import FlatIndex, IndexWarning, IVFIndex, Scan, ivf, probing
from minirag.retrieval.ivf import lists_for

METRICS = ("cosine", "ip", "l2")


def points(n: int, dim: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, dim)) * rng.gamma(3, 1 / 3, size=(n, 1))


def pair(metric: str, n: int = 1200, dim: int = 11, nlist: int = 24) -> tuple[IVFIndex, FlatIndex]:
    x, ids = points(n, dim), np.random.default_rng(1).permutation(5 * n)[:n]
    inverted, flat = IVFIndex(dim, metric, nlist), FlatIndex(dim, metric)
    inverted.train(x)
    inverted.add(x, ids)
    flat.add(x, ids)
    return inverted, flat


def equal(one, two):
    np.testing.assert_array_equal(one[1], two[1])
    np.testing.assert_array_equal(one[0], two[0])


@pytest.mark.parametrize("metric", METRICS)
def test_probing_every_list_is_exact_search_to_the_last_bit(metric):
    inverted, flat = pair(metric)
    q = points(40, 11, seed=2)
    for k in (1, 10, 1200, 2000):
        equal(inverted.search(q, k, nprobe=24), flat.search(q, k))
        equal(inverted.search(q[3], k, nprobe=99), flat.search(q[3], k))


@pytest.mark.parametrize("metric", METRICS)
def test_searches_the_lists_of_the_nearest_centroids(metric):
    """Against brute force over the lists that the definition says are probed."""
    inverted, flat = pair(metric)
    q = points(30, 11, seed=3)
    x, ids = flat.get(flat.ids).astype(np.float64), flat.ids
    c = inverted.centroids.astype(np.float64)

    def nearness(a):
        if metric == "cosine":
            a = a / np.linalg.norm(a, axis=1, keepdims=True)
        return -((a[:, None] - c[None]) ** 2).sum(-1) if metric == "l2" else a @ c.T

    list_of = nearness(x).argmax(axis=1)
    for nprobe in (1, 3, 7):
        scan = Scan()
        found = inverted.search(q, 5, nprobe=nprobe, scan=scan)
        for i, order in enumerate(np.argsort(-nearness(q), axis=1)):
            probed = np.isin(list_of, order[:nprobe])
            if probed.sum() < 5:
                continue
            expected = flat.search(q[i], 5, allowed=ids[probed])
            np.testing.assert_array_equal(found[1][i], expected[1][0])
            np.testing.assert_array_equal(found[0][i], expected[0][0])
            assert scan.lists[i] == nprobe
            assert scan.vectors[i] == probed.sum()
        assert scan.held == 1200
        assert scan.share == pytest.approx(scan.vectors.mean() / 1200)


@pytest.mark.parametrize("metric", METRICS)
def test_a_batch_equals_its_queries_one_by_one(metric, monkeypatch):
    inverted, _ = pair(metric)
    inverted.remove(inverted.ids[5:90])
    q = points(50, 11, seed=4)
    q[7] = 0  # as near to every centroid, under cosine and ip
    for nprobe, k in ((1, 10), (4, 10), (4, 90), (9, 3)):
        one_by_one = [inverted.search(one, k, nprobe=nprobe) for one in q]
        together = tuple(np.concatenate(part) for part in zip(*one_by_one, strict=True))
        equal(inverted.search(q, k, nprobe=nprobe), together)
        monkeypatch.setattr(probing, "QUERIES_PER_PASS", 7)
        equal(inverted.search(q, k, nprobe=nprobe), together)
        monkeypatch.undo()


def test_the_top_ten_is_the_head_of_the_top_fifty():
    inverted, _ = pair("ip")
    q = points(20, 11, seed=5)
    hundred = inverted.search(q, 30, nprobe=8)
    equal(inverted.search(q, 10, nprobe=8), tuple(part[:, :10] for part in hundred))


@pytest.mark.parametrize("n_queries", [1, 6])
def test_probing_goes_on_until_there_are_k_results(n_queries):
    inverted, _ = pair("l2", n=300, nlist=60)
    q = points(n_queries, 11, seed=6)
    scan = Scan()
    scores, ids = inverted.search(q, 200, nprobe=1, scan=scan)
    assert ids.shape == (n_queries, 200)
    assert all(len(set(row)) == 200 for row in ids.tolist())
    assert np.all(np.diff(scores, axis=1) >= 0)
    assert np.all(scan.vectors >= 200)
    assert np.all(scan.lists < 60)
    assert inverted.search(q, 999, nprobe=1)[1].shape == (n_queries, 300)
    assert inverted.search(q, 0)[1].shape == (n_queries, 0)
    assert inverted.search(q[:0], 3)[1].shape == (0, 3)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("few", [True, False])
def test_filtered_equals_the_index_on_the_subset(metric, few):
    inverted, _ = pair(metric)
    x, ids = inverted.get(inverted.ids), inverted.ids
    inverted.remove(ids[:100])
    chosen = slice(100, 180) if few else slice(150, 1100)
    subset = IVFIndex(11, metric, 24)
    subset.use_centroids(inverted.centroids)
    subset.add(x[chosen], ids[chosen])
    q = points(9, 11, seed=7)
    for queries in (q, q[:1]):
        for nprobe in (1, 5, 24):
            found = inverted.search(
                queries, 12, nprobe=nprobe, allowed=set(ids[:180].tolist()) if few else ids[chosen]
            )
            np.testing.assert_array_equal(found[1], subset.search(queries, 12, nprobe=nprobe)[1])
            np.testing.assert_allclose(
                found[0], subset.search(queries, 12, nprobe=nprobe)[0], atol=1e-6
            )


@pytest.mark.parametrize("metric", METRICS)
def test_removed_is_as_never_added(metric):
    inverted, _ = pair(metric)
    x, ids = inverted.get(inverted.ids), inverted.ids
    for gone in (ids[::40], ids[1::2]):  # tombstones, and a new layout
        inverted.remove(np.intersect1d(gone, inverted.ids))
        never = IVFIndex(11, metric, 24)
        never.use_centroids(inverted.centroids)
        kept = np.isin(ids, inverted.ids)
        never.add(x[kept], ids[kept])
        q = points(9, 11, seed=8)
        found, expected = (i.search(q, 20, nprobe=3) for i in (inverted, never))
        np.testing.assert_array_equal(found[1], expected[1])
        np.testing.assert_allclose(found[0], expected[0], atol=1e-6)


@pytest.mark.parametrize("metric", METRICS)
def test_what_is_left_of_a_list_is_found_and_nothing_else(metric):
    """Of a list of 3,200 rows, those left lie in 26 of the 100 groups that a search looks at."""
    x = np.random.default_rng(0).normal(size=(3200, 8)).astype(np.float32)
    far = np.full((8000, 8), -50.0)
    index = IVFIndex(8, metric, nlist=2)
    index.use_centroids([np.ones(8) / 8, -np.ones(8) / 8])
    x += 10  # all in the first list, and the rest so many that the dead rows stay
    index.add(np.concatenate([x, far]))
    ids = np.arange(3200)
    live = ids[ids % 100 < 26]
    index.remove(np.setdiff1d(ids, live))
    assert len(index.rows.dead) == 3200 - len(live)
    flat = FlatIndex(8, metric)
    flat.add(x[live], live)
    for k in (26, 27, 40, 49):
        equal(index.search(x[5], k, nprobe=1), flat.search(x[5], k))


def test_of_lists_as_near_as_rounding_can_tell_the_probed_one_settles_the_first_score():
    """Two centroids with the same numbers in another order, one query with all numbers alike."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        first = rng.uniform(0.5, 1.5, size=64).astype(np.float32)
        second = rng.permutation(first)  # as near; which one the product calls nearer is chance
        index = IVFIndex(64, "ip")
        index.use_centroids([first, second])
        lengths = np.linspace(1, 2, 40)[:, None]
        index.add(np.concatenate([lengths * first, 10 * lengths * second]))
        query = np.ones(64)
        alone = index.search(query, 5, nprobe=1)
        three = index.search(np.tile(query, (3, 1)), 5, nprobe=1)
        equal(three, tuple(np.tile(part, (3, 1)) for part in alone))


vectors_of_three = st.lists(st.integers(-3, 3), min_size=3, max_size=3)
operations = st.lists(
    st.tuples(
        st.sampled_from(["add", "upsert", "upsert", "remove", "save", "train", "copy"]),
        st.lists(
            st.tuples(st.integers(0, 40), vectors_of_three), max_size=12, unique_by=lambda t: t[0]
        ),
    ),
    max_size=20,
)


@settings(max_examples=50, deadline=None)
@given(metric=st.sampled_from(METRICS), steps=operations)
def test_random_operations_against_a_dictionary(metric, steps, tmp_path_factory):
    index, held = IVFIndex(3, metric, nlist=5), {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IndexWarning)
        for action, pairs in steps:
            ids, x = [id for id, _ in pairs], np.array([v for _, v in pairs]).reshape(-1, 3)
            if action == "add" and set(ids) & set(held):
                with pytest.raises(UsageError, match="already"):
                    index.add(x, ids)
            elif action in ("add", "upsert"):
                getattr(index, action)(x, ids)
                held.update(zip(ids, x.tolist(), strict=True))
            elif action == "remove":
                gone = [id for id in ids if id in held]
                index.remove(gone)
                held = {id: v for id, v in held.items() if id not in gone}
            elif action == "save":
                directory = tmp_path_factory.mktemp("index")
                index.save(directory)
                index = IVFIndex.load(directory, mmap=len(held) % 2 == 0)
            elif action == "copy":
                before, index = index, index.copy()
                before.remove(before.ids)
            else:
                index.train()
        flat = FlatIndex(3, metric)
        flat.add(np.array(list(held.values())).reshape(-1, 3), list(held))
        np.testing.assert_array_equal(index.ids, flat.ids)
        np.testing.assert_array_equal(index.get(index.ids), flat.get(flat.ids))
        q = np.array([[1, 2, -1], [0, 0, 0], [-3, 1, 2]])
        for queries in (q, q[:1]):
            equal(index.search(queries, 9, nprobe=5), flat.search(queries, 9))
            assert index.search(queries, 9, nprobe=1)[1].shape == flat.search(queries, 9)[1].shape


# -- training --------------------------------------------------------------------------------------


def test_before_training_search_is_exact_and_says_so():
    index, flat = IVFIndex(6), FlatIndex(6)
    index.add(points(50, 6))
    flat.add(points(50, 6))
    scan = Scan()
    with pytest.warns(IndexWarning, match=r"all its 50 vectors are scanned: call train\(\)"):
        equal(index.search(points(3, 6), 5, scan=scan), flat.search(points(3, 6), 5))
    assert (scan.share, scan.held) == (1.0, 50)
    assert index.centroids.shape == (0, 6)


@pytest.mark.parametrize(
    ("nlist", "remedy"), [("auto", "with 1521 or more"), (70, "with 70 or more")]
)
def test_too_few_vectors_to_train_on(nlist, remedy):
    index = IVFIndex(6, nlist=nlist)
    index.add(points(60, 6))
    with pytest.warns(IndexWarning, match=remedy):
        index.train()
    assert len(index.centroids) == 0
    index.add(points(1600, 6))
    index.train()
    assert len(index.centroids) == (40 if nlist == "auto" else 70)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        index.search(points(3, 6), 5)


def test_auto_is_the_square_root():
    assert [lists_for(n) for n in (0, 1520, 1521, 10_000, 1_000_000)] == [0, 0, 39, 100, 1000]


def test_training_later_sorts_what_is_held():
    early, late = IVFIndex(6, nlist=12), IVFIndex(6, nlist=12)
    x = points(500, 6)
    early.train(x, seed=3)
    early.add(x)
    late.add(x)
    late.remove([4])
    late.train(x, seed=3)
    early.remove([4])
    np.testing.assert_array_equal(early.centroids, late.centroids)
    equal(early.search(x[:20], 7, nprobe=2), late.search(x[:20], 7, nprobe=2))


def test_a_sample_is_trained_on_when_there_are_many(monkeypatch):
    seen = []
    real = ivf.kmeans
    monkeypatch.setattr(ivf, "kmeans", lambda x, *a, **k: seen.append(x) or real(x, *a, **k))
    index = IVFIndex(2, "l2", nlist=3)
    x = points(2000, 2).astype(np.float32)
    index.train(x)
    assert len(seen[0]) == 768
    assert set(map(bytes, seen[0])) <= set(map(bytes, x))


def test_lists_that_become_unequal_are_reported_once():
    index = IVFIndex(4, "l2", nlist=8)
    x = points(800, 4)
    index.train(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        index.add(x)
        index.remove(index.ids[::2])  # shrinking evenly is no reason
    with pytest.warns(IndexWarning, match=r"unequal.*Call train\(\)"):
        index.add(np.tile(x[0], (900, 1)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        index.add(np.tile(x[0], (100, 1)))


@pytest.mark.parametrize(
    ("act", "sentence"),
    [
        (lambda i: i.search(np.ones(4), 1, nprobe=0), "nprobe is 0"),
        (lambda i: i.search(np.ones(4), 1, nprobe=-3), "nprobe is -3"),
        (lambda i: i.search([1, np.nan, 1, 1], 1), "row 0 of the queries holds NaN"),
        (lambda i: i.train([[1, np.inf, 1, 1]]), "row 0 of the training vectors"),
        (lambda i: i.use_centroids(np.ones((2, 5))), "5 dimensions"),
        (lambda i: i.use_centroids([]), "no centroids"),
        (lambda i: i.add([[1, 2, 3, np.nan]]), "row 0 of the vectors holds NaN"),
        (lambda i: i.remove([0, 999]), "id 999"),
        (lambda i: IVFIndex(4, nlist=0), "nlist is 0"),
        (lambda i: IVFIndex(4, nlist="many"), "nlist is 'many'"),
    ],
)
def test_what_is_refused_changes_nothing(act, sentence):
    index = IVFIndex(4, nlist=3)
    index.add(points(30, 4))
    index.train()
    before = index.ids, index.get(index.ids), index.centroids
    with pytest.raises(UsageError, match=sentence):
        act(index)
    for old, new in zip(before, (index.ids, index.get(index.ids), index.centroids), strict=True):
        np.testing.assert_array_equal(old, new)


def test_adding_one_by_one_fills_the_lists():
    inverted, flat = pair("l2", n=200, nlist=7)
    more = points(300, 11, seed=9)
    for row in more:
        assert inverted.add(row) == flat.add(row)
    q = points(12, 11, seed=10)
    equal(inverted.search(q, 25, nprobe=7), flat.search(q, 25))
    assert inverted.rows.size.sum() == 500


def test_a_search_sees_the_state_before_or_after_an_update():
    index = IVFIndex(4, "ip", nlist=4)
    index.use_centroids(np.eye(4))
    ids = np.arange(40)
    base = np.tile(np.eye(4), (10, 1))
    index.add(base, ids)

    def finds_fault():
        for queries in (np.ones((1, 4)), np.ones((5, 4))):
            scores, found = index.search(queries, 40, nprobe=4)
            if len(np.unique(scores)) != 1 or found.shape[1] != 40:
                return scores, found
        return None

    with searching(finds_fault):
        for generation in range(1, 100):
            index.upsert(np.roll(base, generation, axis=1) * generation, ids)
            if generation % 30 == 0:
                index.use_centroids(np.eye(4)[::-1])


# -- saved files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize("trained", [False, True])
def test_saved_and_loaded_answers_are_the_same(tmp_path, mmap, trained):
    index = IVFIndex(5, "l2", nlist=9)
    index.add(points(90, 5))
    if trained:
        index.train()
    index.remove([3, 17])
    index.save(tmp_path)
    loaded = IVFIndex.load(tmp_path, mmap=mmap)
    np.testing.assert_array_equal(index.centroids, loaded.centroids)
    q = points(6, 5, seed=11)
    with warnings.catch_warnings():
        warnings.simplefilter("error" if trained else "ignore", IndexWarning)
        for nprobe in (1, 3, 9):
            equal(index.search(q, 10, nprobe=nprobe), loaded.search(q, 10, nprobe=nprobe))
        assert loaded.add(q).tolist() == list(range(90, 96))
        loaded.remove([90])
        assert loaded.search(q[1], 1, nprobe=1)[1].tolist() == [[91]]
    loaded.train()
    assert loaded.nlist == 9
    loaded.save(tmp_path)
    assert len(IVFIndex.load(tmp_path)) == 93


def test_any_flipped_bit_is_refused(tmp_path):
    index = IVFIndex(5, nlist=4)
    index.add(points(30, 5))
    index.train()
    index.save(tmp_path)
    paths = sorted(set(tmp_path.iterdir()) - {tmp_path / LOCK})
    assert len(paths) == 6
    for path in paths:
        whole = path.read_bytes()
        for at in np.linspace(0, len(whole) - 1, 7).astype(int):
            damaged = bytearray(whole)
            damaged[at] ^= 16
            path.write_bytes(bytes(damaged))
            with pytest.raises(StoreError):
                IVFIndex.load(tmp_path)
        path.write_bytes(whole)
    assert len(IVFIndex.load(tmp_path)) == 30


@pytest.mark.parametrize(
    ("meta", "files"),
    [
        ({}, {"sizes.npy": np.array([10, 10, 9])}),
        ({}, {"sizes.npy": np.array([40, -10, 0])}),
        ({}, {"sizes.npy": np.array([10, 20])}),
        ({}, {"centroids.npy": np.zeros((3, 4), np.float32)}),
        ({}, {"centroids.npy": np.full((3, 5), np.nan, np.float32)}),
        ({}, {"centroids.npy": None}),
        ({"lists": 2**40}, {}),
        ({"nlist": 0}, {}),
        ({"nlist": "some"}, {}),
        ({"trained_skew": "1"}, {}),
        ({"trained_skew": float("nan")}, {}),
    ],
)
def test_files_that_are_no_index_are_refused(tmp_path, meta, files):
    arrays = {
        "vectors.npy": points(30, 5).astype(np.float32),
        "ids.npy": np.arange(30),
        "sizes.npy": np.array([10, 15, 5]),
        "centroids.npy": np.eye(5, dtype=np.float32)[:3],
    }
    good = {
        "dim": 5,
        "metric": "ip",
        "count": 30,
        "next_id": 30,
        "lists": 3,
        "nlist": 3,
        "trained_skew": 1.0,
    }

    def save(some_files, some_meta):
        writers = {
            name: (lambda path, array=array: np.save(path, array))
            for name, array in some_files.items()
            if array is not None
        }
        save_set(tmp_path, ivf.KIND, writers, some_meta)

    save(arrays, good)
    assert len(IVFIndex.load(tmp_path)) == 30
    save({**arrays, **files}, {**good, **meta})
    with pytest.raises(StoreError):
        IVFIndex.load(tmp_path)
