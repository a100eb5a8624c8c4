"""Retrieval and the whole pipeline, scored on public data: every number with its interval.

SQuAD: all paragraphs of the file are the collection, so a question must first find its paragraph
among thousands. BEIR: documents with graded judgments, scored as trec_eval does.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from tqdm import tqdm

from minirag.errors import DataError, UsageError
from minirag.intervals import Interval, bootstrap_interval, wilson_interval
from minirag.metrics import exact_match, mrr_at_k, ndcg_at_k, rank_by_score, recall_at_k, token_f1
from minirag.rag.peers import Rankings, peer_rankings
from minirag.rag.pipeline import Answer, Pipeline
from minirag.retrieval.bm25 import BM25
from minirag.retrieval.flat import FlatIndex
from minirag.retrieval.fusion import reciprocal_rank_fusion
from minirag.retrieval.ids import Ids
from minirag.retrieval.knowledge_base import RETRIEVERS, KnowledgeBase
from minirag.retrieval.retriever import BatchRetriever, Hit, TextEncoder
from minirag.retrieval.vectors import Floats
from minirag.text.datasets import Beir, Question, Squad

RANKED = 10  # documents of a ranking that are scored on SQuAD
_RANKED_BEIR = 100
_SHARES = ("recall", "exact match", "abstained")  # the other scores are no shares of questions
_PASSAGES = 40  # retrieved for it: a long paragraph may be several passages


@dataclass(frozen=True)
class Scores:
    """Named scores with their intervals, and what they were measured on."""

    n: int
    scores: dict[str, Interval]
    seconds: float

    def table(self) -> str:
        """As lines for people."""
        lines = [f"{'':<14}{'mean':>6}   95 % interval   (n = {self.n})"]
        lines += [
            f"{name:<14}{score.value:>6.3f}   {score.low:.3f} to {score.high:.3f}"
            for name, score in self.scores.items()
        ]
        return "\n".join(lines)

    def to_json(self) -> dict[str, object]:
        """As plain values."""
        return {
            "n": self.n,
            "scores": {
                name: {"value": s.value, "low": s.low, "high": s.high}
                for name, s in self.scores.items()
            },
            "seconds": round(self.seconds, 2),
        }


def sample_questions(
    squad: Squad, limit: int | None, seed: int, *, answerable: bool = False
) -> list[Question]:
    """``limit`` questions drawn without replacement, in the file's order; None: all of them.

    ``answerable`` leaves out those that SQuAD 2.0 calls impossible.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"--limit is {limit}: give at least one question.")
    questions = [q for q in squad.questions if q.answers or not answerable]
    if not questions:
        raise DataError("the file holds no such questions: there is nothing to evaluate.")
    if limit is None or limit >= len(questions):
        return questions
    chosen = sorted(random.Random(seed).sample(range(len(questions)), limit))
    return [questions[i] for i in chosen]


def _intervals(columns: dict[str, list[float]], seed: int) -> dict[str, Interval]:
    return {name: _interval(name, values, seed) for name, values in columns.items() if values}


def _interval(name: str, values: list[float], seed: int) -> Interval:
    """Bootstrapped; where all are right, or none, that would pass for certainty: then Wilson's."""
    interval = bootstrap_interval(values, seed)
    if name.startswith(_SHARES) and interval.value in (0, 1):
        return wilson_interval(round(interval.value * len(values)), len(values))
    return interval


def ranked_documents(hits: Sequence[Hit], n: int) -> list[str]:
    """The documents of a ranking of passages, each where its best passage stands."""
    return list(dict.fromkeys(hit.passage.document_id for hit in hits))[:n]


def squad_retrieval(
    retriever: BatchRetriever,
    questions: Sequence[Question],
    *,
    seed: int = 0,
    progress: bool = False,
) -> Scores:
    """Whether each question's own paragraph is found among all of them."""
    began = time.perf_counter()
    hits = retriever.search_many([q.text for q in questions], _PASSAGES, progress=progress)
    columns: dict[str, list[float]] = {
        name: [] for name in ("recall@1", "recall@5", "recall@10", "MRR@10")
    }
    for question, found in zip(questions, hits, strict=True):
        ranking, judged = ranked_documents(found, RANKED), {question.paragraph_id: 1}
        for k in (1, 5, 10):
            columns[f"recall@{k}"].append(recall_at_k(ranking, judged, k))
        columns["MRR@10"].append(mrr_at_k(ranking, judged, 10))
    return Scores(len(questions), _intervals(columns, seed), time.perf_counter() - began)


@dataclass(frozen=True)
class Prediction:
    """One question answered by the whole pipeline."""

    question: Question
    text: str | None  # None: the pipeline abstained
    exact: float
    f1: float


