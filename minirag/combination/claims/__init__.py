"""The claims, a module each; the registry names them in the order of the ledger."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Any

from minirag.combination.ledger import Claim
from minirag.errors import UsageError

MODULES = {
    "F1": "f1_pretrained",
    "F2": "f2_rate",
    "F3": "f3_freezing",
    "F4": "f4_adaptation",
    "F5": "f5_forgetting",
    "R1": "r1_both_parts",
    "R2": "r2_not_in_weights",
    "R3": "r3_current",
    "R4": "r4_two_readers",
    "X1": "x1_reader_for_rag",
    "X2": "x2_too_large",
    "B1": "b1_specialisation",
    "B2": "b2_updating",
    "B3": "b3_overfitting",
    "W1": "w1_stable",
    "W2": "w2_changing",
    "W3": "w3_both",
}


def claims_named(ids: Iterable[str] = ()) -> list[Claim[Any]]:
    """Claims by their ids, in the given order; all of them if none is given.

    Raises
    ------
    UsageError
        If there is no claim of an id.
    """
    ids = list(ids) or list(MODULES)
    for id in ids:
        if id not in MODULES:
            raise UsageError(f"there is no claim {id!r}: give some of {', '.join(MODULES)}.")
    return [
        importlib.import_module(f"minirag.combination.claims.{MODULES[id]}").CLAIM for id in ids
    ]
