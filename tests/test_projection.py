"""Principal components against the eigenvectors of the covariance matrix."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minirag.errors import UsageError
from minirag.retrieval.projection import FITTED_ON, Projection


@given(n=st.integers(4, 60), dim=st.integers(2, 9), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_axes_are_the_covariance_s_eigenvectors(n: int, dim: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, dim)) * (1 + np.arange(dim)) ** 2 + 5  # spreads well apart
    view = Projection.fit(x)
    values, vectors = np.linalg.eigh(np.cov(x.T))
    shares = values[::-1] / values.sum()
    assert view.shares == pytest.approx(shares[:2], abs=1e-4)
    if shares[0] > 1.2 * shares[1] and (dim == 2 or shares[1] > 1.2 * shares[2]):
        for axis, expected in zip(view.axes, vectors.T[::-1], strict=False):
            assert abs(float(axis @ expected)) == pytest.approx(1, abs=1e-3)
    assert view.axes @ view.axes.T == pytest.approx(np.eye(2), abs=1e-4)
    assert view(x).mean(axis=0) == pytest.approx(np.zeros(2), abs=1e-2 * np.abs(x).max())
    assert (view.axes[[0, 1], np.abs(view.axes).argmax(axis=1)] > 0).all()


def test_a_plane_is_seen_whole() -> None:
    rng = np.random.default_rng(1)
    flat = rng.normal(size=(50, 2)) @ rng.normal(size=(2, 12))
    view = Projection.fit(flat)
    assert float(view.shares.sum()) == pytest.approx(1, abs=1e-5)
    seen = view(flat)
    before = np.linalg.norm(flat[:, None] - flat, axis=-1)
    after = np.linalg.norm(seen[:, None] - seen, axis=-1)
    assert after == pytest.approx(before, abs=1e-4)


def test_many_vectors_are_sampled_and_the_same_each_time() -> None:
    x = np.random.default_rng(2).normal(size=(FITTED_ON + 500, 6)) * [9, 5, 1, 1, 1, 1]
    one, other = Projection.fit(x), Projection.fit(x)
    assert np.array_equal(one.axes, other.axes)
    assert abs(float(one.axes[0, 0])) > 0.99


@pytest.mark.parametrize("x", [np.zeros((1, 5)), np.zeros((0, 5)), np.zeros((5, 1)), np.zeros(5)])
def test_too_little_to_see_is_a_sentence(x) -> None:
    with pytest.raises(UsageError, match="principal axes"):
        Projection.fit(x)


def test_equal_vectors_have_no_spread() -> None:
    view = Projection.fit(np.ones((5, 3)))
    assert np.isfinite(view.axes).all()
    assert view.shares.tolist() == [0.0, 0.0]
