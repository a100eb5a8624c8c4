"""Metrics against definitions, trec_eval and scipy; intervals against what they promise."""

import math
import random
import re
import string
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minirag import intervals, metrics
from minirag.errors import UsageError

# -- answers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prediction", "golds", "em", "f1"),
    [
        ("The Eiffel Tower!", ["eiffel tower"], 1, 1),
        ("in the Eiffel Tower", ["Eiffel Tower", "Paris"], 0, 4 / 5),
        ("a cat a cat", ["cat cat cat"], 0, 4 / 5),  # words are counted, not only looked up
        ("U.S.", ["us"], 1, 1),
        ("theatre", ["atre"], 0, 0),  # an article is a word
        ("year-end", ["yearend"], 1, 1),
        ("", [], 1, 1),
        ("the", [], 1, 1),
        ("something", [], 0, 0),
        ("", ["something"], 0, 0),
        ("¿Qué?", ["qué"], 0, 0),  # English knows ASCII punctuation alone, as the official script
    ],
)
def test_squad_scores(prediction, golds, em, f1):
    assert metrics.exact_match(prediction, golds) == em
    assert metrics.token_f1(prediction, golds) == pytest.approx(f1)


@pytest.mark.parametrize(
    ("prediction", "gold", "f1"),
    [
        ("¿La Sagrada Familia?", "sagrada familia", 1),
        ("«unos 40 días»", "40 días", 1),
        ("el año de las luces", "año luces", 0.8),
        ("latitud", "titud", 0),
        ("the house", "house", 2 / 3),
    ],
)
def test_squad_scores_in_spanish(prediction, gold, f1):
    assert metrics.token_f1(prediction, [gold], "es") == pytest.approx(f1)
    assert metrics.exact_match(prediction, [gold], "es") == (f1 == 1)


words = st.lists(
    st.sampled_from(["the", "a", "An", "cat", "sat.", "on", "mat,", "—", "x-y", "", "¿"]),
    max_size=8,
).map(" ".join)


@settings(max_examples=200, deadline=None)
@given(words, words)
def test_squad_scores_follow_the_official_steps(prediction, gold):
    """Lower case, then punctuation, then articles, then white space; precision, recall, F1."""

    def tokens(text):
        bare = re.sub(f"[{re.escape(string.punctuation)}]", "", text.lower())
        return re.sub(r"\b(?:a|an|the)\b", " ", bare).split()

    predicted, expected = tokens(prediction), tokens(gold)
    shared = sum(min(predicted.count(word), expected.count(word)) for word in set(predicted))
    if not predicted or not expected:
        f1 = float(predicted == expected)
    elif not shared:
        f1 = 0
    else:
        precision, recall = shared / len(predicted), shared / len(expected)
        f1 = 2 * precision * recall / (precision + recall)
    assert metrics.exact_match(prediction, [gold]) == (predicted == expected)
    assert metrics.token_f1(prediction, [gold]) == pytest.approx(f1)


def test_a_text_in_the_place_of_a_collection_is_refused_and_not_read_letter_by_letter():
    for score in (metrics.exact_match, metrics.token_f1):
        with pytest.raises(UsageError, match=r"give a list of texts, \['Paris'\]"):
            score("P", "Paris")
        with pytest.raises(UsageError, match="are the text ''"):
            score("", "")
    for score in (metrics.recall_at_k, metrics.mrr_at_k, metrics.ndcg_at_k):
        with pytest.raises(UsageError, match=r"give a list of ids, \['d1'\]"):
            score(["d1"], "d1", 1)


def test_rouge_l_on_lin_s_own_examples():
    reference = "police killed the gunman"
    assert metrics.rouge_l("Police kill the gunman.", reference) == 3 / 4
    assert metrics.rouge_l("the gunman kill police", reference) == 2 / 4
    assert metrics.rouge_l("The gunman police killed", reference) == 2 / 4
    assert metrics.rouge_l("", reference) == metrics.rouge_l("?", "!") == 0
    assert metrics.rouge_l("La cigüen\u0303a", "la CIGÜEÑA vuela") == pytest.approx(4 / 5)


