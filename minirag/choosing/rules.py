"""The advisor's rules: all of them, in the order in which they are applied.

1. **Outside the map nothing is advised.** Between measured points the nearest one speaks.
2. **What can't be had is left out**: an arm without passages where sources must be cited; a
   fine-tuned reader where there are fewer labelled questions than the map's learned from; an arm
   that answers more slowly than is allowed.
3. **The most accurate of the others is advised.** An arm whose paired difference from it may be
   nothing, because the interval holds 0, is tied with it.
4. **Of tied arms the cheapest**: the seconds of computing of a year, with one training.
5. **Change never speaks for weights.** What an arm without passages knows is as old as its
   training: where one with passages is advised for less change, none without is for more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from minirag.choosing.measured_map import Cell, MeasuredMap, Place
from minirag.combination.arms import ARMS, Arm
from minirag.errors import UsageError

DAYS = 365


@dataclass(frozen=True)
class Needs:
    """The answers to the advisor's seven questions."""

    specialisation: str = "disjoint"  # the domain's wording, seen from the base's
    volatility: float = 0.25  # share of the facts that have changed a year after the training
    entities: int = 300  # things that the documents are about, one document each
    questions_a_day: float = 100.0
    labelled: int | None = None  # questions with answers, for training; None: as many as it takes
    citations: bool = False  # must every answer name its source?
    latency: float | None = None  # seconds that an answer may take; None: any

    def __post_init__(self) -> None:
        if not 0 <= self.volatility <= 1:
            raise UsageError(
                f"the volatility is {self.volatility}: give the share of the facts that change, "
                "from 0 to 1."
            )
        if self.entities < 1:
            raise UsageError(f"the knowledge is about {self.entities} things: give 1 or more.")
        if not (self.questions_a_day >= 0 and math.isfinite(self.questions_a_day)):
            raise UsageError(f"there are {self.questions_a_day} questions a day: give 0 or more.")
        if self.labelled is not None and self.labelled < 0:
            raise UsageError(f"there are {self.labelled} labelled questions: give 0 or more.")
        if self.latency is not None and not self.latency > 0:
            raise UsageError(f"an answer may take {self.latency} seconds: give more than 0.")


@dataclass(frozen=True)
class Decision:
    """What the rules give, and on what they rest."""

    outside: str = ""  # which answer is outside the map, a clause; then there is nothing else
    place: Place | None = None
    cell: Cell | None = None
    left_out: tuple[tuple[str, str], ...] = ()  # arms by rule 2, each with the reason
    arm: str | None = None  # the advised one; None: rule 2 left none
    first: tuple[str, ...] = ()  # the most accurate of those left, then those tied with it
    unaged: str | None = None  # the arm without passages that rule 5 set aside


def decide(measured: MeasuredMap, needs: Needs) -> Decision:
    """Apply the rules."""
    if outside := _outside(measured, needs):  # 1
        return Decision(outside)
    place = measured.nearest(needs.specialisation, needs.entities)
    cell = place.cell(needs.volatility)
    left_out = tuple((a.name, why) for a in ARMS if (why := _unfit(a, place, needs)))  # 2
    arms = [arm for arm in ARMS if arm.name not in dict(left_out)]
    if not arms:
        return Decision("", place, cell, left_out)
    chosen, first = _choose(place, cell, arms, needs)
    before = [c for c in place.cells if c.volatility < cell.volatility]
    unaged = None
    if not _reads(chosen) and any(_reads(_choose(place, c, arms, needs)[0]) for c in before):  # 5
        unaged = chosen.name
        chosen, first = _choose(place, cell, [arm for arm in arms if _reads(arm)], needs)
    return Decision("", place, cell, left_out, chosen.name, first, unaged)


def _reads(arm: Arm) -> bool:
    return arm.evidence != "none"


def _outside(measured: MeasuredMap, needs: Needs) -> str:
    """Which answer the map does not reach."""
    if needs.specialisation not in measured.specialisations:
        wordings = ", ".join(measured.specialisations)
        return f"it has the wordings {wordings}, not {needs.specialisation}"
    sizes = measured.sizes(needs.specialisation)
    if not sizes[0] <= needs.entities <= sizes[-1]:
        return f"it has {sizes[0]:,} to {sizes[-1]:,} things to know about, not {needs.entities:,}"
    cells = measured.nearest(needs.specialisation, needs.entities).cells
    if not cells[0].volatility <= needs.volatility <= cells[-1].volatility:
        return (
            f"it has {cells[0].volatility:.0%} to {cells[-1].volatility:.0%} of changed facts, "
            f"not {needs.volatility:.0%}"
        )
    return ""


def _unfit(arm: Arm, place: Place, needs: Needs) -> str:
    """Why an arm can't be had; empty if it can."""
    if needs.citations and not _reads(arm):
        return "answers from its weights, and has no source to cite"
    training = place.training.get(arm.reader)
    if needs.labelled is not None and training and needs.labelled < training.labelled:
        return (
            f"learned from {training.labelled:,} labelled questions; with {needs.labelled:,} it is "
            "not measured"
        )
    seconds = place.answering[arm.name].seconds
    if needs.latency is not None and seconds > needs.latency:
        return f"takes {seconds:.2g} seconds an answer, more than {needs.latency:g}"
    return ""


def _choose(place: Place, cell: Cell, arms: list[Arm], needs: Needs) -> tuple[Arm, tuple[str, ...]]:
    """The arm by the rules 3 and 4, and the most accurate one with those tied with it."""
    first = cell.first(arm.name for arm in arms)
    tied = [arm for arm in arms if arm.name in first]
    return min(tied, key=lambda arm: sum(year_of(arm, place, cell, needs).values())), first


def year_of(arm: Arm, place: Place, cell: Cell, needs: Needs) -> dict[str, float]:
    """Seconds of computing that an arm takes in a year, by what they are spent on.

    Counted as measured in the place: of its size, at the cell's volatility. Only the arm with
    passages is kept up to date: what the others don't know by then their accuracy shows.
    """
    seconds = {}
    if arm.reader in place.training:
        seconds["training"] = place.training[arm.reader].seconds
    if _reads(arm):
        seconds["indexing"] = place.index_seconds
        seconds["updates"] = cell.volatility * place.entities * place.update_seconds
    seconds["answers"] = DAYS * needs.questions_a_day * place.answering[arm.name].seconds
    return seconds
