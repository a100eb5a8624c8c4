"""What an arm is given to read: nothing, what retrieval finds, the right passage, or chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from minirag.combination.arms import Evidence
from minirag.corpus.dice import Dice
from minirag.corpus.slices import SliceQuestion
from minirag.errors import UsageError
from minirag.rag.pipeline import worth_reading
from minirag.retrieval.retriever import BatchRetriever


def found_documents(
    retriever: BatchRetriever,
    questions: Sequence[SliceQuestion],
    k: int,
    *,
    least_shared: float = 0.0,
    progress: bool = False,
) -> list[list[str]]:
    """The ids of the ``k`` best documents for each question, best first.

    A document that was cut into several passages counts once, where its best passage stands. Of
    the ``k`` those are left out whose passages share too few rare words with the question.
    """
    hits = retriever.search_many([q.text for q in questions], 2 * k, progress=progress)
    best = [list(dict.fromkeys(hit.passage.document_id for hit in some))[:k] for some in hits]
    worth = [
        {hit.passage.document_id for hit in worth_reading(some, least_shared)} for some in hits
    ]
    return [[id for id in ids if id in them] for ids, them in zip(best, worth, strict=True)]


def evidence_for(
    evidence: Evidence,
    questions: Sequence[SliceQuestion],
    found: Sequence[Sequence[str]],
    texts: Mapping[str, str],
    k: int,
    seed: int,
) -> list[tuple[str, ...]]:
    """The ids of the documents that a reader gets with each question.

    Parameters
    ----------
    found : one list of ids per question
        From :func:`found_documents`.
    texts : mapping
        All documents of the knowledge base by id.
    k : int
        How many documents a reader gets, if it gets any.
    seed : int
        Of chance: where the right passage stands, and what random passages are.

    Returns
    -------
    One tuple of ids per question: empty; what was found; the right document among the best found
    others, at a random place (for a question without one: what was found); or any others.
    """
    if len(found) != len(questions):
        raise UsageError(f"{len(questions)} questions, {len(found)} lists of documents: one each.")
    dice = Dice(seed, "evidence", evidence)
    given: list[tuple[str, ...]] = []
    ids = sorted(texts)
    for question, best in zip(questions, found, strict=True):
        match evidence:
            case "none":
                given.append(())
            case "retrieved":
                given.append(tuple(best[:k]))
            case "golden":
                given.append(_with_golden(dice, question.document, best, k))
            case "random":
                others = dice.sample(ids, k + 1)
                given.append(tuple([id for id in others if id != question.document][:k]))
    return given


def _with_golden(dice: Dice, golden: str | None, best: Sequence[str], k: int) -> tuple[str, ...]:
    if golden is None:
        return tuple(best[:k])
    chosen = [id for id in best if id != golden][: k - 1]
    chosen.insert(dice.between(0, len(chosen)), golden)
    return tuple(chosen)