@settings(max_examples=100, deadline=None)
@given(*[st.lists(st.sampled_from("abc"), min_size=1, max_size=12)] * 2)
def test_rouge_l_equals_the_textbook_recursion(a, b):
    def longest(i, j):
        if not i or not j:
            return 0
        if a[i - 1] == b[j - 1]:
            return table[i - 1][j - 1] + 1
        return max(table[i - 1][j], table[i][j - 1])

    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i in range(len(a) + 1):
        for j in range(len(b) + 1):
            table[i][j] = longest(i, j)
    recall, precision = table[-1][-1] / len(b), table[-1][-1] / len(a)
    f = 2 * recall * precision / (recall + precision) if recall else 0
    assert metrics.rouge_l(" ".join(a), " ".join(b)) == pytest.approx(f)


# -- rankings --------------------------------------------------------------------------------------


def test_rankings_by_hand():
    ranked, judged = ["a", "b", "c", "d"], {"b": 1, "d": 3, "x": 2, "a": 0}
    assert metrics.recall_at_k(ranked, judged, 1) == 0
    assert metrics.recall_at_k(ranked, judged, 2) == 1 / 3
    assert metrics.recall_at_k(ranked, {"b", "d"}, 99) == 1
    assert metrics.mrr_at_k(ranked, judged, 10) == 1 / 2
    assert metrics.mrr_at_k(ranked, judged, 1) == 0
    best = 3 + 2 / math.log2(3) + 1 / 2
    assert metrics.ndcg_at_k(ranked, judged, 4) == pytest.approx(
        (1 / math.log2(3) + 3 / math.log2(5)) / best
    )
    for metric in (metrics.recall_at_k, metrics.mrr_at_k, metrics.ndcg_at_k):
        assert metric([], judged, 3) == metric(ranked, {}, 3) == metric(ranked, {"a": 0}, 3) == 0
        with pytest.raises(UsageError, match="k = 0"):
            metric(ranked, judged, 0)
        with pytest.raises(UsageError, match="twice"):
            metric(["a", "b", "a"], judged, 3)


def test_rankings_equal_trec_eval_ties_and_grades_included():
    pytrec_eval = pytest.importorskip("pytrec_eval", reason="trec_eval comes with a peer")
    rng = random.Random(5)
    qrels, runs = {}, {}
    for question in map(str, range(200)):
        ids = [str(n) for n in rng.sample(range(1000), 40)]
        qrels[question] = {
            id: rng.choice([-1, 0, 0, 1, 1, 2, 3]) for id in ids[: rng.randint(1, 25)]
        }
        scores = [rng.choice([0.5, 0.25, 0.75, 1 / 3, 1 / 3 + 1e-12, rng.random()]) for _ in ids]
        runs[question] = dict(zip(ids[rng.randint(0, 20) :], scores, strict=False))
    measures = {"recall.1,5,10", "ndcg_cut.1,5,10", "recip_rank"}
    theirs = pytrec_eval.RelevanceEvaluator(qrels, measures).evaluate(runs)
    assert len(theirs) == 200
    for question, expected in theirs.items():
        ranked = metrics.rank_by_score(runs[question])
        judged = qrels[question]
        for k in (1, 5, 10):
            assert metrics.recall_at_k(ranked, judged, k) == pytest.approx(expected[f"recall_{k}"])
            assert metrics.ndcg_at_k(ranked, judged, k) == pytest.approx(expected[f"ndcg_cut_{k}"])
        assert metrics.mrr_at_k(ranked, judged, 1000) == pytest.approx(expected["recip_rank"])


# -- language models -------------------------------------------------------------------------------


def test_perplexity():
    assert metrics.perplexity(10 * math.log(32), 10) == pytest.approx(32)
    assert metrics.perplexity(0.0, 3) == 1
    assert metrics.perplexity(1e6, 1) == math.inf
    with pytest.raises(UsageError, match="at least one token"):
        metrics.perplexity(0.0, 0)


