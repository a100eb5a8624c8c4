"""Retrieval without reading: is the right document found, and does its answer stand in the first?

It bounds the arms with retrieval from one side, as the right passage always given does from the
other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from operator import attrgetter
from typing import Any

from minirag.combination.evidence import found_documents
from minirag.corpus.slices import SAME_IN_ALL_WORLDS, SliceQuestion
from minirag.intervals import Interval, clustered_share
from minirag.retrieval.retriever import BatchRetriever

DEPTH = 10  # documents that are looked at


@dataclass(frozen=True)
class Finding:
    """What a question that a document answers finds."""

    slice: str
    question: str
    about: str  # the fact that is asked for, whatever the language
    rank: int | None  # of that document, from 1; None: not among the first DEPTH
    in_first: bool  # the answer stands, word for word, in the first document found


def find(
    retriever: BatchRetriever,
    questions: Sequence[SliceQuestion],
    texts: Mapping[str, str],
    *,
    progress: bool = False,
) -> list[Finding]:
    """Look for the documents of those questions that have one."""
    asked = [q for q in questions if q.document is not None]
    findings = []
    for question, ids in zip(
        asked, found_documents(retriever, asked, DEPTH, progress=progress), strict=True
    ):
        rank = ids.index(question.document) + 1 if question.document in ids else None
        in_first = bool(ids) and question.answer is not None and question.answer in texts[ids[0]]
        findings.append(Finding(question.slice, question.text, question.about, rank, in_first))
    return findings


@dataclass(frozen=True)
class FindingCell:
    """Retrieval on one slice, over all seeds."""

    slice: str
    n: int  # questions per seed
    recall: tuple[Interval, ...]  # at 1, 2, ...: the share whose document is among so many
    in_first: Interval

    def as_json(self) -> dict[str, Any]:
        """Plain values, rounded to four digits."""
        return {
            **asdict(self),
            "recall": [[round(x, 4) for x in interval] for interval in self.recall],
            "in_first": [round(x, 4) for x in self.in_first],
        }


def summarize_findings(
    runs: Sequence[Sequence[Finding]],
    upto: int = 5,
    bootstrap_seed: int = 0,
    n_resamples: int = 10_000,
) -> list[FindingCell]:
    """A cell for each slice; ``runs`` are the findings of each seed."""
    cells = []
    for slice in dict.fromkeys(finding.slice for run in runs for finding in run):
        own = [[finding for finding in run if finding.slice == slice] for run in runs]

        def share(found: Callable[[Finding], bool], own: list[list[Finding]] = own) -> Interval:
            return _share(own, found, bootstrap_seed, n_resamples)

        recall = tuple(share(partial(_among, k=k)) for k in range(1, upto + 1))
        in_first = share(attrgetter("in_first"))
        cells.append(FindingCell(slice, min(map(len, own)), recall, in_first))
    return cells


def _among(finding: Finding, k: int) -> bool:
    return finding.rank is not None and finding.rank <= k


def _share(
    runs: Sequence[Sequence[Finding]],
    found: Callable[[Finding], bool],
    seed: int,
    n_resamples: int,
) -> Interval:
    """Of one slice, how many are found."""
    return clustered_share(
        [[float(found(finding)) for finding in run] for run in runs],
        seed,
        n_resamples,
        about=[[finding.about for finding in run] for run in runs],
        same_questions=runs[0][0].slice in SAME_IN_ALL_WORLDS,
    )
