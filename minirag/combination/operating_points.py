"""What the arms with retrieval work with, chosen on development seeds before anything is compared.

Three choices: how a passage is searched, how many of those found a reader is given, and which of
these are worth reading. The chosen values are :data:`minirag.combination.study.RETRIEVER`,
:data:`minirag.combination.compare.PASSAGES` and :data:`minirag.combination.compare.LEAST_SHARED`;
what is printed here is why.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from minirag.combination.arms import ARMS
from minirag.combination.collection import collection_documents
from minirag.combination.compare import pooled, slices_of
from minirag.combination.comparison import BOTH
from minirag.combination.finding import summarize_findings
from minirag.combination.study import Study, StudyResult, run_study
from minirag.corpus.slices import SLICES, slice_questions
from minirag.intervals import clustered_share, wilson_interval
from minirag.retrieval.encoder import BiEncoder
from minirag.retrieval.knowledge_base import RETRIEVERS, KnowledgeBase
from minirag.retrieval.retriever import TextEncoder
from minirag.transformer.machine import Machine

UPTO = 5  # passages
SHARES = (0.0, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.8)  # least shares of a question's rare words
# One reader that was never taught to read these documents, and one that was.
_READING = tuple(arm for arm in ARMS if arm.name in ("RAG", "RAFT + RAG"))


def try_operating_points(
    study: Study,
    seeds: Sequence[int],
    cache: Path,
    *,
    machine: Machine | None = None,
    bar: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Score every retriever, and every number of passages with the study's own retriever.

    Parameters
    ----------
    seeds : sequence of int
        Development seeds; the study's own seed does not count.

    Returns
    -------
    dict of plain values
        ``retrievers``: recall@1 to recall@5 of each, over all slices that have a document;
        ``shares``: what each least share keeps away from a reader, see :func:`try_shares`;
        ``passages``: exact match of RAG and RAFT + RAG with 1 to 5 passages, over all questions of
        the six slices in both languages, with its 95 % interval; and on each slice.
    """
    study = dataclasses.replace(study, slices=SLICES)

    def run(**changes: Any) -> list[StudyResult]:
        return [
            run_study(
                dataclasses.replace(study, seed=seed, **changes),
                cache,
                machine=machine,
                bar=bar,
                tell=tell,
            )
            for seed in seeds
        ]

    body: dict[str, Any] = {
        "domain": study.domain,
        "base": study.base,
        "development seeds": list(seeds),
        "questions": study.questions,
        "retrievers": [],
        "shares": try_shares(study, seeds, BiEncoder.load(study.encoder)),
        "passages": [],
    }
    for retriever in RETRIEVERS:
        findings = [
            [
                dataclasses.replace(finding, slice=BOTH)
                for asked in result.asked.values()
                for finding in asked.findings
            ]
            for result in run(retriever=retriever, arms=())
        ]
        (cell,) = summarize_findings(findings, UPTO)
        recall = [[round(x, 4) for x in interval] for interval in cell.recall]
        body["retrievers"].append({"retriever": retriever, "n": cell.n, "recall": recall})
    for k in range(1, UPTO + 1):
        results = run(k=k, arms=_READING)
        every = pooled(arm for result in results for asked in result.asked.values()
                       for arm in asked.arms)  # fmt: skip
        for name in dict.fromkeys(result.arm.name for result in every):
            own = [result for result in every if result.arm.name == name]
            right = clustered_share(
                [[float(o.right) for o in r.outcomes] for r in own],
                0,
                about=[[o.about for o in r.outcomes] for r in own],
            )
            slices = {
                slice: round(
                    statistics.fmean(statistics.fmean(o.right for o in r.of(slice)) for r in own), 4
                )
                for slice in slices_of(own)
            }
            row = {"k": k, "arm": name, "right": [round(x, 4) for x in right], "slices": slices}
            body["passages"].append(row)
    return body


def try_shares(study: Study, seeds: Sequence[int], encoder: TextEncoder) -> list[dict[str, Any]]:
    """Which of the passages found are worth reading, by the rare words that they share.

    Returns
    -------
    list of dict, one for each of :data:`SHARES`
        What is kept away, with 95 % intervals: ``right``, of the passages found that answer;
        ``others``, of those found beside them; ``nothing``, the questions without an answer that
        are left with nothing to read.
    """
    shared: dict[str, list[float]] = {"right": [], "others": [], "nothing": []}
    for seed in seeds:
        world = dataclasses.replace(study, seed=seed).world()
        for language in study.languages:
            base = KnowledgeBase(encoder)
            base.add(collection_documents(world, language))
            asked = [
                question
                for some in slice_questions(world, language, study.questions).values()
                for question in some
            ]
            found = base.retriever(study.retriever).search_many([q.text for q in asked], study.k)
            for question, hits in zip(asked, found, strict=True):
                if question.document is None:
                    shared["nothing"].append(max((hit.shared or 0.0 for hit in hits), default=0.0))
                    continue
                for hit in hits:
                    answers = hit.passage.document_id == question.document
                    shared["right" if answers else "others"].append(hit.shared or 0.0)
    return [
        {
            "least": least,
            **{
                what: [
                    round(x, 4) for x in wilson_interval(sum(n < least for n in some), len(some))
                ]
                for what, some in shared.items()
            },
        }
        for least in SHARES
    ]


def operating_points_text(body: dict[str, Any]) -> str:
    """The same for people."""
    lines = [f"worlds of the development seeds {', '.join(map(str, body['development seeds']))}"]
    lines.append("retriever  " + "".join(f"{f'recall@{k}':>11}" for k in range(1, UPTO + 1)))
    for row in body["retrievers"]:
        shares = "".join(f"{value:>11.3f}" for value, _, _ in row["recall"])
        lines.append(f"{row['retriever']:<11}{shares}")
    lines.append(
        "\nleast share of a question's rare words: which passages found it keeps away, and"
    )
    lines.append("how many of the questions without an answer it leaves with nothing to read")
    lines.append(f"{'share':<7}{'right passages':>14}{'others':>9}{'questions':>12}")
    for row in body["shares"]:
        right, others, nothing = (row[what][0] for what in ("right", "others", "nothing"))
        lines.append(f"{row['least']:<7.2f}{right:>14.4f}{others:>9.3f}{nothing:>12.3f}")
    slices = list(body["passages"][0]["slices"])
    lines.append(
        f"\n{'k':<3}{'arm':<18}{'right':<22}" + "".join(f"{slice:>13}" for slice in slices)
    )
    for row in body["passages"]:
        value, low, high = row["right"]
        shares = "".join(f"{row['slices'][slice]:>13.3f}" for slice in slices)
        lines.append(
            f"{row['k']:<3}{row['arm']:<18}{f'{value:.3f} [{low:.3f}, {high:.3f}]':<22}{shares}"
        )
    return "\n".join(lines)