def test_distinct_n():
    assert metrics.distinct_n(["a b a b", "A b."], 1) == 2 / 6
    assert metrics.distinct_n(["a b a b", "A b."], 2) == 2 / 4
    assert metrics.distinct_n(["a"], 2) == 0


# -- uncertainty -----------------------------------------------------------------------------------


def test_bootstrap_equals_scipy_s_percentiles():
    stats = pytest.importorskip("scipy.stats", reason="scipy comes with a peer")
    values = np.random.default_rng(1).random(80) ** 3
    ours = intervals.bootstrap_interval(values, seed=2, n_resamples=20_000, level=0.9)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, confidence_level=0.9, method="percentile", rng=3
    ).confidence_interval
    assert ours.value == pytest.approx(values.mean())
    width = ours.high - ours.low
    assert ours.low == pytest.approx(theirs.low, abs=0.03 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.03 * width)


def test_bootstrap_is_the_same_for_a_seed_and_exact_for_constants():
    values = [0, 1, 1, 0, 1]
    assert intervals.bootstrap_interval(values, 1) == intervals.bootstrap_interval(values, 1)
    assert intervals.bootstrap_interval([0.25], 1) == (0.25, 0.25, 0.25)
    assert str(intervals.bootstrap_interval([0.25], 1)) == "0.250 [0.250, 0.250]"


def test_blocks_of_resamples_do_not_repeat_themselves(monkeypatch):
    monkeypatch.setattr(intervals, "_DRAWS_AT_ONCE", 100)  # 10 resamples of 10 at a time
    rng = np.random.default_rng(0)
    means = intervals._resampled_means(rng.random(10), np.ones(10, np.int64), 200, rng)
    assert len(set(means.tolist())) > 190


def test_a_paired_interval_is_that_of_the_differences():
    rng = np.random.default_rng(4)
    difficulty = rng.random(400)
    a = (difficulty + 0.1 > rng.random(400)).astype(float)
    b = difficulty
    assert intervals.paired_bootstrap(a, b, 7) == intervals.bootstrap_interval(a - b, 7)
    noisy = rng.random(300)
    low, high = intervals.paired_bootstrap(noisy + 0.01, noisy, 7)[1:]
    assert low == pytest.approx(0.01)  # the questions' own spread cancels
    assert high == pytest.approx(0.01)


def coverage(interval_of, n_trials=150):
    """How often a 90 % interval holds the truth, 0, in trials with noise in seeds and questions."""
    rng, hits = np.random.default_rng(8), 0
    for trial in range(n_trials):
        low, high = interval_of(rng, trial)[1:]
        hits += low <= 0 <= high
    return hits / n_trials


def test_clustered_intervals_hold_the_truth_where_pooled_ones_do_not():
    def runs(rng):  # ten seeds, whose luck weighs far more than their 50 questions
        return rng.normal(size=(10, 1)) + rng.normal(size=(10, 50))

    def clustered(rng, trial):
        return intervals.clustered_bootstrap(runs(rng), trial, 500, 0.9)

    def pooled(rng, trial):
        return intervals.bootstrap_interval(runs(rng).ravel(), trial, 500, 0.9)

    assert coverage(clustered) > 0.8
    assert coverage(pooled) < 0.5


def test_questions_shared_by_all_seeds_are_drawn_once_for_all():
    def runs(rng):  # hard questions are hard for every seed
        return rng.normal(size=(1, 50)) + 0.1 * rng.normal(size=(8, 50))

    def shared(rng, trial):
        return intervals.clustered_bootstrap(runs(rng), trial, 500, 0.9, same_questions=True)

    def apart(rng, trial):
        return intervals.clustered_bootstrap(runs(rng), trial, 500, 0.9)

    assert coverage(shared) > 0.8
    assert coverage(apart) < 0.6


