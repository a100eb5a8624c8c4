"""Random draws that come out the same on every machine and every Python version.

Python promises that ``random.Random(seed).random()`` never changes its sequence; it promises
nothing about ``choice``, ``shuffle`` or ``sample``. Everything here is therefore built on
``random()`` alone, and seeds of several parts are joined through SHA-256, never through ``hash()``.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Dice:
    """A seeded source of draws.

    Parameters
    ----------
    *seed : int or str
        The parts of the seed: ``Dice(7, "reading", "en")``. Different parts, independent draws.
    """

    def __init__(self, *seed: int | str) -> None:
        digest = hashlib.sha256("/".join(map(str, seed)).encode()).digest()
        self.unit = random.Random(int.from_bytes(digest[:8], "big")).random  # in [0, 1)

    def below(self, n: int) -> int:
        """One of 0, 1, ..., n - 1."""
        return int(self.unit() * n)

    def between(self, low: int, high: int) -> int:
        """One of low, ..., high, both included."""
        return low + int(self.unit() * (high - low + 1))

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self.unit() < probability

    def pick(self, items: Sequence[T]) -> T:
        """One of the items, each as likely."""
        return items[int(self.unit() * len(items))]

    def weighted(self, weights: Sequence[float]) -> int:
        """The index of a weight, drawn in proportion to the weights."""
        left = self.unit() * sum(weights)
        for index, weight in enumerate(weights):
            left -= weight
            if left < 0:
                return index
        return max(i for i, w in enumerate(weights) if w > 0)  # rounding ate the rest

    def sample(self, items: Sequence[T], k: int) -> list[T]:
        """Return ``k`` different items in random order (all of them, shuffled, if fewer)."""
        pool = list(items)
        k = min(k, len(pool))
        for i in range(k):  # Fisher-Yates, stopped after k
            j = i + int(self.unit() * (len(pool) - i))
            pool[i], pool[j] = pool[j], pool[i]
        return pool[:k]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """All the items in random order."""
        return self.sample(items, len(items))
