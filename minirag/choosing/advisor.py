"""The advisor: which arm to take, what that rests on, what it costs, what would change it."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from minirag.choosing.measured_map import Cell, MeasuredMap, Place, out_of_date, worlds
from minirag.choosing.rules import Decision, Needs, decide, year_of
from minirag.combination.arms import ARMS, Arm
from minirag.intervals import Interval

_MOST_QUESTIONS = 10_000_000  # a day: how far the advisor looks for a change of mind


@dataclass(frozen=True)
class Change:
    """The nearest other answer, to one side, with which another arm is advised."""

    question: str  # a field of Needs
    value: Any
    arm: str | None  # None: none is left
    right: Interval | None  # how often that arm is right there


@dataclass(frozen=True)
class Advice:
    """What the advisor says to one set of answers."""

    needs: Needs
    decision: Decision
    changes: tuple[Change, ...]
    about: dict[str, Any]  # how the map was measured

    def as_json(self) -> dict[str, Any]:
        """Plain values: the same as :meth:`lines` says."""
        decision, place, cell = self.decision, self.decision.place, self.decision.cell
        body: dict[str, Any] = {
            "needs": dataclasses.asdict(self.needs),
            "arm": decision.arm,
            "measured": not decision.outside,
            "outside": decision.outside or None,
            "left_out": dict(decision.left_out),
            "set_aside_for_its_age": decision.unaged,
            "tied": list(decision.first),
            "changes": [dataclasses.asdict(change) for change in self.changes],
            "map": self.about,
        }
        if place is not None and cell is not None:
            body["cell"] = {
                "specialisation": place.specialisation,
                "entities": place.entities,
                "volatility": cell.volatility,
                "questions": cell.n,
                "right": dict(cell.right),
                "by_seed": dict(cell.by_seed),
            }
            body["costs"] = {
                arm.name: {
                    "seconds_to_train": _training_seconds(place, arm),
                    "seconds_to_update_one_document": _update_seconds(place, arm),  # None: never
                    "seconds_an_answer": place.answering[arm.name].seconds,
                    "tokens_an_answer": place.answering[arm.name].tokens,
                    "seconds_a_year": year_of(arm, place, cell, self.needs),
                }
                for arm in ARMS
            }
        return body

    def lines(self) -> list[str]:
        """The same for people."""
        decision = self.decision
        if decision.place is None or decision.cell is None:
            return [
                f"not measured: your answers are outside the map: {decision.outside}.",
                "The advisor says nothing about what it has not seen: take answers within the map, "
                "or measure there with `minirag map --run`.",
            ]
        place, cell = decision.place, decision.cell
        lines = [f"advice: {decision.arm or 'none of the arms'}", ""]
        lines += _evidence(self.needs, decision, place, cell)
        if decision.arm is not None:
            lines += ["", *_costs(self.needs, decision, place, cell)]
        lines += ["", *_changes_of_mind(self.needs, self.changes)]
        base, domain, machines = (self.about[key] for key in ("base", "domain", "machines"))
        devices = " and ".join(dict.fromkeys(machine["device"] for machine in machines))
        measured = (
            f"measured with {base} on {domain}, {cell.n} questions in each world ("
            f"{worlds(self.about)}); the seconds are those of {devices}."
        )
        return [*lines, "", f"{measured} {out_of_date(self.about)}".rstrip()]


def advise(measured: MeasuredMap, needs: Needs) -> Advice:
    """Decide by the rules, and look around for what would change the decision."""
    decision = decide(measured, needs)
    changes = [] if decision.outside else list(_look_around(measured, needs, decision))
    return Advice(needs, decision, tuple(changes), dict(measured.about))


# -------------------------------------------------------------------------- what would change it


def _look_around(measured: MeasuredMap, needs: Needs, decision: Decision) -> Iterator[Change]:
    """Try other answers to one question at a time, the nearest first, until another arm comes."""
    assert decision.place is not None
    for question, tried in _neighbours(measured, needs, decision.place):
        for value in tried:
            other = decide(measured, dataclasses.replace(needs, **{question: value}))
            if not other.outside and other.arm != decision.arm:
                right = other.cell.right[other.arm] if other.cell and other.arm else None
                yield Change(question, value, other.arm, right)
                break


def _neighbours(
    measured: MeasuredMap, needs: Needs, place: Place
) -> Iterator[tuple[str, Sequence[Any]]]:
    """Other answers worth trying: for each question and side, in the order of their distance."""
    words = measured.specialisations
    at = words.index(needs.specialisation)
    yield "specialisation", words[:at][::-1]
    yield "specialisation", words[at + 1 :]
    yield from _sides("volatility", [c.volatility for c in place.cells], needs.volatility)
    yield from _sides("entities", measured.sizes(needs.specialisation), needs.entities)
    powers = list(itertools.takewhile(_MOST_QUESTIONS.__ge__, (10**n for n in range(9))))
    yield from _sides("questions_a_day", powers, needs.questions_a_day)
    enough = [cost.labelled for cost in place.training.values()]
    have = max(enough, default=0) if needs.labelled is None else needs.labelled
    yield from _sides("labelled", [0, *enough, *(n - 1 for n in enough if n)], have)
    yield "citations", [not needs.citations]
    # Rounded up to milliseconds, so that the arm that takes them is within.
    limits = [math.ceil(1e3 * cost.seconds) / 1e3 for cost in place.answering.values()]
    limit = math.inf if needs.latency is None else needs.latency
    yield from _sides("latency", limits, limit)


def _sides(question: str, values: Sequence[float], here: float) -> list[tuple[str, list[float]]]:
    """What lies below and above an answer, the nearest first."""
    ordered = sorted(set(values))
    below, above = [v for v in ordered if v < here], [v for v in ordered if v > here]
    return [(question, below[::-1]), (question, above)]


# ------------------------------------------------------------------------------------- in sentences


def _evidence(needs: Needs, decision: Decision, place: Place, cell: Cell) -> list[str]:
    lines = [
        f"the cell of the map that it rests on ({place.specialisation} wording, "
        f"{place.entities:,} things, {cell.volatility:.0%} changed), exact match:"
    ]
    left_out = dict(decision.left_out)
    for name, right in sorted(cell.right.items(), key=lambda item: -item[1].value):
        note = f"  left out: {left_out[name]}" if name in left_out else ""
        mark = ">" if name == decision.arm else " "
        lines.append(f" {mark} {name:<18}{right}{note}")
    if (place.entities, cell.volatility) != (needs.entities, needs.volatility):
        lines.append(
            f"It is the measured one nearest to your {needs.entities:,} things and "
            f"{needs.volatility:.0%}."
        )
    return lines + _reasons(decision, cell)


def _reasons(decision: Decision, cell: Cell) -> list[str]:
    arm = decision.arm
    if arm is None:
        return ["Each arm is left out by one of your answers: see beside it."]
    lines = []
    if decision.unaged:
        lines.append(
            f"{decision.unaged} would be advised here, but for less change an arm with passages is "
            "already, and more change can't speak for weights: it is set aside."
        )
    if len(decision.first) > 1:
        best, other = decision.first[0], arm if arm != decision.first[0] else decision.first[1]
        lines.append(
            f"{' and '.join(decision.first)} are tied: {best} is ahead of {other} by "
            f"{cell.lead(best, other)}, paired by question, which may be nothing. "
            "Cost decides: the advised one is the cheapest of them."
        )
    else:
        lines.append(_ahead(arm, decision, cell))
    if cell.right[arm].low < 0.5:
        lines.append("Mind that it may well be wrong more often than right there.")
    return lines


def _ahead(arm: str, decision: Decision, cell: Cell) -> str:
    """By how much the advised arm is better than the second of those that were left."""
    out = dict(decision.left_out)
    others = [
        a.name
        for a in ARMS
        if a.name not in (arm, *out) and not (decision.unaged and a.evidence == "none")
    ]
    if not others:
        return "It is the only one that your answers leave."
    second = max(others, key=lambda name: cell.right[name].value)
    return (
        f"It is the most accurate: ahead of {second} by {cell.lead(arm, second)}, paired by "
        "question."
    )


def _costs(needs: Needs, decision: Decision, place: Place, cell: Cell) -> list[str]:
    lines = [
        f"{'costs':<18}{'training':>12}{'one update':>12}{'one answer':>12}{'tokens read':>12}"
        f"{'a year':>12}"
    ]
    shown = [decision.arm, *(name for name in decision.first if name != decision.arm)]
    for arm in (a for name in shown for a in ARMS if a.name == name):
        answer = place.answering[arm.name]
        lines.append(
            f"{arm.name:<18}{duration(_training_seconds(place, arm)):>12}"
            f"{duration(_update_seconds(place, arm)):>12}{duration(answer.seconds):>12}"
            f"{answer.tokens:>12.0f}"
            f"{duration(sum(year_of(arm, place, cell, needs).values())):>12}"
        )
    lines.append(
        f"A year: training and indexing at its beginning, {cell.volatility:.0%} of the documents "
        f"updated by its end, to which the cell belongs; {needs.questions_a_day:,.10g} questions a "
        "day."
    )
    (advised,) = (arm for arm in ARMS if arm.name == decision.arm)
    if training := place.training.get(advised.reader):
        lines.append(
            f"Its reader learned from {training.labelled:,} labelled questions, "
            f"{training.repetitions:.1f} times each."
        )
    return lines


def _training_seconds(place: Place, arm: Arm) -> float:
    return place.training[arm.reader].seconds if arm.reader in place.training else 0.0


def _update_seconds(place: Place, arm: Arm) -> float | None:
    """Until a change is in the answers; weights take it by training again, or (None) never."""
    if arm.evidence != "none":
        return place.update_seconds
    return _training_seconds(place, arm) or None


def duration(seconds: float | None) -> str:
    """``2.3 ms``, ``14 s``, ``3.1 min``, ``12 h``; ``never`` for None, ``–`` for nothing."""
    if seconds is None:
        return "never"
    for size, unit, below in ((1e-3, "ms", 1.0), (1.0, "s", 120.0), (60.0, "min", 7200.0)):
        if 0 < seconds < below:
            return f"{_short(seconds / size)} {unit}"
    return f"{_short(seconds / 3600)} h" if seconds else "–"


def _short(number: float) -> str:
    return f"{number:.1f}" if number < 9.95 else f"{number:,.0f}"


_SAID: dict[str, Callable[[Any], str]] = {
    "specialisation": lambda v: f"{v} wording",
    "volatility": lambda v: f"{v:.0%} of the facts changing in a year",
    "entities": lambda v: f"{v:,} things to know about",
    "questions_a_day": lambda v: f"{v:,.10g} questions a day",
    "labelled": lambda v: (
        "as many labelled questions as it takes" if v is None else f"{v:,} labelled questions"
    ),
    "citations": lambda v: "sources to cite" if v else "no sources to cite",
    "latency": lambda v: "any time for an answer" if v is None else f"{v:g} seconds for an answer",
}


def said(needs: Needs) -> list[str]:
    """The answers as the advisor understood them, a phrase each."""
    return [say(getattr(needs, question)) for question, say in _SAID.items()]


def _changes_of_mind(needs: Needs, changes: Sequence[Change]) -> list[str]:
    if not changes:
        return ["no other answer to one question alone would change it, within the map."]
    lines = ["what would change it, one answer at a time (the nearest that does):"]
    for change in changes:
        say = _SAID[change.question]
        lines.append(f"  {say(change.value)} instead of {say(getattr(needs, change.question))}:")
        if change.arm is None or change.right is None:
            lines.append("    none of the arms is left")
        else:
            lines.append(f"    {change.arm}, right in {change.right}")
    return lines