def squad_answers(
    pipeline: Pipeline, questions: Sequence[Question], *, seed: int = 0, progress: bool = False
) -> tuple[Scores, list[Prediction]]:
    """Exact match and F1 of the whole pipeline, as SQuAD counts them.

    An abstention is an empty answer: wrong where there is an answer, right where there is none.
    """
    began = time.perf_counter()
    predictions = []
    for question in tqdm(questions, desc="answering", unit=" questions", disable=not progress):
        result = pipeline.ask(question.text)
        text = result.text if isinstance(result, Answer) else None
        golds = question.answers or ("",)
        predictions.append(
            Prediction(question, text, exact_match(text or "", golds), token_f1(text or "", golds))
        )
    columns = {
        "exact match": [p.exact for p in predictions],
        "F1": [p.f1 for p in predictions],
        "abstained": [float(p.text is None) for p in predictions],
    }
    scores = Scores(len(questions), _intervals(columns, seed), time.perf_counter() - began)
    return scores, predictions


def best_scores(
    base: KnowledgeBase,
    squad: Squad,
    questions: Sequence[Question],
    *,
    progress: bool = False,
) -> tuple[list[float], list[float]]:
    """Each question's best score with the whole collection, and without its own article.

    Raises
    ------
    DataError
        If all paragraphs are of one article: without it nothing is left.
    """
    if len(set(squad.article_of.values())) < 2:
        raise DataError("the file holds one article only: give one with several, such as SQuAD's.")
    largest = max(
        sum(squad.article_of[p.document_id] == article for p in base.passages)
        for article in {q.article_id for q in questions}
    )
    hits = base.search_many([q.text for q in questions], largest + 1, progress=progress)
    with_article = [found[0].score for found in hits]
    without = [
        next(h.score for h in found if squad.article_of[h.passage.document_id] != q.article_id)
        for q, found in zip(questions, hits, strict=True)
    ]
    return with_article, without


Ranking = dict[str, float]  # document id to score, of one query


def beir_retrieval(
    encoder: TextEncoder,
    data: Beir,
    *,
    kinds: Sequence[str] = RETRIEVERS,
    peers: bool = False,
    seed: int = 0,
    progress: bool = False,
) -> dict[str, Scores]:
    """nDCG@10, recall@10 and @100, and MRR@10 by vectors (exact search), by words, and by both.

    A document is one vector, of its title and text as far as the encoder reads, as BEIR has it.
    Queries without a relevant document can't be scored and are left out, as trec_eval does.

    Parameters
    ----------
    kinds : of "dense", "lexical", "hybrid"
    peers : bool
        Also what sentence-transformers with faiss and what bm25s make of the same texts.

    Returns
    -------
    Scores by the name of what ranked.
    """
    scored = [query for query in data.queries if max(data.qrels[query].values()) > 0]
    if not scored:
        raise DataError("no query has a relevant document: there is nothing to evaluate.")
    texts = [f"{document.title} {document.text}".strip() for document in data.corpus]
    queries = [data.queries[query] for query in scored]

    def dense() -> Iterable[tuple[Floats, Ids]]:
        index = FlatIndex(encoder.dim, "cosine")
        index.add(encoder.encode(texts, progress=progress))
        vectors = encoder.encode_questions(queries, progress=progress)
        return zip(*index.search(vectors, _RANKED_BEIR), strict=True)

    def lexical() -> Iterable[tuple[Floats, Ids]]:
        index = BM25()
        index.add(texts)
        return (index.search(query, _RANKED_BEIR) for query in queries)

    ways: dict[str, Rankings] = {"dense": dense, "lexical": lexical}
    if peers:
        ways |= peer_rankings(encoder, texts, queries, _RANKED_BEIR)

    @cache
    def ranked(name: str) -> tuple[list[tuple[Floats, Ids]], float]:
        """What a way finds, and its seconds from the texts on: of both, those of either, too."""
        began = time.perf_counter()
        if name != "hybrid":
            return list(ways[name]()), time.perf_counter() - began
        (near, of_near), (worded, of_worded) = ranked("dense"), ranked("lexical")
        began = time.perf_counter()
        both = zip(near, worded, strict=True)
        fused = [reciprocal_rank_fusion([a[1], b[1]], _RANKED_BEIR) for a, b in both]
        return fused, of_near + of_worded + time.perf_counter() - began

    results = {}
    for name in [*kinds, *(name for name in ways if name not in RETRIEVERS)]:
        found, seconds = ranked(name)
        rankings = [
            {data.corpus[int(i)].id: float(score) for i, score in zip(ids, scores, strict=True)}
            for scores, ids in found
        ]
        columns = _beir_columns(rankings, [data.qrels[query] for query in scored])
        results[name] = Scores(len(scored), _intervals(columns, seed), seconds)
    return results


def _beir_columns(
    rankings: Sequence[Ranking], judgments: Sequence[Mapping[str, int]]
) -> dict[str, list[float]]:
    columns: dict[str, list[float]] = {
        name: [] for name in ("nDCG@10", "recall@10", "recall@100", "MRR@10")
    }
    for found, judged in zip(rankings, judgments, strict=True):
        ranking = rank_by_score(found)
        columns["nDCG@10"].append(ndcg_at_k(ranking, judged, 10))
        columns["recall@10"].append(recall_at_k(ranking, judged, 10))
        columns["recall@100"].append(recall_at_k(ranking, judged, 100))
        columns["MRR@10"].append(mrr_at_k(ranking, judged, 10))
    return columns
