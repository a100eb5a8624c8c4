"""Maps made by hand: every number is known, and what follows from it can be told."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from minirag.choosing.measured_map import Answering, Cell, MeasuredMap, Place, Training
from minirag.combination.arms import ARMS
from minirag.intervals import Interval

NAMES = tuple(arm.name for arm in ARMS)
BASE, TUNED, RAG, TUNED_RAG, RAFT = NAMES
VOLATILITIES = (0.0, 0.25, 0.5, 0.75, 1.0)
SECONDS = dict(zip(NAMES, (0.01, 0.01, 0.04, 0.04, 0.05), strict=True))


def cell(volatility: float, right: Mapping[str, float], width: float = 0.02) -> Cell:
    """Intervals as wide to both sides; so those of the differences."""

    def around(value: float) -> Interval:
        return Interval(value, value - width, value + width)

    return Cell(
        volatility,
        200,
        {name: around(right[name]) for name in NAMES},
        {name: (right[name] - 0.01, right[name] + 0.01) for name in NAMES},
        tuple(
            (one, other, around(right[one] - right[other]))
            for one, other in itertools.combinations(NAMES, 2)
        ),
    )


def usual(volatility: float, width: float = 0.02, tuned: float = 0.96) -> Cell:
    """As the textbooks say: what is in the weights is wrong once it has changed."""
    stale = tuned * (1 - volatility)
    values = (0.0, stale, 0.4, 0.6, 0.9)
    return cell(volatility, dict(zip(NAMES, values, strict=True)), width)


def place(
    specialisation: str,
    entities: int,
    cells: Sequence[Cell],
    seconds: Mapping[str, float] = SECONDS,
    training: float = 100.0,
) -> Place:
    return Place(
        specialisation,
        entities,
        12.5,
        {
            "closed-book": Training(
                training, 8e5, 4 * entities, 20.0, ("stopped early: x", "all 9 steps are done.")
            ),
            "raft": Training(1.5 * training, 8e5, 2000, 1.0, ("all 9 steps are done.",) * 2),
        },
        {name: Answering(seconds[name], 1000 * seconds[name]) for name in NAMES},
        3.0,
        0.02,
        tuple(cells),
    )


def about() -> dict[str, object]:
    return {
        "base": "small-base",
        "domain": "medicine",
        "seeds": [301, 302],
        "questions": 200,
        "machines": [{"device": "a slide rule"}],
    }


def textbook_map(**options: float) -> MeasuredMap:
    return MeasuredMap(
        about(),
        tuple(
            place(words, entities, [usual(v, **options) for v in VOLATILITIES])
            for words in ("shared", "disjoint")
            for entities in (100, 300, 1000)
        ),
    )
