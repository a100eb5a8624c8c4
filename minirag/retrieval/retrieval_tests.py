"""How well a retriever finds: recall and MRR among passages about entities that it never met.

Questions in one language look for passages in the same or in the other one, by vectors, by words
(BM25) and by both. Rare names are tested apart: dense retrieval was found to fail on them
(Sciavolino et al. 2021), since a name that falls into many pieces was seen whole by no training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from minirag.corpus.grammar import LANGUAGES
from minirag.corpus.retrieval import RetrievalSet, draw_retrieval_set
from minirag.intervals import Interval, bootstrap_interval, wilson_interval
from minirag.retrieval.bm25 import BM25
from minirag.retrieval.flat import FlatIndex
from minirag.retrieval.fusion import reciprocal_rank_fusion
from minirag.retrieval.hybrid import DEPTH
from minirag.retrieval.ids import Ids
from minirag.retrieval.retriever import TextEncoder, encode_checked

RECALL_AT = (1, 3, 10)
WAYS = ("dense", "lexical", "hybrid")


@dataclass(frozen=True)
class RetrievalScore:
    """One way of searching, on one set of questions."""

    domain: str
    asked_in: str  # the questions' language
    found_in: str  # the passages' language
    names: str  # "all", or those whose names fall into "many pieces" or "few pieces"
    way: str  # one of WAYS
    passages: int
    n: int
    recall: Mapping[int, Interval]  # k -> share of questions with their passage among the first k
    mrr: Interval  # mean of 1 / rank of the passage among the first ten, else 0

    def as_json(self) -> dict[str, object]:
        """Plain values, rounded to four digits."""
        return {
            "domain": self.domain,
            "asked_in": self.asked_in,
            "found_in": self.found_in,
            "names": self.names,
            "way": self.way,
            "passages": self.passages,
            "n": self.n,
            **{_recall(k): _rounded(interval) for k, interval in self.recall.items()},
            "MRR@10": _rounded(self.mrr),
        }


def _recall(k: int) -> str:
    return f"recall@{k}"


def _rounded(interval: Interval) -> list[float]:
    return [round(x, 4) for x in interval]


class Searcher:
    """The passages of a test, searchable in each language by vectors, by words and by both."""

    def __init__(
        self,
        encoder: TextEncoder,
        data: RetrievalSet,
        ways: Sequence[str] = WAYS,
        *,
        progress: bool = False,
    ) -> None:
        self.encoder, self.data, self.ways, self.progress = encoder, data, ways, progress
        self.vectors: dict[str, FlatIndex] = {}
        self.words: dict[str, BM25] = {}
        for language in LANGUAGES:
            texts = data.passages[language]
            if {"dense", "hybrid"} & set(ways):
                self.vectors[language] = FlatIndex(encoder.dim, "ip")
                self.vectors[language].add(encode_checked(encoder, texts, progress=progress))
            if {"lexical", "hybrid"} & set(ways):
                self.words[language] = BM25()
                self.words[language].add(texts)

    def ranks(
        self, places: Sequence[int], asked_in: str, found_in: str
    ) -> dict[str, NDArray[np.int64]]:
        """By way: the rank 1, 2, ... of each question's passage, 0 where it is not found.

        Each ranking is looked at down to place 50, which is what the hybrid fuses.
        """
        texts = [self.data.question(place, asked_in) for place in places]
        rankings: dict[str, list[Ids]] = {}
        if self.vectors:
            vectors = encode_checked(self.encoder, texts, questions=True, progress=self.progress)
            rankings["dense"] = list(self.vectors[found_in].search(vectors, DEPTH)[1])
        if self.words:
            rankings["lexical"] = [self.words[found_in].search(text, DEPTH)[1] for text in texts]
        if "hybrid" in self.ways:
            both = zip(rankings["dense"], rankings["lexical"], strict=True)
            rankings["hybrid"] = [reciprocal_rank_fusion(pair, DEPTH)[1] for pair in both]
        return {
            way: np.array(
                [rank_of(place, ids) for place, ids in zip(places, rankings[way], strict=True)],
                np.int64,
            )
            for way in self.ways
        }


def rank_of(id: int, ranking: Ids) -> int:
    """The place 1, 2, ... of ``id`` in a ranking; 0 if it is not in it."""
    places = np.flatnonzero(ranking == id)
    return int(places[0]) + 1 if len(places) else 0


def recall_and_mrr(ranks: NDArray[np.int64], seed: int) -> tuple[dict[int, Interval], Interval]:
    """Recall with 95 % Wilson intervals and MRR@10 with bootstrap ones, of ranks; 0: not found."""
    hits = {k: int(((ranks > 0) & (ranks <= k)).sum()) for k in RECALL_AT}
    within = (ranks > 0) & (ranks <= 10)
    reciprocal = np.where(within, 1 / np.maximum(ranks, 1), 0.0)
    recall = {k: wilson_interval(n, len(ranks)) for k, n in hits.items()}
    return recall, bootstrap_interval(reciprocal, seed)


def pieces_per_letter(encoder: TextEncoder, names: Sequence[str]) -> NDArray[np.float64]:
    """Tokens per character of each name: how much the encoder's tokenizer breaks it up."""
    counts = [len(encoder.tokenizer.offsets(name)[0]) for name in names]
    return np.array([n / len(name) for n, name in zip(counts, names, strict=True)])


