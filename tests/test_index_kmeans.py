"""K-means: the laws of Lloyd's iteration, and the answers where they are known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minirag.errors import UsageError
from minirag.retrieval.kmeans import assign, kmeans


def nearest(x, centroids, spherical):
    """The centroid of each vector by the definition, in float64."""
    x, c = x.astype(np.float64), centroids.astype(np.float64)
    if spherical:
        return (x @ c.T).argmax(axis=1)
    return ((x[:, None] - c[None]) ** 2).sum(-1).argmin(axis=1)


def inertia_of(x, centroids, spherical):
    own = centroids[nearest(x, centroids, spherical)].astype(np.float64)
    return ((x - own) ** 2).sum()


@pytest.mark.parametrize("start", ["random", "k-means++"])
@pytest.mark.parametrize("spherical", [False, True])
def test_finds_clusters_that_are_apart(start, spherical):
    rng = np.random.default_rng(0)
    centres = np.eye(6)[:, :5] * 10 + np.array([0, 0, 0, 0, -3])
    x = np.repeat(centres, 40, axis=0) + 0.1 * rng.normal(size=(240, 5))
    best = min(
        (kmeans(x, 6, spherical=spherical, start=start, seed=seed) for seed in range(8)),
        key=lambda found: found.inertia[-1],
    )
    labels = nearest(x, best.centroids, spherical).reshape(6, 40)
    assert (labels == labels[:, :1]).all()
    assert len(set(labels[:, 0])) == 6
    if not spherical:
        means = x.reshape(6, 40, 5).mean(axis=1)[np.argsort(labels[:, 0])]
        np.testing.assert_allclose(best.centroids, means, atol=1e-5)
    else:
        np.testing.assert_allclose(np.linalg.norm(best.centroids, axis=1), 1, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 60),
    k=st.integers(1, 60),
    spherical=st.booleans(),
    start=st.sampled_from(["random", "k-means++"]),
    seed=st.integers(0, 100),
    copies=st.booleans(),
)
def test_inertia_falls_at_every_step(n, k, spherical, start, seed, copies):
    k = min(k, n)
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3)).astype(np.float32)
    if copies:
        x[n // 3 :] = x[0]
    found = kmeans(x, k, spherical=spherical, start=start, seed=seed)
    assert np.all(np.diff(found.inertia) < 0)
    assert found.inertia[0] >= inertia_of(x, found.centroids, spherical) - 1e-3
    assert found.centroids.shape == (k, 3)
    assert np.isfinite(found.centroids).all()
    assert found.sizes.sum() == n


@pytest.mark.parametrize("spherical", [False, True])
def test_a_step_is_assignment_and_mean(spherical, monkeypatch):
    rng = np.random.default_rng(1)
    x = (rng.normal(size=(500, 7)) * rng.gamma(2, size=(500, 1))).astype(np.float32)
    first = kmeans(x, 9, spherical=spherical, iterations=1, seed=4)
    second = kmeans(x, 9, spherical=spherical, iterations=2, seed=4)
    labels = nearest(x, first.centroids, spherical)
    np.testing.assert_array_equal(np.bincount(labels, minlength=9), second.sizes)
    expected = np.stack([x[labels == c].astype(np.float64).mean(axis=0) for c in range(9)])
    if spherical:
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(second.centroids, expected, atol=1e-5)
    np.testing.assert_allclose(
        second.inertia[1], inertia_of(x, first.centroids, spherical), rtol=1e-5
    )


@pytest.mark.parametrize("spherical", [False, True])
def test_assignment_in_blocks_is_the_nearest_centroid(spherical):
    rng = np.random.default_rng(2)
    x = rng.normal(size=(3000, 5)).astype(np.float32)
    c = rng.normal(size=(700, 5)).astype(np.float32)
    c[350] = c[20]  # of two equal ones, the first
    numbers, products = assign(x, c, spherical=spherical)
    np.testing.assert_array_equal(numbers, nearest(x, c, spherical))
    expected = (x * c[numbers]).sum(1) - (0 if spherical else (c[numbers] ** 2).sum(1) / 2)
    np.testing.assert_allclose(products, expected, atol=1e-5)
    assert 350 not in numbers


def test_empty_clusters_get_the_farthest_vectors():
    x = np.concatenate((np.zeros((50, 2)), [[10, 0], [0, 10], [10, 10]])).astype(np.float32)
    found = kmeans(x, 4, seed=0)  # most starts draw the same point several times
    assert found.reseeded > 0
    assert found.inertia[-1] == 0
    assert sorted(found.centroids.tolist()) == [[0, 0], [0, 10], [10, 0], [10, 10]]


def test_the_same_seed_gives_the_same_bytes():
    x = np.random.default_rng(3).normal(size=(400, 8))
    one, two = (kmeans(x, 20, seed=11).centroids for _ in range(2))
    assert one.tobytes() == two.tobytes()
    assert one.tobytes() != kmeans(x, 20, seed=12).centroids.tobytes()


@pytest.mark.parametrize(
    ("x", "k", "sentence"),
    [
        (np.ones((3, 2)), 4, "4 clusters of 3 vectors"),
        (np.ones((3, 2)), 0, "0 clusters"),
        (np.array([[1.0, np.nan]]), 1, "row 0"),
    ],
)
def test_what_is_refused(x, k, sentence):
    with pytest.raises(UsageError, match=sentence):
        kmeans(x, k)


def test_agrees_with_scikit_learn():
    cluster = pytest.importorskip("sklearn.cluster", reason="compares with scikit-learn")
    x = np.random.default_rng(5).normal(size=(800, 6)).astype(np.float32)
    start = kmeans(x, 12, iterations=1, seed=6).centroids
    ours = kmeans(x, 12, iterations=9, seed=6)
    theirs = cluster.KMeans(12, init=start, n_init=1, max_iter=8, tol=0, algorithm="lloyd").fit(x)
    np.testing.assert_allclose(ours.centroids, theirs.cluster_centers_, atol=1e-4)
