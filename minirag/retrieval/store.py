"""Vectors and their ids in memory: added, replaced and removed while other threads search.

Rows lie list after list in one array: an IVF index has a list per centroid, the exact index has
one list. A list has some free room at its end, so that adding one by one stays cheap; when one is
full, all are laid out anew with half as much room again. A removed row is dead, not gone, until a
quarter of all are.
"""

from __future__ import annotations

import threading
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minirag.errors import UsageError
from minirag.retrieval.vectors import (
    Floats,
    Ids,
    Metric,
    as_ids,
    as_vectors,
    check_distinct,
    check_space,
    half_squares,
    row_norms,
)

RowNumbers = NDArray[np.intp]
NO_ROWS: RowNumbers = np.empty(0, np.intp)
COPIED_AT_ONCE = 1 << 14  # rows


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
    centroids: Floats  # (lists, D), or (0, D) if there is one list and nothing to choose

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
        rows = _places(self.start, np.repeat(np.arange(len(self.size)), self.size))
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


def no_rows(dim: int) -> Rows:
    """One empty list."""
    nothing, one = np.empty((0, dim), np.float32), np.zeros(1, np.intp)
    halves = np.empty(0, np.float32)
    return Rows(nothing, np.empty(0, np.int64), halves, 0.0, one, one, NO_ROWS, nothing)


def _places(first: RowNumbers, lists: RowNumbers) -> RowNumbers:
    """Rows for members that come list after list: counted on, in each, from ``first`` (lists,)."""
    size = np.bincount(lists, minlength=len(first))
    return first[lists] + np.arange(len(lists)) - (np.cumsum(size) - size)[lists]


def lay_out(
    old: Rows,
    rows: RowNumbers,
    lists: RowNumbers,
    centroids: Floats,
    room: RowNumbers | None = None,
) -> Rows:
    """Copy these rows of ``old`` into new arrays, each into its list.

    Parameters
    ----------
    rows, lists : (n,)
    room : (lists,), optional
        How many rows each list may come to hold; default: as many as it gets.
    """
    size = np.bincount(lists, minlength=max(len(centroids), 1))
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
    at = _places(start, lists[order])
    norm = _copy(new, at, old.vectors, old.ids, rows[order])
    return replace(new, largest_norm=norm)


def _copy(into: Rows, at: RowNumbers, vectors: Floats, ids: Ids, rows: RowNumbers) -> float:
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


