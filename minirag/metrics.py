"""Every score the package reports, defined once, with NumPy alone.

Answers: exact match, token F1, ROUGE-L. Rankings: recall@k, MRR@k, nDCG@k. Classes: macro-F1.
Language models: perplexity, distinct-n, the longest copied stretch. Scores are between 0 and 1
unless their docstring says otherwise, and each is for one question: the mean is the caller's, and
:mod:`minirag.intervals` says how sure it is.
"""

from __future__ import annotations

import math
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minirag.errors import UsageError

Language = Literal["en", "es"]
Judgments = Mapping[str, int] | Collection[str]

# -- answers ---------------------------------------------------------------------------------------

_ARTICLES = {
    "en": re.compile(r"\b(a|an|the)\b"),
    "es": re.compile(r"\b(un|una|unos|unas|el|la|los|las)\b"),
}


def normalize_answer(text: str, language: Language = "en") -> str:
    """Lower case, without punctuation, articles and extra space.

    English exactly as SQuAD's official script does it (Rajpurkar et al. 2016). Spanish as MLQA's
    (Lewis et al. 2020): its own articles, and every Unicode punctuation mark (``¿``, ``«``).
    """
    text = text.lower()
    if language == "en":
        text = "".join(c for c in text if c not in string.punctuation)
    else:
        text = "".join(
            c
            for c in text
            if c not in string.punctuation and not unicodedata.category(c).startswith("P")
        )
    return " ".join(_ARTICLES[language].sub(" ", text).split())


def exact_match(prediction: str, golds: Collection[str], language: Language = "en") -> float:
    """1.0 if the prediction equals one of the right answers once normalised, else 0.0.

    No right answer means that the question has none: then only an empty prediction is right.
    """
    predicted = normalize_answer(prediction, language)
    return float(any(predicted == normalize_answer(gold, language) for gold in _several(golds)))


def token_f1(prediction: str, golds: Collection[str], language: Language = "en") -> float:
    """F1 of the words shared with a right answer, the best over the right answers.

    As in SQuAD 2.0: where one side is empty once normalised, 1.0 if both are, else 0.0.
    """
    predicted = normalize_answer(prediction, language).split()
    return max(
        _overlap_f1(predicted, normalize_answer(gold, language).split()) for gold in _several(golds)
    )


def _several(golds: Collection[str]) -> Collection[str]:
    """The right answers; the empty one if there is none."""
    if isinstance(golds, str):  # a collection, too: of its letters
        raise UsageError(
            f"the right answers are the text {golds!r}: give a list of texts, [{golds!r}]."
        )
    return golds or [""]


def _overlap_f1(predicted: Sequence[str], gold: Sequence[str]) -> float:
    if not predicted or not gold:
        return float(predicted == gold)
    shared = (Counter(predicted) & Counter(gold)).total()
    return 2 * shared / (len(predicted) + len(gold))


def rouge_l(prediction: str, reference: str) -> float:
    """F-measure of the longest common subsequence of words (Lin 2004), case ignored.

    Words are runs of letters and digits of any language; there is no stemming.
    """
    predicted, expected = _words(prediction), _words(reference)
    if not predicted or not expected:
        return 0.0
    vocabulary = {word: index for index, word in enumerate({*predicted, *expected})}
    a = np.array([vocabulary[word] for word in predicted])
    b = np.array([vocabulary[word] for word in expected])
    longest = np.zeros(len(b) + 1, np.int64)  # with the words of a so far, and each prefix of b
    for word in a:
        longest[1:] = np.maximum(longest[1:], longest[:-1] + (b == word))
        longest = np.maximum.accumulate(longest)
    return 2 * int(longest[-1]) / (len(a) + len(b))


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", unicodedata.normalize("NFC", text).casefold())


# -- rankings --------------------------------------------------------------------------------------


def rank_by_score(scores: Mapping[str, float]) -> list[str]:
    """Ids in the order in which trec_eval ranks them.

    Best score first, compared as 32-bit floats; equal scores by id, descending as text ("9" before
    "10"). minirag's own searches put equal scores in ascending order of id: pass their results to
    the metrics as they come, or their scores through here to compare with trec_eval.
    """
    by_id = sorted(scores, reverse=True)
    return sorted(by_id, key=lambda id: np.float32(scores[id]), reverse=True)


def recall_at_k(ranked: Sequence[str], judged: Judgments, k: int) -> float:
    """Share of the relevant documents that are among the first ``k`` (trec_eval's ``recall_k``).

    Parameters
    ----------
    ranked : ids, best first
        Fewer than ``k`` are as many as were found.
    judged : mapping of id to grade, or collection of the relevant ids
        Grades above 0 are relevant.

    Returns
    -------
    float
        0 if nothing is relevant. (trec_eval's mean leaves such questions out: do so, too.)
    """
    grades = _grades(judged)
    return sum(id in grades for id in _top(ranked, k)) / len(grades) if grades else 0.0


def mrr_at_k(ranked: Sequence[str], judged: Judgments, k: int) -> float:
    """1 / rank of the first relevant document among the first ``k``, else 0; see `recall_at_k`.

    With ``k`` no smaller than the ranking it is trec_eval's ``recip_rank``.
    """
    grades = _grades(judged)
    for rank, id in enumerate(_top(ranked, k), start=1):
        if id in grades:
            return 1 / rank
    return 0.0