def by_pieces(encoder: TextEncoder, data: RetrievalSet, language: str) -> dict[str, list[int]]:
    """The places of a set whose names fall into most pieces (a quarter of them), and the others."""
    names = [getattr(entity.name, language).text for entity in data.entities]
    order = np.argsort(-pieces_per_letter(encoder, names), kind="stable")
    quarter = max(1, len(order) // 4)
    return {"many pieces": order[:quarter].tolist(), "few pieces": order[quarter:].tolist()}


def evaluate_retriever(
    encoder: TextEncoder,
    domain: str,
    *,
    seed: int,
    passages: int = 5000,
    questions: int = 400,
    ways: Sequence[str] = WAYS,
    rare_names: bool = True,
    progress: bool = False,
) -> list[RetrievalScore]:
    """Ask for passages about unseen entities of a domain, within and across languages.

    Parameters
    ----------
    domain : {"general", "medicine", "law"}
    seed : int
        Another seed, other entities; development and reported scores use different ones.
    passages : int
        In each language; a question looks for one of them in one language.
    questions : int
        One a passage, for as many passages.
    rare_names : bool
        Also ask as many questions about the names that fall into most pieces, and about the others,
        within each language.

    Raises
    ------
    UsageError
        If there are more questions than passages.
    """
    data = draw_retrieval_set(domain, seed, passages)
    asked = data.sample(questions)
    searcher = Searcher(encoder, data, ways, progress=progress)
    tests = [(a, b, "all", asked) for a in LANGUAGES for b in LANGUAGES]
    if rare_names:
        for language in LANGUAGES:
            for names, places in by_pieces(encoder, data, language).items():
                chosen = data.sample(questions, among=places)
                tests.append((language, language, names, chosen))
    scores = []
    for asked_in, found_in, names, places in tests:
        for way, ranks in searcher.ranks(places, asked_in, found_in).items():
            recall, mrr = recall_and_mrr(ranks, seed)
            scores.append(
                RetrievalScore(
                    domain, asked_in, found_in, names, way, passages, len(places), recall, mrr
                )
            )
    return scores


def table(scores: Sequence[RetrievalScore]) -> str:
    """As lines for people, 80 columns wide: scores, and below them their intervals."""
    lines = [f"{'':<40}" + "".join(f"{head:<10}" for head in (*map(_recall, RECALL_AT), "MRR@10"))]
    for s in scores:
        names = "" if s.names == "all" else f", {s.names}"
        cells = (*s.recall.values(), s.mrr)
        lines += [
            f"{f'{s.domain}, {s.asked_in} → {s.found_in}{names}, {s.way}':<40}"
            + "".join(f"{cell.value:<10.3f}" for cell in cells),
            f"{'':<40}" + "".join(f"{f'{cell.low:.2f}–{cell.high:.2f}':<10}" for cell in cells),
        ]
    return "\n".join(line.rstrip() for line in lines)