class VectorIndex:
    """What the exact and the IVF index have in common: everything but how they search.

    Any thread may search while another one updates. Updates check first and change after: one that
    is refused has changed nothing.
    """

    def __init__(self, dim: int, metric: Metric = "cosine") -> None:
        check_space(dim, metric)
        self.dim = int(dim)
        self.metric: Metric = metric
        # Updates take the lock and end by replacing `_rows`, one assignment; a search reads `_rows`
        # once and works on what it got.
        self._lock = threading.RLock()
        self._row_of: dict[int, int] = {}
        self._next_id = 0
        self._rows = no_rows(self.dim)
        self._room = self._rows.size  # (lists,) rows that each list may come to hold where it is

    def __len__(self) -> int:
        return self._rows.n_live

    def __contains__(self, id: int) -> bool:
        return id in self._row_of

    @property
    def ids(self) -> Ids:
        """All ids, ascending (n,)."""
        rows = self._rows
        return np.sort(rows.ids[rows.all_live()])

    @property
    def rows(self) -> Rows:
        """The state that a search sees which starts now."""
        return self._rows

    def get(self, ids: int | Collection[int] | NDArray[Any]) -> Floats:
        """Copies (n, D) of the vectors held under ``ids``, in their order.

        Under cosine they are the normalised ones.

        Raises
        ------
        UsageError
            If an id is not in the index.
        """
        wanted = as_ids(ids)
        with self._lock:  # the table of ids and the rows must be of one state
            found, rows = self._rows_of(wanted), self._rows
        return rows.vectors[found]

    def add(self, x: ArrayLike, ids: int | Collection[int] | NDArray[Any] | None = None) -> Ids:
        """Add vectors (n, D) under new ids.

        Parameters
        ----------
        ids : (n,), optional
            Default: numbers counted on from the highest ever used, so that the id of a removed
            vector does not come back by itself.

        Returns
        -------
        (n,) int64
            The ids.

        Raises
        ------
        UsageError
            If an id is held already (see :meth:`upsert`) or given twice, or a vector is refused.
        """
        vectors, _ = as_vectors(x, self.dim, self.metric, "vectors")
        with self._lock:
            new = self._new_ids(len(vectors)) if ids is None else as_ids(ids)
            _check_pairs(vectors, new)
            known = next((id for id in new.tolist() if id in self._row_of), None)
            if known is not None:
                raise UsageError(f"id {known} is in the index already: use upsert to replace it.")
            self._change(remove=new[:0], add=new, vectors=vectors)
        return new

    def upsert(self, x: ArrayLike, ids: int | Collection[int] | NDArray[Any]) -> None:
        """Add vectors (n, D), replacing those that are held under the same ids (n,)."""
        vectors, _ = as_vectors(x, self.dim, self.metric, "vectors")
        new = as_ids(ids)
        _check_pairs(vectors, new)
        with self._lock:
            known = np.array([id for id in new.tolist() if id in self._row_of], np.int64)
            self._change(remove=known, add=new, vectors=vectors)

    def remove(self, ids: int | Collection[int] | NDArray[Any]) -> None:
        """Take vectors out; an unknown id is refused, and then none is removed."""
        gone = as_ids(ids)
        check_distinct(gone)
        none = np.empty((0, self.dim), np.float32)
        with self._lock:
            self._change(remove=gone, add=gone[:0], vectors=none)

    # -- inside ------------------------------------------------------------------------------------

    def _lists_of(self, vectors: Floats) -> RowNumbers:
        """The list (n,) that each vector belongs to."""
        return np.zeros(len(vectors), np.intp)

    def _only(self, allowed: Collection[int] | NDArray[Any] | None) -> Rows:
        """What a search sees that may find these ids alone; those not held are passed over."""
        if allowed is None:
            return self._rows
        wanted = np.unique(as_ids(allowed)).tolist()
        with self._lock:
            found, rows = [self._row_of.get(id) for id in wanted], self._rows
        return rows.only(np.sort(np.array([row for row in found if row is not None], np.intp)))

    def _new_ids(self, n: int) -> Ids:
        if self._next_id + n > np.iinfo(np.int64).max:
            raise UsageError("the ids up to 2**63 - 1 are used up: give ids yourself.")
        return np.arange(self._next_id, self._next_id + n, dtype=np.int64)

    def _rows_of(self, ids: Ids) -> RowNumbers:
        try:
            return np.array([self._row_of[id] for id in ids.tolist()], np.intp)
        except KeyError as error:
            raise UsageError(f"id {error} is not in the index.") from None

    def _change(self, remove: Ids, add: Ids, vectors: Floats) -> None:
        """Remove, then add, then show both at once. A replaced vector gets a new row."""
        gone = np.sort(self._rows_of(remove))
        dead = np.insert(self._rows.dead, np.searchsorted(self._rows.dead, gone), gone)
        lists = self._lists_of(vectors)
        by_list = np.argsort(lists, kind="stable")
        more = np.bincount(lists, minlength=len(self._room))
        rows, room = replace(self._rows, dead=dead), self._room
        moved = bool(np.any(rows.size + more > room)) or 4 * len(dead) > rows.size.sum()
        if moved:
            rows, room = _with_room(rows, more)
        at = _places(rows.start + rows.size, lists[by_list])
        largest = max(rows.largest_norm, _copy(rows, at, vectors, add, by_list))
        rows = replace(rows, size=rows.size + more, largest_norm=largest)
        # Nothing can fail from here on.
        if moved:
            self._row_of = table_of(rows)
        else:
            for id in remove.tolist():
                del self._row_of[id]
            self._row_of.update(zip(add[by_list].tolist(), at.tolist(), strict=True))
        self._next_id = max(self._next_id, int(add.max(initial=-1)) + 1)
        self._rows, self._room = rows, room

    def _state(self) -> tuple[Rows, int]:
        """Rows and the next id, of one moment."""
        with self._lock:
            return self._rows, self._next_id

    def _show(self, rows: Rows, next_id: int) -> None:
        """Hold these rows from now on, with no room to spare."""
        with self._lock:
            self._row_of, self._next_id = table_of(rows), next_id
            self._rows, self._room = rows, rows.size

    def _copy_to(self, other: VectorIndex) -> None:
        """Let ``other`` hold the same; it shares the arrays and takes over their free room."""
        with self._lock:
            other._rows, other._room = self._rows, self._room
            other._row_of, other._next_id = dict(self._row_of), self._next_id
            self._room = self._rows.size  # so that only one of the two writes into it


def _check_pairs(vectors: Floats, ids: Ids) -> None:
    if len(vectors) != len(ids):
        raise UsageError(f"{len(vectors)} vectors came with {len(ids)} ids: give one id each.")
    check_distinct(ids)


def _with_room(old: Rows, more: RowNumbers) -> tuple[Rows, RowNumbers]:
    """The live rows in new arrays, with room (lists,) for ``more`` and for as much as a quarter."""
    first = len(old.ids) == 0  # what comes first gets just the room that it needs
    size = old.live + more
    room = size if first else size + size // 4 + 8
    live = old.all_live()
    return lay_out(old, live, old.list_of(live), old.centroids, room), room


def table_of(rows: Rows) -> dict[int, int]:
    """The row of each id."""
    live = rows.all_live()
    return dict(zip(rows.ids[live].tolist(), live.tolist(), strict=True))