def test_clustered_value_weighs_seeds_alike_and_one_seed_is_the_plain_bootstrap():
    interval = intervals.clustered_bootstrap([[1.0], [0.0, 0.0, 0.0]], 3)
    assert interval == (0.5, 0.0, 1.0)
    values = np.random.default_rng(0).random(60)
    one = intervals.clustered_bootstrap([values], 3)
    plain = intervals.bootstrap_interval(values, 3)
    assert one == pytest.approx(plain, abs=0.01)
    both = intervals.clustered_bootstrap([values], 3, same_questions=True)
    assert both == pytest.approx(plain, abs=0.01)


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (3, 10), (10, 10), (299, 300), (1, 1)])
def test_wilson_equals_scipy_s(successes, n):
    stats = pytest.importorskip("scipy.stats", reason="scipy comes with a peer")
    expected = stats.binomtest(successes, n).proportion_ci(0.95, method="wilson")
    interval = intervals.wilson_interval(successes, n)
    assert interval == pytest.approx((successes / n, expected.low, expected.high))


@pytest.mark.parametrize(
    "call",
    [
        lambda: intervals.bootstrap_interval([], 1),
        lambda: intervals.bootstrap_interval([1.0, math.nan], 1),
        lambda: intervals.bootstrap_interval([1.0], 1, level=95),
        lambda: intervals.bootstrap_interval([1.0], 1, n_resamples=0),
        lambda: intervals.paired_bootstrap([1.0], [1.0, 2.0], 1),
        lambda: intervals.clustered_bootstrap([], 1),
        lambda: intervals.clustered_bootstrap([[1.0], [1.0, 2.0]], 1, same_questions=True),
        lambda: intervals.wilson_interval(3, 2),
        lambda: intervals.wilson_interval(0, 0),
        lambda: metrics.distinct_n(["a"], 0),
    ],
)
def test_what_has_no_score_is_refused(call):
    with pytest.raises(UsageError):
        call()


def test_metrics_need_numpy_alone():
    code = "import sys, minirag.metrics; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert "numpy" in loaded.stdout.split()
    assert {"torch", "tokenizers", "scipy", "transformers"}.isdisjoint(loaded.stdout.split())


def test_scores_about_one_thing_are_drawn_together():
    things = [list(np.repeat(range(50), 2))] * 4

    def runs(rng):  # each thing is asked about twice, both times with the same luck
        return np.repeat(rng.normal(size=(4, 50)), 2, axis=1)

    def together(rng, trial):
        return intervals.clustered_bootstrap(runs(rng), trial, 500, 0.9, about=things)

    def apart(rng, trial):
        return intervals.clustered_bootstrap(runs(rng), trial, 500, 0.9)

    assert coverage(together) > 0.8
    assert coverage(apart) < coverage(together) - 0.05


def test_what_scores_are_about_by_hand():
    values, about = [[1.0, 0.0, 0.0]], [["a", "a", "b"]]
    interval = intervals.clustered_bootstrap(values, 0, 4000, about=about)
    # draws of two things: aa 1/2, ab and ba 1/3, bb 0
    assert interval == (pytest.approx(1 / 3), 0.0, 0.5)
    twice = intervals.clustered_bootstrap(values * 2, 0, 4000, about=about * 2, same_questions=True)
    assert twice == interval
    with pytest.raises(UsageError, match="every score"):
        intervals.clustered_bootstrap(values, 0, about=[["a", "b"]])


def test_a_share_that_is_all_or_nothing_has_wilson_s_interval():
    none = intervals.clustered_share([[0.0] * 20, [0.0] * 30], 0)
    assert none == intervals.wilson_interval(0, 50)
    about = [[i // 2 for i in range(20)]] * 2
    assert intervals.clustered_share([[1.0] * 20] * 2, 0, about=about) == (
        intervals.wilson_interval(20, 20)
    )
    assert intervals.clustered_share([[1.0] * 20] * 2, 0, about=about, same_questions=True) == (
        intervals.wilson_interval(10, 10)
    )
    some = [[0.0, 1.0, 1.0], [1.0, 1.0, 0.0]]
    assert intervals.clustered_share(some, 3) == intervals.clustered_bootstrap(some, 3)
