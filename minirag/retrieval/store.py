"""Adding, replacing and removing vectors while other threads search: what both indexes share."""

from __future__ import annotations

import threading
from collections.abc import Collection
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minirag.retrieval.ids import Ids, as_ids, check_distinct, check_held, ids_for, one_id_each
from minirag.retrieval.rows import RowNumbers, Rows, lay_out, one_list, places, table_of, write_rows
from minirag.retrieval.vectors import Floats, Metric, as_vectors, check_space


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
        self._rows = one_list(np.empty((0, self.dim), np.float32), np.empty(0, np.int64))
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
            new = ids_for(len(vectors), "vectors", ids, self._next_id, self._row_of)
            self._change(remove=new[:0], add=new, vectors=vectors)
        return new

    def upsert(self, x: ArrayLike, ids: int | Collection[int] | NDArray[Any]) -> None:
        """Add vectors (n, D), replacing those that are held under the same ids (n,)."""
        vectors, _ = as_vectors(x, self.dim, self.metric, "vectors")
        new = one_id_each(len(vectors), "vectors", ids)
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

    def _rows_of(self, ids: Ids) -> RowNumbers:
        check_held(ids, self._row_of)
        return np.array([self._row_of[id] for id in ids.tolist()], np.intp)

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
        at = places(rows.start + rows.size, lists[by_list])
        largest = max(rows.largest_norm, write_rows(rows, at, vectors, add, by_list))
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

    def state(self) -> tuple[Rows, int]:
        """Rows and the next id, of one moment."""
        with self._lock:
            return self._rows, self._next_id

    def hold(self, rows: Rows, next_id: int) -> None:
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


def _with_room(old: Rows, more: RowNumbers) -> tuple[Rows, RowNumbers]:
    """The live rows in new arrays, with room (lists,) for ``more`` and for as much as a quarter."""
    first = len(old.ids) == 0  # what comes first gets just the room that it needs
    size = old.live + more
    room = size if first else size + size // 4 + 8
    live = old.all_live()
    return lay_out(old, live, old.list_of(live), old.centroids, room), room
