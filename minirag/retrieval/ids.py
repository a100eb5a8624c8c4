"""The rules for ids, the same in every index: whole numbers from 0 on, held once, never re-used."""

from __future__ import annotations

from collections.abc import Collection, Container
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minirag.errors import UsageError

Ids = NDArray[np.int64]


def as_ids(ids: int | Collection[int] | NDArray[Any]) -> Ids:
    """``ids`` as an int64 array (n,); one number counts as an array of one.

    Ids are 0 or more, so that a -1 from elsewhere can't be taken for one.
    """
    if isinstance(ids, Collection) and not isinstance(ids, np.ndarray):
        ids = list(ids)  # a set or a range as well
    array = np.atleast_1d(np.asarray(ids))
    if array.size == 0:
        return np.empty(0, np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise UsageError(
            f"ids have shape {array.shape} and type {array.dtype}: give one row of whole numbers."
        )
    if array.min() < 0 or array.max() > np.iinfo(np.int64).max:
        raise UsageError("an id is negative or above 2**63 - 1: give ids from 0 on.")
    return array.astype(np.int64)


def check_distinct(ids: Ids) -> None:
    """Refuse a call that names one id twice."""
    ordered = np.sort(ids)
    twice = np.flatnonzero(ordered[1:] == ordered[:-1])
    if len(twice):
        raise UsageError(f"id {ordered[twice[0]]} is given twice in one call: give each id once.")


def ids_for(
    n: int,
    what: str,
    ids: int | Collection[int] | NDArray[Any] | None,
    next_id: int,
    held: Container[int],
) -> Ids:
    """The ids under which n new things are added: those given, or numbers counted on.

    Raises
    ------
    UsageError
        If there is not one each, one is given twice, or one is held already.
    """
    if ids is None:
        if next_id + n > np.iinfo(np.int64).max:
            raise UsageError("the ids up to 2**63 - 1 are used up: give ids yourself.")
        return np.arange(next_id, next_id + n, dtype=np.int64)
    new = one_id_each(n, what, ids)
    known = next((id for id in new.tolist() if id in held), None)
    if known is not None:
        raise UsageError(f"id {known} is in the index already: use upsert to replace it.")
    return new


def one_id_each(n: int, what: str, ids: int | Collection[int] | NDArray[Any]) -> Ids:
    """``ids`` as an array (n,) of different ids."""
    array = as_ids(ids)
    if len(array) != n:
        raise UsageError(f"{n} {what} came with {len(array)} ids: give one id each.")
    check_distinct(array)
    return array


def check_held(ids: Ids, held: Container[int]) -> None:
    """Refuse ids that are not in the index."""
    unknown = next((id for id in ids.tolist() if id not in held), None)
    if unknown is not None:
        raise UsageError(f"id {unknown} is not in the index.")
