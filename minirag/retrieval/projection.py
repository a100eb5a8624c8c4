"""Principal components: the flat view of high-dimensional vectors that keeps most of their spread.

The directions of largest variance are the right singular vectors of the centred data (Eckart and
Young 1936; Hotelling 1933).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from minirag.errors import UsageError
from minirag.retrieval.vectors import Floats

FITTED_ON = 5_000  # vectors at most; more change the picture little and take long


@dataclass(frozen=True)
class Projection:
    """A view from D numbers down to a few."""

    mean: Floats  # (D,)
    axes: Floats  # (n, D), of length 1 and at right angles, the widest first
    shares: Floats  # (n,) of all variance that each axis shows

    @classmethod
    def fit(cls, x: ArrayLike, n: int = 2, *, seed: int = 0) -> Projection:
        """Find the ``n`` widest axes of vectors x (N, D), by a sample if there are many.

        An axis can point either way: its largest component is made positive.

        Raises
        ------
        UsageError
            If there are fewer than two vectors, or fewer dimensions than axes.
        """
        vectors = np.asarray(x, np.float32)
        if vectors.ndim != 2 or len(vectors) < 2 or not 1 <= n <= vectors.shape[1]:
            raise UsageError(
                f"vectors of shape {vectors.shape} have no {n} principal axes: give (N, D) with "
                f"two or more vectors of {n} or more numbers."
            )
        if len(vectors) > FITTED_ON:
            sample = np.random.default_rng(seed).choice(len(vectors), FITTED_ON, replace=False)
            vectors = vectors[np.sort(sample)]
        mean = vectors.mean(axis=0)
        _, spread, axes = np.linalg.svd(vectors - mean, full_matrices=False)
        axes = axes[:n]
        largest = np.abs(axes).argmax(axis=1)
        axes *= np.sign(axes[np.arange(len(axes)), largest])[:, None]
        variance = np.square(spread)
        shares = variance[:n] / max(float(variance.sum()), np.finfo(np.float32).tiny)
        return cls(mean, axes, shares.astype(np.float32))

    def __call__(self, x: ArrayLike) -> Floats:
        """Vectors (N, D) as seen in the view (N, n)."""
        seen: Floats = (np.asarray(x, np.float32) - self.mean) @ self.axes.T
        return seen
