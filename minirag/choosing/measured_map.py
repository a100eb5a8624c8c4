"""The measured map: how often each arm is right, where, and what it takes.

A *place* is one specialisation and one size of the knowledge; its readers were fine-tuned for it.
In a place the volatility varies: each *cell* has the same readers, asked when another share of what
they learned has changed.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minirag.combination.arms import ARMS
from minirag.combination.ledger import MISSING, checksum, results_root
from minirag.errors import DataError
from minirag.files import write_text_atomically
from minirag.intervals import Interval

MAP, PICTURE = "map.json", "map.png"


@dataclass(frozen=True)
class Cell:
    """All arms at one volatility, over all seeds."""

    volatility: float  # share of the questions whose answer changed after training
    n: int  # questions, in each seed's world
    right: Mapping[str, Interval]  # exact match of each arm, 95 %
    by_seed: Mapping[str, tuple[float, ...]]  # exact match of each arm in each world
    differences: tuple[tuple[str, str, Interval], ...]  # every pair of arms, paired by question

    def lead(self, one: str, other: str) -> Interval:
        """Exact match of one arm minus that of another, on the same questions."""
        for first, second, difference in self.differences:
            if (first, second) == (one, other):
                return difference
            if (first, second) == (other, one):
                return Interval(-difference.value, -difference.high, -difference.low)
        raise KeyError((one, other))

    def first(self, arms: Iterable[str]) -> tuple[str, ...]:
        """The most accurate of some arms, and behind it those that are tied with it.

        Tied is an arm whose paired difference from the most accurate may be nothing: the interval
        holds 0.
        """
        arms = list(arms)
        best = max(arms, key=lambda arm: self.right[arm].value)
        return (best, *(a for a in arms if a != best and self.lead(best, a).low <= 0))


@dataclass(frozen=True)
class Training:
    """What it took to make a reader; means over seeds."""

    seconds: float
    tokens: float
    labelled: int  # questions with answers that it learned from
    repetitions: float  # how often it met each of them
    stopped: tuple[str, ...]  # why it ended, for each seed: a plateau, or the budget

    @property
    def plateaus(self) -> int:
        """In how many seeds validation came to a plateau before the budget was spent."""
        return sum(why.startswith("stopped early") for why in self.stopped)


@dataclass(frozen=True)
class Answering:
    """What one answer takes: medians over cells, means over seeds."""

    seconds: float  # finding passages included
    tokens: float  # read for it


@dataclass(frozen=True)
class Place:
    """One specialisation and one size of the knowledge."""

    specialisation: str
    entities: int
    perplexity: float  # of the base, before any fine-tuning, on the domain's documents
    training: Mapping[str, Training]  # by reader; the base has none
    answering: Mapping[str, Answering]  # by arm
    index_seconds: float  # to make the knowledge base
    update_seconds: float  # until a changed document is found
    cells: tuple[Cell, ...]  # by rising volatility

    def cell(self, volatility: float) -> Cell:
        """The cell nearest to a volatility; of two as near the lower one."""
        return min(self.cells, key=lambda cell: abs(cell.volatility - volatility))

    def hands(self) -> list[Hand]:
        """Where, as volatility rises, the most accurate arm changes hands."""
        best = [cell.first(cell.right)[0] for cell in self.cells]
        return [
            Hand(cell, next_cell, one, other)
            for (cell, one), (next_cell, other) in itertools.pairwise(
                zip(self.cells, best, strict=True)
            )
            if one != other
        ]


@dataclass(frozen=True)
class Hand:
    """Between two cells the most accurate arm changes hands."""

    before: Cell
    after: Cell
    one: str  # the most accurate before
    other: str  # and after

    def line(self) -> str:
        """Between which volatilities, with the paired lead on both sides."""
        then, now = self.before.lead(self.one, self.other), self.after.lead(self.other, self.one)
        return (
            f"between {self.before.volatility:.0%} and {self.after.volatility:.0%} changed, "
            f"{self.one} hands over to {self.other}:\n"
            f"    ahead by {then} at {self.before.volatility:.0%}, behind by {now} at "
            f"{self.after.volatility:.0%}"
        )


def worlds(about: Mapping[str, Any]) -> str:
    """In which worlds a map was measured; with one, what its intervals leave out."""
    seeds = about["seeds"]
    if len(seeds) == 1:
        return f"world {seeds[0]} alone, so that no interval tells what another world would change"
    return f"worlds {', '.join(map(str, seeds))}"


def out_of_date(about: Mapping[str, Any]) -> str:
    """A sentence, if models that a map was measured with have other weights today; else nothing."""
    changed = [
        name
        for name, sum in about.get("weights", {}).items()
        if checksum(name) not in (sum, MISSING)
    ]
    if not changed:
        return ""
    return (
        f"It is out of date: {' and '.join(changed)} had other weights then. `minirag map --run` "
        "measures it again."
    )


@dataclass(frozen=True)
class MeasuredMap:
    """All places, and how they were measured."""

    about: Mapping[str, Any]  # base, domain, language, seeds, machine, command, ...
    places: tuple[Place, ...]

    @property
    def specialisations(self) -> tuple[str, ...]:
        """Those that were measured, the nearest to the base first."""
        return tuple(dict.fromkeys(place.specialisation for place in self.places))

    def sizes(self, specialisation: str) -> list[int]:
        """The sizes measured with a specialisation, ascending."""
        return sorted(p.entities for p in self.places if p.specialisation == specialisation)

    def nearest(self, specialisation: str, entities: int) -> Place:
        """The place whose size is nearest, as a ratio; of two as near the smaller one."""
        return min(
            (place for place in self.places if place.specialisation == specialisation),
            key=lambda place: (abs(math.log(place.entities / entities)), place.entities),
        )

    def save(self, path: Path) -> None:
        """Write the map as JSON.

        Raises
        ------
        DiskError
            If that fails; what ``path`` held stays.
        """
        write_text_atomically(path, json.dumps(self.as_json(), indent=1) + "\n")

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        values: dict[str, Any] = _rounded(dataclasses.asdict(self))
        return values

    @classmethod
    def load(cls, path: Path) -> MeasuredMap:
        """Read a map that was saved.

        Raises
        ------
        DataError
            If there is none, or it is damaged or has other arms.
        """
        try:
            body = json.loads(path.read_text("utf-8"))
            return cls(body["about"], tuple(_place(values) for values in body["places"]))
        except FileNotFoundError:
            raise DataError(
                f"there is no map {path}: check the name, or measure one with `minirag map --run "
                "--out DIR` (hours; --reduced: a minute or so, to see how it goes) and give --map "
                "DIR/map.json."
            ) from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{path} is no map ({type(error).__name__}: {error}): measure it again with "
                "`minirag map --run`."
            ) from error


def shipped_map() -> Path:
    """Where the map that comes with minirag is."""
    return results_root() / MAP


def _rounded(value: Any) -> Any:
    """Plain values with as many digits as were measured."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return value


def _place(values: dict[str, Any]) -> Place:
    names = {arm.name for arm in ARMS}
    cells = sorted((_cell(cell) for cell in values["cells"]), key=lambda cell: cell.volatility)
    training = {
        name: Training(**{**cost, "stopped": tuple(cost["stopped"])})
        for name, cost in values["training"].items()
    }
    answering = {name: Answering(**cost) for name, cost in values["answering"].items()}
    if not cells or any({*cell.right} != names for cell in cells) or {*answering} != names:
        raise ValueError(f"it should have the arms {', '.join(sorted(names))} in every cell")
    place = {**values, "training": training, "answering": answering, "cells": tuple(cells)}
    return Place(**place)


def _cell(values: dict[str, Any]) -> Cell:
    return Cell(
        values["volatility"],
        values["n"],
        {arm: Interval(*interval) for arm, interval in values["right"].items()},
        {arm: tuple(shares) for arm, shares in values["by_seed"].items()},
        tuple((one, other, Interval(*lead)) for one, other, lead in values["differences"]),
    )
