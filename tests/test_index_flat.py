"""The exact index against a brute-force oracle in float64, and the laws it promises."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from racing import searching

from minirag.errors import DiskError, StoreError, UsageError
from minirag.files import LOCK, save_set
from minirag.retrieval import FlatIndex, blocked, flat, index_files, storage
from minirag.retrieval.vectors import as_vectors

METRICS = ("cosine", "ip", "l2")
seeds = st.integers(0, 2**32 - 1)


def oracle(vectors, ids, queries, k, metric):
    """Best first, then id ascending: every score in float64, rounded to float32, all sorted."""
    x, q = (np.asarray(a, np.float32).astype(np.float64) for a in (vectors, queries))
    if metric == "cosine":
        x, q = (
            (a / np.maximum(np.linalg.norm(a, axis=1, keepdims=True), 1e-300)).astype(np.float32)
            for a in (x, q)
        )
        x, q = x.astype(np.float64), q.astype(np.float64)
    if metric == "l2":
        scores = ((q[:, None, :] - x[None]) ** 2).sum(-1).astype(np.float32)
        order = [np.lexsort((ids, row)) for row in scores]
    else:
        scores = (q[:, None, :] * x[None]).sum(-1).astype(np.float32)
        order = [np.lexsort((ids, -row)) for row in scores]
    best = np.array(order, int).reshape(len(q), -1)[:, :k]
    return np.take_along_axis(scores, best, axis=1), np.asarray(ids)[best]


def same(found, expected):
    np.testing.assert_array_equal(found[1], expected[1])
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-6, atol=1e-7)
    assert found[0].dtype == np.float32
    assert found[1].dtype == np.int64


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("n", "dim", "n_queries", "k"), [(1, 1, 1, 1), (33, 7, 5, 4), (501, 31, 17, 50)]
)
def test_finds_what_brute_force_finds(metric, n, dim, n_queries, k):
    rng = np.random.default_rng(n)
    x, q = rng.normal(size=(n, dim)), rng.normal(size=(n_queries, dim))
    ids = rng.permutation(10 * n)[:n]
    index = FlatIndex(dim, metric)
    index.add(x, ids)
    same(index.search(q, k), oracle(x, ids, q, k, metric))
    same(index.search(q[:1], k), oracle(x, ids, q[:1], k, metric))


@pytest.mark.parametrize("metric", METRICS)
def test_blocks_agree_with_the_plain_search_to_the_last_bit(metric, monkeypatch):
    rng = np.random.default_rng(3)
    x = rng.normal(size=(3001, 19)) * rng.gamma(1.0, size=(3001, 1))
    x[700:760] = x[5]  # many equal scores
    q = np.concatenate((x[:20] + 0.1 * rng.normal(size=(20, 19)), x[5:6], np.zeros((1, 19))))
    index = FlatIndex(19, metric)
    index.add(x)
    index.remove(range(100, 400))  # rows that no block may find
    for k in (1, 10, 65, 700, 2701):
        plain = [index.search(one, k) for one in q]
        for scores_per_block, queries_per_pass in ((1 << 19, 256), (3000, 7), (1, 1000)):
            monkeypatch.setattr(blocked, "SCORES_PER_BLOCK", scores_per_block)
            monkeypatch.setattr(blocked, "QUERIES_PER_PASS", queries_per_pass)
            scores, ids = index.search(q, k)
            np.testing.assert_array_equal(ids, np.concatenate([p[1] for p in plain]))
            np.testing.assert_array_equal(scores, np.concatenate([p[0] for p in plain]))
    for one, (scores, ids) in zip(q, plain, strict=True):  # single queries in blocks as well
        unit, norms = as_vectors(one, 19, metric, "queries")
        found = blocked.search_blocked(index.rows, unit, norms, 2701, metric)
        np.testing.assert_array_equal(found[0], scores)
        np.testing.assert_array_equal(found[1], ids)


@pytest.mark.parametrize("metric", METRICS)
def test_the_top_ten_is_the_head_of_the_top_hundred(metric):
    rng = np.random.default_rng(4)
    x, q = rng.normal(size=(2000, 24)), rng.normal(size=(40, 24))
    index = FlatIndex(24, metric)
    index.add(x)
    scores, ids = index.search(q, 100)
    np.testing.assert_array_equal(index.search(q, 10)[0], scores[:, :10])
    np.testing.assert_array_equal(index.search(q[7], 10)[1], ids[7:8, :10])


@pytest.mark.parametrize("n_queries", [1, 2, 300])
def test_equal_vectors_come_by_id_and_memory_stays_bounded(n_queries):
    rng = np.random.default_rng(5)
    ids = rng.permutation(9000)
    index = FlatIndex(8, "ip")
    index.add(np.ones((9000, 8)), ids)
    scores, found = index.search(np.ones((n_queries, 8)), 12)
    np.testing.assert_array_equal(found, np.tile(np.arange(12), (n_queries, 1)))
    np.testing.assert_array_equal(scores, np.full((n_queries, 12), 8.0))


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e9, 4e18])
@pytest.mark.parametrize("metric", METRICS)
def test_very_small_and_very_large_vectors(metric, scale):
    rng = np.random.default_rng(6)
    x = (rng.uniform(-0.3, 0.3, size=(200, 9)) * scale).astype(np.float32)
    index = FlatIndex(9, metric)
    index.add(x)
    same(index.search(x[:6], 7), oracle(x, np.arange(200), x[:6], 7, metric))


def test_a_far_outlier_does_not_change_the_others():
    rng = np.random.default_rng(7)
    x = rng.normal(size=(4000, 16))
    x[17] *= 1e6
    for metric in METRICS:
        index = FlatIndex(16, metric)
        index.add(x)
        same(index.search(x[:9], 5), oracle(x, np.arange(4000), x[:9], 5, metric))


def test_no_matrix_of_all_scores_is_held():
    rng = np.random.default_rng(8)
    index = FlatIndex(16, "cosine")
    index.add(rng.normal(size=(60_000, 16)))
    q = rng.normal(size=(256, 16))
    index.search(q, 10)
    tracemalloc.start()
    index.search(q, 10)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60_000 * 256 * 4 / 4


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("few", [True, False])
def test_filtered_equals_the_index_on_the_subset(metric, few):
    rng = np.random.default_rng(9)
    x, q = rng.normal(size=(800, 12)), rng.normal(size=(11, 12))
    ids = rng.permutation(5000)[:800]
    index, subset = FlatIndex(12, metric), FlatIndex(12, metric)
    index.add(x, ids)
    index.remove(ids[:50])
    chosen = np.arange(50, 90) if few else np.arange(60, 790)
    subset.add(x[chosen], ids[chosen])
    for allowed in (ids[chosen], set(ids[chosen].tolist()) | {10**9} | set(ids[:50].tolist())):
        for queries in (q, q[:1]):
            found, expected = index.search(queries, 20, allowed=allowed), subset.search(queries, 20)
            np.testing.assert_array_equal(found[0], expected[0])
            np.testing.assert_array_equal(found[1], expected[1])
    assert index.search(q, 3, allowed=[])[1].shape == (11, 0)


@pytest.mark.parametrize("metric", METRICS)
def test_rows_that_may_not_be_found_are_not_where_the_others_lie_close_together(metric):
    """Of 3,200 rows in 100 groups, by their number modulo 100, only 26 groups hold a live row."""
    x = np.random.default_rng(0).normal(size=(3200, 8)).astype(np.float32)
    ids = np.arange(3200)
    live = ids[ids % 100 < 26]
    filtered, removed = FlatIndex(8, metric), FlatIndex(8, metric)
    filtered.add(x)
    removed.add(x)
    removed.remove(ids[ids % 4 == 3])  # few enough to stay as dead rows
    for k in (26, 27, 40, 49):
        same(filtered.search(x[5], k, allowed=live), oracle(x[live], live, x[5:6], k, metric))
        left = live[live % 4 != 3]
        same(removed.search(x[5], k, allowed=live), oracle(x[left], left, x[5:6], k, metric))


@settings(max_examples=100, deadline=None)
@given(groups=st.integers(1, 24), n_live=st.integers(1, 9), more=st.integers(0, 3), seed=seeds)
def test_a_filter_finds_the_best_of_what_it_allows(groups, n_live, more, seed):
    """By the rest of a division, so that whole groups of rows have no live one, and others many."""
    rng = np.random.default_rng(seed)
    x = rng.integers(-3, 4, size=(32 * groups + int(rng.integers(32)), 3))
    ids, live = np.arange(len(x)), rng.permutation(groups)[:n_live]
    allowed = ids[np.isin(ids % groups, live)]
    index = FlatIndex(3, "ip")
    index.add(x)
    for q in (np.array([[1, 2, -1]]), np.array([[1, 2, -1], [3, 0, 1]])):
        k = len(live) + more
        same(index.search(q, k, allowed=allowed), oracle(x[allowed], allowed, q, k, "ip"))


def test_cosine_normalises_both_sides_and_a_zero_vector_scores_zero():
    index = FlatIndex(3)
    index.add([[2, 0, 0], [0, 0, 0], [-3, 0, 0]])
    scores, ids = index.search([5, 0, 0], 3)
    assert scores.tolist() == [[1.0, 0.0, -1.0]]
    assert ids.tolist() == [[0, 1, 2]]
    assert index.search([0, 0, 0], 3)[0].tolist() == [[0.0, 0.0, 0.0]]
    assert index.get([0, 1]).tolist() == [[1, 0, 0], [0, 0, 0]]


def test_l2_gives_squared_distances_ascending_and_zero_for_the_vector_itself():
    x = np.random.default_rng(10).normal(size=(50, 33)).astype(np.float32) + 100
    index = FlatIndex(33, "l2")
    index.add(x)
    scores, ids = index.search(x, 2)
    np.testing.assert_array_equal(ids[:, 0], np.arange(50))
    np.testing.assert_array_equal(scores[:, 0], 0)
    assert np.all(scores[:, 1] > 0)


def test_kinds_of_input():
    x = np.random.default_rng(11).normal(size=(12, 6))
    index = FlatIndex(6, "ip")
    assert index.add(x[0]).tolist() == [0]  # one dimension: one vector
    assert index.add(x[1:9:2].astype(np.float16)).tolist() == [1, 2, 3, 4]
    assert index.add(np.asfortranarray(x[9:11])).tolist() == [5, 6]
    assert index.add([]).tolist() == []
    assert index.add(np.empty((0, 6))).tolist() == []
    assert index.add([[1, 2, 3, 4, 5, 6]], ids=40).tolist() == [40]
    assert index.add(np.ones((2, 6), int), ids=(50, 45)).tolist() == [50, 45]
    assert index.ids.tolist() == [0, 1, 2, 3, 4, 5, 6, 40, 45, 50]
    assert 45 in index
    assert 46 not in index
    np.testing.assert_array_equal(index.get([40, 5]), np.float32([[1, 2, 3, 4, 5, 6], x[9]]))
    strided = np.repeat(x, 2, axis=1)[::3, ::2]
    np.testing.assert_array_equal(index.search(strided, 4)[1], index.search(x[::3].copy(), 4)[1])
    assert index.search(x, 0)[1].shape == (12, 0)
    assert index.search(np.empty((0, 6)), 3)[1].shape == (0, 3)
    assert index.search(x, 99)[1].shape == (12, 10)
    assert FlatIndex(6).search(x, 3)[0].shape == (12, 0)


def test_adding_does_not_keep_the_callers_array():
    x = np.ones((2, 3), np.float32)
    index = FlatIndex(3, "ip")
    index.add(x)
    x[:] = 7
    np.testing.assert_array_equal(index.get([0, 1]), np.ones((2, 3)))
    index.get([0])[:] = 7
    np.testing.assert_array_equal(index.get([0]), np.ones((1, 3)))


@pytest.mark.parametrize(
    ("act", "sentence"),
    [
        (lambda i: i.add(np.ones((1, 5))), "5 dimensions, the index holds 4"),
        (lambda i: i.search(np.ones(3), 1), "3 dimensions, the index holds 4"),
        (lambda i: i.add([[1, 1, 1, 1], [1, np.nan, 1, 1]]), "row 1 of the vectors holds NaN"),
        (lambda i: i.search([1, np.inf, 1, 1], 1), "row 0 of the queries holds NaN"),
        (lambda i: i.add([[0, 0, 0, 1e300]]), "row 0 of the vectors holds NaN or infinity"),
        (lambda i: i.add([[0, 0, 0, 1e30]]), "row 0 of the vectors has norm 1e\\+30"),
        (lambda i: i.add(np.ones((2, 4)), [8, 8]), "id 8 is given twice"),
        (lambda i: i.add(np.ones((2, 4)), [8, 1]), "id 1 is in the index already"),
        (lambda i: i.add(np.ones((2, 4)), [8]), "2 vectors came with 1 ids"),
        (lambda i: i.add(np.ones((1, 4)), [-1]), "negative"),
        (lambda i: i.add(np.ones((1, 4)), [1.5]), "whole numbers"),
        (lambda i: i.add(["a", "b", "c", "d"]), "real numbers"),
        (lambda i: i.add([[1, 2, 3, 4], [1]]), "not rows of 4 numbers"),
        (lambda i: i.upsert([[1, 1, 1, 1], [1, np.nan, 1, 1]], [1, 8]), "row 1 of the vectors"),
        (lambda i: i.upsert(np.ones((2, 4)), [1, 1]), "id 1 is given twice"),
        (lambda i: i.remove([0, 1, 77]), "id 77 is not in the index"),
        (lambda i: i.remove([0, 0]), "id 0 is given twice"),
        (lambda i: i.get([0, 77]), "id 77 is not in the index"),
        (lambda i: i.search(np.ones(4), -1), "k is -1"),
        (lambda i: i.search(np.ones(4), 1.5), "k is 1.5"),
        (lambda i: FlatIndex(0), "dim is 0"),
        (lambda i: FlatIndex(4, "dot"), "unknown metric 'dot'"),
    ],
)
def test_what_is_refused_changes_nothing(act, sentence):
    index = FlatIndex(4, "ip")
    index.add(np.arange(12).reshape(3, 4))
    before = index.ids, index.get(index.ids)
    with pytest.raises(UsageError, match=sentence):
        act(index)
    np.testing.assert_array_equal(index.ids, before[0])
    np.testing.assert_array_equal(index.get(index.ids), before[1])
    assert index.add(np.ones(4)).tolist() == [3]


def test_ids_do_not_come_back(tmp_path):
    index = FlatIndex(2, "ip")
    index.add(np.ones((3, 2)))
    index.remove([2, 0])
    assert index.add([1, 1]).tolist() == [3]
    index.remove(3)
    index.save(tmp_path)
    loaded = FlatIndex.load(tmp_path)
    assert loaded.add([1, 1]).tolist() == [4]
    loaded.add([1, 1], ids=[2])  # whoever names an id may have it again
    loaded.upsert([1, 1], ids=[2**63 - 1])
    with pytest.raises(UsageError, match="used up"):
        loaded.add([1, 1])
    loaded.save(tmp_path)
    assert FlatIndex.load(tmp_path).ids.tolist() == [1, 2, 4, 2**63 - 1]


vectors_of_three = st.lists(st.integers(-3, 3), min_size=3, max_size=3)
operations = st.lists(
    st.tuples(
        st.sampled_from(["add", "add", "upsert", "remove", "save", "copy"]),
        st.lists(
            st.tuples(st.integers(0, 30), vectors_of_three), max_size=8, unique_by=lambda t: t[0]
        ),
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(metric=st.sampled_from(METRICS), steps=operations)
def test_random_operations_against_a_dictionary(metric, steps, tmp_path_factory):
    index, held = FlatIndex(3, metric), {}
    for action, pairs in steps:
        ids, x = [id for id, _ in pairs], np.array([v for _, v in pairs]).reshape(-1, 3)
        if action == "add" and set(ids) & set(held):
            with pytest.raises(UsageError, match="already"):
                index.add(x, ids)
        elif action in ("add", "upsert"):
            getattr(index, action)(x, ids)
            held.update(zip(ids, x.tolist(), strict=True))
        elif action == "remove" and not set(ids) <= set(held):
            with pytest.raises(UsageError, match="not in the index"):
                index.remove(ids)
        elif action == "remove":
            index.remove(set(ids))
            held = {id: v for id, v in held.items() if id not in ids}
        elif action == "save":
            directory = tmp_path_factory.mktemp("index")
            index.save(directory)
            index = FlatIndex.load(directory, mmap=len(held) % 2 == 0)
        else:
            before = index
            index = index.copy()
            before.remove(before.ids)
    assert len(index) == len(held)
    assert index.ids.tolist() == sorted(held)
    x, ids = np.array(list(held.values())).reshape(-1, 3), np.array(list(held), np.int64)
    q = np.array([[1, 2, -1], [0, 0, 0], [-3, 1, 2]])
    for queries in (q, q[:1]):
        same(index.search(queries, 9), oracle(x, ids, queries, 9, metric))


def test_a_search_sees_the_state_before_or_after_an_update():
    """All vectors are replaced together again and again: no search may see two generations."""
    index = FlatIndex(4, "ip")
    ids = np.arange(40)
    index.add(np.full((40, 4), 1.0), ids)

    def finds_fault():
        for queries in (np.ones((1, 4)), np.ones((5, 4))):
            for allowed in (None, range(7, 30)):
                scores, found = index.search(queries, 40, allowed=allowed)
                full = found.shape[1] == (40 if allowed is None else 23)
                if len(np.unique(scores)) != 1 or not full:
                    return scores, found
        return None

    with searching(finds_fault):
        for generation in range(100):
            index.upsert(np.full((40, 4), float(generation)), ids)


# -- saved files -----------------------------------------------------------------------------------


def built(n: int = 20) -> FlatIndex:
    index = FlatIndex(5, "l2")
    index.add(np.random.default_rng(12).normal(size=(n, 5)))
    return index


@pytest.mark.parametrize("mmap", [False, True])
def test_saved_and_loaded_answers_are_the_same(tmp_path, mmap):
    index = built()
    index.remove([3])
    index.save(tmp_path)
    loaded = FlatIndex.load(tmp_path, mmap=mmap)
    q = np.random.default_rng(13).normal(size=(4, 5))
    np.testing.assert_array_equal(index.search(q, 19)[0], loaded.search(q, 19)[0])
    np.testing.assert_array_equal(index.search(q, 19)[1], loaded.search(q, 19)[1])
    loaded.add([])
    loaded.remove([8])
    assert 8 not in loaded.search(q, 19)[1]
    loaded.upsert(np.zeros((1, 5)), [7])
    np.testing.assert_array_equal(loaded.search(np.zeros(5), 1)[1], [[7]])
    loaded.save(tmp_path)  # over the files it was read from
    np.testing.assert_array_equal(FlatIndex.load(tmp_path).get([7]), np.zeros((1, 5)))


def test_any_flipped_bit_is_refused(tmp_path):
    built().save(tmp_path)
    for path in sorted(set(tmp_path.iterdir()) - {tmp_path / LOCK}):
        whole = path.read_bytes()
        for at in np.linspace(0, len(whole) - 1, 12).astype(int):
            damaged = bytearray(whole)
            damaged[at] ^= 1 << (at % 7)
            path.write_bytes(bytes(damaged))
            with pytest.raises(StoreError):
                FlatIndex.load(tmp_path)
        path.write_bytes(whole[:-1])
        with pytest.raises(StoreError):
            FlatIndex.load(tmp_path)
        path.write_bytes(whole)
    assert len(FlatIndex.load(tmp_path)) == 20


@pytest.mark.parametrize(
    ("meta", "files"),
    [
        ({}, {"vectors.npy": np.zeros((20, 5))}),  # float64
        ({}, {"vectors.npy": np.zeros((20, 6), np.float32)}),
        ({}, {"vectors.npy": np.asfortranarray(np.zeros((20, 5), np.float32))}),
        ({}, {"vectors.npy": np.full((20, 5), np.nan, np.float32)}),
        ({}, {"vectors.npy": np.array([{}] * 20)}),  # needs pickle
        ({}, {"ids.npy": np.zeros(20, np.int64)}),
        ({}, {"ids.npy": np.arange(20) - 1}),
        ({}, {"ids.npy": np.arange(20) + 1}),  # beyond next_id
        ({"count": 10**12}, {}),
        ({"count": -1}, {}),
        ({"dim": True}, {}),
        ({"dim": 0}, {}),
        ({"next_id": "20"}, {}),
        ({"metric": "dot"}, {}),
        ({"metric": ["l2"]}, {}),
        ({}, {"vectors.npy": None}),
    ],
)
def test_files_that_are_no_index_are_refused(tmp_path, meta, files):
    index = built()
    arrays = {"vectors.npy": index.get(index.ids), "ids.npy": index.ids, **files}

    def writer(array):
        return lambda path: np.save(path, array, allow_pickle=True)

    save_set(
        tmp_path,
        flat.KIND,
        {name: writer(array) for name, array in arrays.items() if array is not None},
        {"dim": 5, "metric": "l2", "count": 20, "next_id": 20, "lists": 0, **meta},
    )
    with pytest.raises(StoreError):
        FlatIndex.load(tmp_path)


def test_unverified_and_mapped_no_vector_is_read_before_a_search(tmp_path, monkeypatch):
    index, q = built(), np.random.default_rng(13).normal(size=(4, 5))
    index.remove([3])
    index.save(tmp_path)

    def reads(_):
        raise AssertionError("the vectors are read")

    monkeypatch.setattr(index_files, "row_norms", reads)
    loaded = FlatIndex.load(tmp_path, mmap=True, verify=False)
    for queries in (q, q[:1]):
        found, expected = loaded.search(queries, 19), index.search(queries, 19)
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_array_equal(found[1], expected[1])
    with pytest.raises(AssertionError):
        FlatIndex.load(tmp_path, mmap=True)


@pytest.mark.parametrize(
    ("meta", "halves"),
    [
        ({"largest_norm": 3.0}, np.full(20, 5, np.float32)),  # more than 3² / 2
        ({"largest_norm": 3.0}, np.full(20, np.nan, np.float32)),
        ({"largest_norm": 3.0}, np.full(19, 1, np.float32)),
        ({"largest_norm": 1e30}, np.full(20, 1, np.float32)),
        ({"largest_norm": "3"}, np.full(20, 1, np.float32)),
        ({}, np.full(20, 1, np.float32)),
    ],
)
def test_norms_that_can_not_be_are_refused(tmp_path, meta, halves):
    index = built()
    arrays = {"vectors.npy": index.get(index.ids), "ids.npy": index.ids, "half_squares.npy": halves}
    given = {"dim": 5, "metric": "l2", "count": 20, "next_id": 20, "lists": 0, **meta}
    save_set(tmp_path, flat.KIND, {n: storage.writer_of(a) for n, a in arrays.items()}, given)
    with pytest.raises(StoreError):
        FlatIndex.load(tmp_path, verify=False)


@pytest.mark.parametrize("verify", [True, False])
def test_cosine_needs_vectors_of_length_one_or_zero(tmp_path, verify):
    index = FlatIndex(5)
    index.add([*np.random.default_rng(14).normal(size=(19, 5)), np.zeros(5)])
    meta = {"dim": 5, "metric": "cosine", "count": 20, "next_id": 20, "lists": 0}
    for factor in (1, 1.001):
        arrays = {"vectors.npy": np.float32(factor) * index.get(index.ids), "ids.npy": index.ids}
        save_set(tmp_path, flat.KIND, {n: storage.writer_of(a) for n, a in arrays.items()}, meta)
        if factor == 1:  # as earlier versions saved it, without the norms
            assert len(FlatIndex.load(tmp_path, verify=verify)) == 20
    with pytest.raises(StoreError, match="impossible vectors"):
        FlatIndex.load(tmp_path, verify=verify)


def test_a_full_disk_leaves_what_was_saved(tmp_path, monkeypatch):
    index = built()
    index.save(tmp_path)
    index.remove([0])
    real, calls = np.save, []

    def full(file, array, **kwargs):
        calls.append(file)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        real(file, array, **kwargs)

    monkeypatch.setattr(storage.np, "save", full)
    with pytest.raises(DiskError, match="No space left"):
        index.save(tmp_path)
    assert len(FlatIndex.load(tmp_path)) == 20
    assert len(list(tmp_path.iterdir())) == 5  # three files, the manifest and the lock


def test_a_missing_index_is_named(tmp_path):
    with pytest.raises(StoreError, match=r"there is no directory .+, and so no flat index"):
        FlatIndex.load(tmp_path / "nowhere")
    with pytest.raises(StoreError, match="holds no flat index: "):
        FlatIndex.load(tmp_path)


def test_the_indexes_need_numpy_alone():
    code = (
        "import sys, minirag.retrieval; "
        "sys.exit(bool({'torch', 'tokenizers', 'faiss', 'safetensors'} & set(sys.modules)))"
    )
    root = Path(__file__).parent.parent
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
