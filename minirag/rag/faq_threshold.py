"""When two questions count as one: the FAQ's default thresholds, and what was measured at them.

In each domain and language of the laboratory the lowest threshold was chosen at which nine answers
of ten are right, on one half of the queries (:mod:`minirag.rag.faq_curve`). The default is the
highest of these: an answer to another question is worse than none. The rates are those at the
default, on all queries, so that the half which chose the highest counts among them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from minirag.intervals import Interval

TABLE = Path(__file__).parent / "faq_thresholds.json"


@dataclass(frozen=True)
class FaqMeasurement:
    """What was measured in one domain and language."""

    compared_by: str  # an encoder's name, or "words"
    domain: str
    language: str
    seeds: tuple[int, ...]  # of the worlds
    n: int  # queries, two of three with an entry that answers them
    chosen: float  # here, on one half of the queries
    threshold: float  # the default, at which the rates were counted
    precision: Interval  # share of the answers that were right
    recall: Interval  # share of the queries with an entry that got the right answer
    answered_in_vain: Interval  # share of the queries without one that got an answer
    command: str


def measurements(compared_by: str) -> list[FaqMeasurement]:
    """What comes with minirag for an encoder or for words; nothing if none was made."""
    entries = [e for e in json.loads(TABLE.read_text("utf-8")) if e["compared_by"] == compared_by]
    rates = ("precision", "recall", "answered_in_vain")
    return [
        FaqMeasurement(
            **{**e, "seeds": tuple(e["seeds"]), **{rate: Interval(*e[rate]) for rate in rates}}
        )
        for e in entries
    ]


def default_threshold(compared_by: str) -> float | None:
    """The highest of the thresholds chosen; None if nothing was measured."""
    return max((measured.chosen for measured in measurements(compared_by)), default=None)


def rates_at_default(compared_by: str) -> str:
    """Precision and recall at the default threshold, as a sentence for whoever asks."""
    found = measurements(compared_by)
    places = ", ".join(f"{m.domain} {m.language}" for m in found)
    return (
        f"Measured at {found[0].threshold:.2f}: {_percent([m.precision for m in found])} of the "
        f"answers were right, and {_percent([m.recall for m in found])} of the questions that an "
        f"entry answers got theirs ({places}; {sum(m.n for m in found):,} questions)."
    )


def _percent(rates: list[Interval]) -> str:
    """The lowest and the highest of several rates: "87 to 96 %"."""
    low, high = (f"{100 * rate.value:.0f}" for rate in (min(rates), max(rates)))
    return f"{low} %" if low == high else f"{low} to {high} %"