def ndcg_at_k(ranked: Sequence[str], judged: Judgments, k: int) -> float:
    """Discounted gain over that of the best ranking (trec_eval's ``ndcg_cut_k``).

    The gain is the grade itself (not ``2**grade - 1``), the discount ``log2(rank + 1)`` (Järvelin
    and Kekäläinen 2002). Parameters and result as for `recall_at_k`.
    """
    grades = _grades(judged)
    best = _discounted_sum(sorted(grades.values(), reverse=True)[:k])
    found = _discounted_sum([grades.get(id, 0) for id in _top(ranked, k)])
    return found / best if best else 0.0


def _top(ranked: Sequence[str], k: int) -> Sequence[str]:
    if k < 1:
        raise UsageError(f"k = {k} ranks nothing: give 1 or more.")
    if len(set(ranked)) != len(ranked):
        raise UsageError("a ranking names a document twice: give each id once.")
    return ranked[:k]


def _grades(judged: Judgments) -> dict[str, int]:
    """The relevant documents and their grades."""
    if isinstance(judged, Mapping):
        return {id: grade for id, grade in judged.items() if grade > 0}
    if isinstance(judged, str):  # a collection, too: of its letters
        raise UsageError(
            f"the relevant documents are the text {judged!r}: give a list of ids, [{judged!r}]."
        )
    return dict.fromkeys(judged, 1)


def _discounted_sum(gains: Iterable[int]) -> float:
    return sum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, start=1))


# -- classes ---------------------------------------------------------------------------------------


def confusion_matrix(gold: ArrayLike, predicted: ArrayLike, n_classes: int) -> NDArray[np.int64]:
    """How many texts of each class were taken for each: (C, C), the true class in the row.

    Parameters
    ----------
    gold, predicted : (n,) numbers of classes, 0 to C - 1
    """
    true, taken = np.asarray(gold, np.int64), np.asarray(predicted, np.int64)
    if true.ndim != 1 or true.shape != taken.shape:
        raise UsageError(
            f"{true.size} classes can't be compared with {taken.size}: give one prediction a text."
        )
    for classes in (true, taken):
        if classes.size and not 0 <= classes.min() <= classes.max() < n_classes:
            raise UsageError(f"the classes are numbered 0 to {n_classes - 1}; one here is not.")
    pairs = np.bincount(true * n_classes + taken, minlength=n_classes**2)
    return pairs.reshape(n_classes, n_classes).astype(np.int64)


def macro_f1(confusion: ArrayLike) -> float:
    """Mean over the classes of F1: each class counts the same, however rare it is.

    A class that is neither there nor predicted is left out, as scikit-learn does.
    """
    return float(macro_f1s(np.asarray(confusion, np.float64)[None])[0])


def macro_f1s(confusions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Macro-F1 of each of several confusion matrices: (R, C, C) -> (R,)."""
    there, predicted = confusions.sum(axis=2), confusions.sum(axis=1)  # (R, C)
    right = np.diagonal(confusions, axis1=1, axis2=2)
    counted = there + predicted > 0
    f1 = np.divide(2 * right, there + predicted, out=np.zeros_like(there), where=counted)
    means: NDArray[np.float64] = f1.sum(axis=1) / np.maximum(counted.sum(axis=1), 1)
    return means


# -- language models -------------------------------------------------------------------------------


def perplexity(total_nll: float, n_tokens: int) -> float:
    """exp(mean negative log-likelihood), 1 or more.

    ``total_nll`` is the sum over all tokens, in nats: means of batches of different lengths must
    not be averaged.
    """
    if n_tokens < 1:
        raise UsageError(f"perplexity needs at least one token, got {n_tokens}.")
    mean = total_nll / n_tokens
    return math.exp(mean) if mean < 700 else math.inf


def distinct_n(texts: Iterable[str], n: int) -> float:
    """Different n-grams of words over all n-grams in ``texts`` (Li et al. 2016); 0 without any."""
    if n < 1:
        raise UsageError(f"n = {n} makes no n-grams: give 1 or more.")
    grams: Counter[tuple[str, ...]] = Counter()
    for text in texts:
        words = _words(text)
        grams.update(zip(*(words[start:] for start in range(n)), strict=False))
    return len(grams) / grams.total() if grams else 0.0


class Copied:
    """How long a stretch of a text stands word for word in texts that a model learned from.

    Parameters
    ----------
    sources : texts
        A stretch stands in one of them, never across two.
    """

    def __init__(self, sources: Iterable[str]) -> None:
        places: dict[str, list[int]] = {}
        at = 0
        for source in sources:
            for word in _words(source):
                places.setdefault(word, []).append(at)
                at += 1
            at += 1  # nobody's place: no stretch goes on here
        self._places = {word: np.array(found, np.int64) for word, found in places.items()}

    def longest(self, text: str) -> int:
        """Words of the longest stretch of ``text`` that stands in one of the sources."""
        longest = 0
        ends = lengths = np.empty(0, np.int64)  # the stretches that end with the last word, where
        for word in _words(text):
            here = self._places.get(word, np.empty(0, np.int64))
            # A stretch that ended one place before goes on; any other place begins a new one.
            found = np.searchsorted(ends, here - 1)
            goes_on = np.zeros(len(here), np.bool_)
            inside = found < len(ends)
            goes_on[inside] = ends[found[inside]] == here[inside] - 1
            grown = np.ones(len(here), np.int64)
            grown[goes_on] += lengths[found[goes_on]]
            ends, lengths = here, grown
            longest = max(longest, int(lengths.max(initial=0)))
        return longest
