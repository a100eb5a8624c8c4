"""Vectors and ids as they lie in memory, and as one search sees them.

Rows lie list after list in one array: an IVF index has a list per centroid, the exact index has
one list. A list may have free room at its end. A removed row is dead, not gone, until all are laid
out anew.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from minirag.retrieval.ids import Ids
from minirag.retrieval.vectors import Floats, half_squares, row_norms

RowNumbers = NDArray[np.intp]
NO_ROWS: RowNumbers = np.empty(0, np.intp)
COPIED_AT_ONCE = 1 << 14  # rows


@dataclass(frozen=True)
class Centroids:
    """The centres of the lists: a vector belongs to the list of its nearest one."""

    vectors: Floats  # (lists, D)
    half_squares: Floats  # (lists,)
    largest_norm: float

    @classmethod
    def of(cls, vectors: Floats) -> Centroids:
        """Measure the norms."""
        norms = row_norms(vectors)
        return cls(vectors, half_squares(norms), float(norms.max()))


@dataclass(frozen=True)
class Rows:
    """What one search sees; nothing in it ever changes.

    An update writes into free room, which no ``Rows`` reaches yet, or into new arrays, and puts a
    new ``Rows`` in the place of this one. So a search sees the state before or after an update,
    never between.
    """

    vectors: Floats  # (capacity, D); what lies outside the lists means nothing
    ids: Ids  # (capacity,)
    half_squares: Floats  # (capacity,) |x|²/2
    largest_norm: float
    start: RowNumbers  # (lists,) ascending: where each list begins
    size: RowNumbers  # (lists,)
    dead: RowNumbers  # ascending: rows in the lists that no search may find
    centroids: Centroids | None  # of the lists, or None if there is one and nothing to choose

    @cached_property
    def n_live(self) -> int:
        """How many rows a search may find."""
        return int(self.size.sum()) - len(self.dead)

    @cached_property
    def live(self) -> RowNumbers:
        """How many rows of each list a search may find (lists,)."""
        return self.size - np.bincount(self.list_of(self.dead), minlength=len(self.size))

    def list_of(self, rows: RowNumbers) -> RowNumbers:
        """The list that each row is in."""
        return np.searchsorted(self.start, rows, side="right") - 1

    def dead_between(self, start: int, stop: int) -> RowNumbers:
        """The dead among these rows, counted from ``start``."""
        low, high = np.searchsorted(self.dead, (start, stop))
        return self.dead[low:high] - start

    def all_live(self) -> RowNumbers:
        """The numbers of all rows that a search may find, ascending."""
        rows = places(self.start, np.repeat(np.arange(len(self.size)), self.size))
        if len(self.dead) == 0:
            return rows
        alive = np.ones(len(self.ids), bool)
        alive[self.dead] = False
        return rows[alive[rows]]

    def only(self, chosen: RowNumbers) -> Rows:
        """These live rows alone (ascending): copied if they are few, else the others are dead."""
        if 4 * len(chosen) > self.n_live:
            others = np.ones(len(self.ids), bool)
            others[chosen] = False
            live = self.all_live()
            return replace(self, dead=np.union1d(self.dead, live[others[live]]))
        return lay_out(self, chosen, self.list_of(chosen), self.centroids)


def one_list(vectors: Floats, ids: Ids) -> Rows:
    """These vectors (n, D) and ids (n,), not copied, in one list."""
    norms = row_norms(vectors)
    size, start = np.array([len(ids)]), np.zeros(1, np.intp)
    largest = float(norms.max(initial=0.0))
    return Rows(vectors, ids, half_squares(norms), largest, start, size, NO_ROWS, None)


def places(first: RowNumbers, lists: RowNumbers) -> RowNumbers:
    """Rows for members that come list after list: counted on, in each, from ``first`` (lists,)."""
    size = np.bincount(lists, minlength=len(first))
    return first[lists] + np.arange(len(lists)) - (np.cumsum(size) - size)[lists]


def lay_out(
    old: Rows,
    rows: RowNumbers,
    lists: RowNumbers,
    centroids: Centroids | None,
    room: RowNumbers | None = None,
) -> Rows:
    """Copy these rows of ``old`` into new arrays, each into its list.

    Parameters
    ----------
    rows, lists : (n,)
    room : (lists,), optional
        How many rows each list may come to hold; default: as many as it gets.
    """
    size = np.bincount(lists, minlength=1 if centroids is None else len(centroids.vectors))
    room = size if room is None else room
    start = np.cumsum(room) - room
    order = np.argsort(lists, kind="stable")
    new = Rows(
        np.empty((room.sum(), old.vectors.shape[1]), np.float32),
        np.empty(room.sum(), np.int64),
        np.empty(room.sum(), np.float32),
        0.0,
        start,
        size,
        NO_ROWS,
        centroids,
    )
    at = places(start, lists[order])
    norm = write_rows(new, at, old.vectors, old.ids, rows[order])
    return replace(new, largest_norm=norm)


def write_rows(into: Rows, at: RowNumbers, vectors: Floats, ids: Ids, rows: RowNumbers) -> float:
    """Write vectors[rows], ids[rows] at the rows ``at``; return their largest norm."""
    largest = 0.0
    for begin in range(0, len(rows), COPIED_AT_ONCE):
        part = slice(begin, begin + COPIED_AT_ONCE)
        some = vectors[rows[part]]
        norms = row_norms(some)
        into.vectors[at[part]], into.ids[at[part]] = some, ids[rows[part]]
        into.half_squares[at[part]] = half_squares(norms)
        largest = max(largest, float(norms.max()))
    return largest


def table_of(rows: Rows) -> dict[int, int]:
    """The row of each id."""
    live = rows.all_live()
    return dict(zip(rows.ids[live].tolist(), live.tolist(), strict=True))
