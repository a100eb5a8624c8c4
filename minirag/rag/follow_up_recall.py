"""What the history is worth to the search: follow-ups found without it, and with it.

Each generated follow-up names the document that answers it. It is searched as typed, as rewritten
from its history, and, for comparison, as the complete question that it stands for: what perfect
rewriting would reach.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from minirag.corpus.dialogue import FollowUp, follow_ups
from minirag.corpus.world import Sizes, World, draw_world
from minirag.errors import UsageError
from minirag.intervals import Interval, clustered_bootstrap, clustered_share
from minirag.metrics import recall_at_k
from minirag.rag.names import Names
from minirag.rag.rewriting import Exchange, Rewriter, RuleRewriter
from minirag.retrieval.bm25 import BM25
from minirag.retrieval.flat import FlatIndex
from minirag.retrieval.fusion import reciprocal_rank_fusion
from minirag.retrieval.hybrid import DEPTH
from minirag.retrieval.ids import Ids
from minirag.retrieval.retriever import TextEncoder, encode_checked
from minirag.text.documents import Document

ASKED = ("as typed", "rewritten", "complete")
KINDS = ("attribute", "entity", "standalone")


@dataclass(frozen=True)
class Recalls:
    """One retriever's recall@k over all seeds; intervals resample seeds, then questions."""

    way: str  # "lexical", "dense" or "hybrid"
    recall: dict[str, Interval]  # by what was searched: one of ASKED
    gain: Interval  # rewritten minus as typed, on the same follow-ups
    by_kind: dict[str, dict[str, Interval]]  # kind of follow-up, then as recall
    by_seed: dict[str, list[float]]  # as recall, each seed's mean


@dataclass(frozen=True)
class FollowUpScores:
    """What was measured, and on what."""

    domain: str
    language: str
    seeds: tuple[int, ...]
    n: int  # follow-ups of each seed
    n_documents: int  # of each seed's world
    k: int
    rewritten: float  # share of the follow-ups that lean on the history and were rewritten
    changed: int  # questions that stand alone and were changed all the same
    standalone: int  # of so many
    recalls: list[Recalls]


def follow_up_recall(
    domain: str,
    language: str,
    seeds: Sequence[int],
    *,
    n: int = 300,
    k: int = 3,
    ways: Sequence[str] = ("lexical",),
    encoder: TextEncoder | None = None,
    rewriter: Callable[[Names], Rewriter] | None = None,
    sizes: Sizes | None = None,
    progress: bool = False,
) -> FollowUpScores:
    """Measure recall@k of ``n`` follow-ups in the world of each seed.

    Parameters
    ----------
    domain : {"medicine", "law"}
    seeds : of the worlds, of their follow-ups and of the bootstrap
    ways : of "lexical", "dense", "hybrid"
        The last two need ``encoder``.
    rewriter : function, optional
        Makes a rewriter that knows the collection's names. Default: the rules.

    Raises
    ------
    UsageError
        If the domain has no follow-ups, a way is unknown or needs an encoder, or n or k is wrong.
    """
    if n < 1 or k < 1 or not seeds:
        raise UsageError(f"n = {n}, k = {k}, {len(seeds)} seeds: give 1 or more of each.")
    rewriter = rewriter or (lambda names: RuleRewriter(lambda: names))
    items: list[list[FollowUp]] = []
    searched: list[list[str]] = []
    # way -> asked -> seed -> recall of each follow-up
    columns: dict[str, dict[str, list[list[float]]]] = {w: {a: [] for a in ASKED} for w in ways}
    n_documents = 0
    for seed in seeds:
        world = draw_world(domain, seed, sizes)
        documents = _documents(world, language)
        n_documents = len(documents)
        drawn = follow_ups(world, seed, language, n)
        rewrite = rewriter(Names(documents)).rewrite
        texts = [rewrite(f.question, [Exchange(q, q, a) for q, a in f.history]).text for f in drawn]
        items.append(drawn)
        searched.append(texts)
        questions = {
            "as typed": [f.question for f in drawn],
            "rewritten": texts,
            "complete": [f.standalone for f in drawn],
        }
        passages = [f"{document.title} {document.text}" for document in documents]
        asked = [question for each in questions.values() for question in each]
        for way in ways:
            rankings = _rankings(passages, asked, way, encoder, k, progress)
            found = [
                recall_at_k([documents[row].id for row in ranking.tolist()], [f.document], k)
                for ranking, f in zip(rankings, drawn * len(questions), strict=True)
            ]
            for place, name in enumerate(questions):
                columns[way][name].append(found[place * n : (place + 1) * n])
    leaning = [
        (f, text)
        for drawn, texts in zip(items, searched, strict=True)
        for f, text in zip(drawn, texts, strict=True)
        if f.kind != "standalone"
    ]
    alone = [
        f.question != text
        for drawn, texts in zip(items, searched, strict=True)
        for f, text in zip(drawn, texts, strict=True)
        if f.kind == "standalone"
    ]
    return FollowUpScores(
        domain,
        language,
        tuple(seeds),
        n,
        n_documents,
        k,
        sum(f.question != text for f, text in leaning) / max(1, len(leaning)),
        sum(alone),
        len(alone),
        [_summary(way, columns[way], items, seeds[0]) for way in ways],
    )


def _documents(world: World, language: str) -> list[Document]:
    return [Document(d.id, d.text, d.title) for d in world.documents(language)]


def _rankings(
    passages: Sequence[str],
    questions: Sequence[str],
    way: str,
    encoder: TextEncoder | None,
    k: int,
    progress: bool,
) -> list[Ids]:
    """The best k rows of ``passages`` for each question."""
    if way not in ("lexical", "dense", "hybrid"):
        raise UsageError(f"there is no retriever {way!r}: give lexical, dense or hybrid.")
    words = BM25()
    words.add(passages)
    if way == "lexical":
        return [words.search(question, k)[1] for question in questions]
    if encoder is None:
        raise UsageError(f"{way} retrieval needs an encoder: give one, or take lexical.")
    index = FlatIndex(encoder.dim, "ip")
    index.add(encode_checked(encoder, passages, progress=progress))
    vectors = encode_checked(encoder, questions, questions=True, progress=progress)  # (Q, D)
    if way == "dense":
        return list(index.search(vectors, k)[1])
    near = index.search(vectors, DEPTH)[1]  # (Q, DEPTH)
    both = zip(near, questions, strict=True)
    return [reciprocal_rank_fusion([a, words.search(q, DEPTH)[1]], k)[1] for a, q in both]


def _summary(
    way: str, columns: dict[str, list[list[float]]], items: list[list[FollowUp]], seed: int
) -> Recalls:
    def of_kind(asked: str, kind: str) -> list[list[float]]:
        kept = [
            [value for value, f in zip(values, drawn, strict=True) if f.kind == kind]
            for values, drawn in zip(columns[asked], items, strict=True)
        ]
        return [values for values in kept if values]

    gains = [
        [b - a for a, b in zip(typed, rewritten, strict=True)]
        for typed, rewritten in zip(columns["as typed"], columns["rewritten"], strict=True)
    ]
    return Recalls(
        way,
        {asked: clustered_share(columns[asked], seed) for asked in ASKED},
        clustered_bootstrap(gains, seed),
        {
            kind: {asked: clustered_share(of_kind(asked, kind), seed) for asked in ASKED}
            for kind in KINDS
            if of_kind("as typed", kind)
        },
        {asked: [sum(values) / len(values) for values in columns[asked]] for asked in ASKED},
    )
