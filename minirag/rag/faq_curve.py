"""The FAQ's threshold, measured: precision and recall over all places where it could stand.

Stored questions come from a world, and so do the queries: the same question in another wording,
which its entry should answer, and questions that no entry answers. The higher the threshold, the
fewer queries get an answer (recall falls) and the fewer wrong ones (precision rises).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from minirag.corpus.dialogue import faq
from minirag.corpus.world import World
from minirag.errors import UsageError
from minirag.intervals import Interval, wilson_interval
from minirag.rag.faq import Faq, FaqEntry
from minirag.retrieval.retriever import TextEncoder


@dataclass(frozen=True)
class Query:
    """One query, and what the FAQ finds for it if its threshold lets it."""

    text: str
    likeness: float
    answerable: bool  # there is an entry that answers it
    right: bool  # and it is the nearest one


@dataclass(frozen=True)
class Point:
    """What a threshold gives.

    Precision is the share of the answers that are right, recall the share of the answerable
    queries that get the right one.
    """

    threshold: float
    precision: float
    recall: float


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold with its rates and intervals on queries that had no part in choosing it."""

    threshold: float
    precision: Interval
    recall: Interval
    answered_in_vain: Interval  # share of the unanswerable queries that got an answer
    n: int


def faq_queries(
    world: World, language: str, n: int, encoder: TextEncoder | None = None
) -> list[Query]:
    """Ask a FAQ of ``n`` entries ``n`` queries that it answers and half as many in vain."""
    stored, queries = faq(world, language, n)
    live = Faq(encoder, threshold=0.0)
    live.add(FaqEntry(entry.id, entry.question, entry.answer) for entry in stored)
    replies = live.ask_many([query.text for query in queries])
    return [
        Query(
            query.text,
            reply.likeness,
            query.entry is not None,
            reply.nearest is not None and reply.nearest.id == query.entry,
        )
        for query, reply in zip(queries, replies, strict=True)
    ]


def curve(queries: Sequence[Query]) -> list[Point]:
    """Precision and recall at every threshold that makes a difference, the highest first.

    Raises
    ------
    UsageError
        If no query has an answer: there would be no recall.
    """
    n_answerable = sum(query.answerable for query in queries)
    if not n_answerable:
        raise UsageError("precision and recall need queries that have an answer.")
    ordered = sorted(queries, key=lambda query: -query.likeness)
    points, right = [], 0
    for n, query in enumerate(ordered, start=1):
        right += query.right
        if n == len(ordered) or ordered[n].likeness < query.likeness:
            points.append(Point(query.likeness, right / n, right / n_answerable))
    return points


def threshold_for(queries: Sequence[Query], precision: float) -> float:
    """The lowest threshold of two digits whose answers are right often enough.

    Candidates are rounded before they are judged: rounding up afterwards leaves out a query, and
    the answers that remain may be right too rarely.

    Raises
    ------
    UsageError
        If none is.
    """
    for threshold in sorted({math.ceil(query.likeness * 100) / 100 for query in queries}):
        right = [query.right for query in queries if query.likeness >= threshold]
        if right and sum(right) / len(right) >= precision:
            return threshold
    raise UsageError(f"no threshold reaches a precision of {precision}: want less.")


def at_threshold(queries: Sequence[Query], threshold: float) -> OperatingPoint:
    """The rates at one threshold, with 95 % Wilson intervals."""
    answered = [query for query in queries if query.likeness >= threshold]
    answerable = [query for query in queries if query.answerable]
    in_vain = [query for query in queries if not query.answerable]
    if not answered or not answerable or not in_vain:
        raise UsageError(
            f"{len(queries)} queries at a threshold of {threshold} give no rates: "
            "give more of them, or a lower threshold."
        )
    return OperatingPoint(
        threshold,
        wilson_interval(sum(q.right for q in answered), len(answered)),
        wilson_interval(sum(q.right for q in answered), len(answerable)),
        wilson_interval(sum(not q.answerable for q in answered), len(in_vain)),
        len(queries),
    )
