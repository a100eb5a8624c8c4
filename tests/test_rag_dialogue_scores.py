"""What is measured of conversations and FAQs, against loops that count one by one."""

from __future__ import annotations

import numpy as np
import pytest
from fake_encoder import HashEncoder
from hypothesis import given
from hypothesis import strategies as st

from minirag.corpus.dialogue import faq as draw_faq
from minirag.corpus.dialogue import follow_ups
from minirag.corpus.world import Sizes, draw_world
from minirag.errors import UsageError
from minirag.intervals import clustered_bootstrap, clustered_share, wilson_interval
from minirag.rag.faq_curve import (
    Query,
    at_threshold,
    curve,
    faq_queries,
    threshold_for,
)
from minirag.rag.follow_up_recall import follow_up_recall
from minirag.rag.rewriting import Rewrite
from minirag.retrieval.bm25 import BM25
from minirag.retrieval.fusion import reciprocal_rank_fusion
from minirag.retrieval.hybrid import DEPTH

SIZES = Sizes(30, 15, 5, 10, 5)


class Says:
    """A rewriter that says what it is told for each question."""

    def __init__(self, table: dict[str, str]) -> None:
        self.table = table

    def rewrite(self, question, history):
        assert history
        return Rewrite(self.table.get(question, question))


class OneByOne:
    """A world searched question by question, without anything that is shared."""

    def __init__(self, seed: int, n: int, encoder: HashEncoder) -> None:
        world = draw_world("medicine", seed, SIZES)
        self.documents = world.documents("en")
        self.items = follow_ups(world, seed, "en", n)
        texts = [f"{d.title} {d.text}" for d in self.documents]
        self.words = BM25()
        self.words.add(texts)
        self.encoder = encoder
        self.vectors = np.stack([encoder.vector(text) for text in texts])  # (N, D)
        # What a perfect rewriter would say; of equal questions, the last.
        self.perfect = {f.question: f.standalone for f in self.items}

    def recall(self, way: str, questions: list[str], k: int) -> list[float]:
        found = []
        for question, item in zip(questions, self.items, strict=True):
            near = np.argsort(-(self.vectors @ self.encoder.vector(question)), kind="stable")
            by_word = self.words.search(question, DEPTH)[1]
            rows = {
                "lexical": by_word[:k],
                "dense": near[:k],
                "hybrid": reciprocal_rank_fusion([near[:DEPTH], by_word], k)[1],
            }[way]
            found.append(float(item.document in [self.documents[row].id for row in rows]))
        return found


@pytest.mark.parametrize("way", ["lexical", "dense", "hybrid"])
def test_recalls_are_those_counted_one_by_one(way) -> None:
    encoder, seeds, n, k = HashEncoder(dim=48), (4, 7), 30, 3
    worlds = [OneByOne(seed, n, encoder) for seed in seeds]
    perfect = iter(worlds)
    scores = follow_up_recall(
        "medicine",
        "en",
        seeds,
        n=n,
        k=k,
        ways=(way,),
        encoder=encoder,
        rewriter=lambda names: Says(next(perfect).perfect),
        sizes=SIZES,
    )
    (recall,) = scores.recalls
    searched = {
        "as typed": lambda world, f: f.question,
        "rewritten": lambda world, f: world.perfect[f.question],
        "complete": lambda world, f: f.standalone,
    }
    runs = {
        name: [world.recall(way, [what(world, f) for f in world.items], k) for world in worlds]
        for name, what in searched.items()
    }
    for name, values in runs.items():
        assert recall.by_seed[name] == [sum(run) / n for run in values]
        assert recall.recall[name] == clustered_share(values, seeds[0])
    gains = [np.subtract(b, a) for a, b in zip(runs["as typed"], runs["rewritten"], strict=True)]
    assert recall.gain == clustered_bootstrap(gains, seeds[0])
    for kind, by_name in recall.by_kind.items():
        for name, values in runs.items():
            of_kind = [
                [value for value, f in zip(run, world.items, strict=True) if f.kind == kind]
                for run, world in zip(values, worlds, strict=True)
            ]
            assert by_name[name] == clustered_share(of_kind, seeds[0])
    assert (scores.n_documents, scores.n, scores.k) == (65, n, k)


def test_a_rewriter_that_does_nothing_gains_nothing() -> None:
    scores = follow_up_recall("law", "es", (1,), n=50, sizes=SIZES, rewriter=lambda names: Says({}))
    (recall,) = scores.recalls
    assert recall.gain == (0.0, 0.0, 0.0)
    assert (scores.rewritten, scores.changed) == (0.0, 0)
    assert set(recall.by_kind) == {"attribute", "entity", "standalone"}


@pytest.mark.parametrize("language", ["en", "es"])
@pytest.mark.parametrize("domain", ["medicine", "law"])
def test_the_rules_find_what_was_left_out(domain, language) -> None:
    """In a small world: most follow-ups are rewritten, nothing that stands alone is changed."""
    scores = follow_up_recall(domain, language, (21, 22), n=100, sizes=SIZES)
    (recall,) = scores.recalls
    assert scores.changed == 0
    assert scores.standalone > 15
    assert scores.rewritten > 0.9
    assert recall.gain.low > 0.15
    assert recall.by_kind["attribute"]["rewritten"].value > 0.8
    assert recall.by_kind["attribute"]["as typed"].value < 0.4


def test_a_few_follow_ups_all_found_are_no_certainty() -> None:
    (recall,) = follow_up_recall("medicine", "en", (21,), n=6, sizes=SIZES).recalls
    alike = [share for share in recall.recall.values() if share.value in (0, 1)]
    assert recall.recall["complete"] in alike
    for share in alike:
        assert share == wilson_interval(round(6 * share.value), 6)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"n": 0}, "n = 0"),
        ({"k": 0}, "k = 0"),
        ({"seeds": ()}, "0 seeds"),
        ({"ways": ("psychic",)}, "no retriever 'psychic'"),
        ({"ways": ("dense",)}, "dense retrieval needs an encoder"),
        ({"domain": "general"}, "no follow-up questions"),
    ],
)
def test_what_can_t_be_measured_is_a_sentence(changes, says) -> None:
    asked = {"domain": "medicine", "language": "en", "seeds": (1,), "sizes": SIZES, **changes}
    with pytest.raises(UsageError, match=says):
        follow_up_recall(asked.pop("domain"), asked.pop("language"), asked.pop("seeds"), **asked)


# -- the FAQ's curve -------------------------------------------------------------------------------

queries_of = st.lists(
    st.tuples(st.sampled_from([0.0, 0.11, 0.3, 0.35, 0.8, 1.0]), st.booleans(), st.booleans()),
    min_size=1,
    max_size=25,
)


def _queries(drawn) -> list[Query]:
    return [
        Query("?", likeness, answerable, answerable and right)
        for likeness, answerable, right in drawn
    ]


@given(queries_of)
def test_the_curve_counts_what_each_threshold_lets_through(drawn) -> None:
    queries = _queries(drawn)
    n_answerable = sum(query.answerable for query in queries)
    if not n_answerable:
        with pytest.raises(UsageError, match="that have an answer"):
            curve(queries)
        return
    points = curve(queries)
    assert [p.threshold for p in points] == sorted({q.likeness for q in queries}, reverse=True)
    for point in points:
        answered = [q for q in queries if q.likeness >= point.threshold]
        right = sum(q.right for q in answered)
        assert point.precision == right / len(answered)
        assert point.recall == right / n_answerable


@given(queries_of, st.sampled_from([0.5, 0.75, 0.9, 1.0]))
def test_the_threshold_is_the_lowest_that_is_precise_enough(drawn, wanted) -> None:
    queries = [*_queries(drawn), Query("?", 0.5, True, True)]

    def precision(threshold: float) -> float:
        answered = [q.right for q in queries if q.likeness >= threshold]
        return sum(answered) / len(answered)

    enough = [q.likeness for q in queries if precision(q.likeness) >= wanted]
    if not enough:
        with pytest.raises(UsageError, match=f"precision of {wanted}"):
            threshold_for(queries, wanted)
        return
    assert threshold_for(queries, wanted) == pytest.approx(min(enough), abs=1e-9)


def test_a_threshold_is_precise_enough_as_it_is_rounded() -> None:
    """At .552 nine of ten answers are right; at .56 the wrong one alone is left."""
    queries = _queries([(0.552, True, True)] * 9 + [(0.9, True, False)])
    with pytest.raises(UsageError, match=r"precision of 0\.9"):
        threshold_for(queries, 0.9)
    assert threshold_for([*queries, *_queries([(0.57, True, True)] * 9)], 0.9) == 0.56


def test_rates_at_a_threshold_have_their_intervals() -> None:
    queries = _queries([(0.9, True, True), (0.8, True, True), (0.7, False, False),
                        (0.6, True, False), (0.2, True, True), (0.1, False, False)])  # fmt: skip
    found = at_threshold(queries, 0.6)
    assert found.precision == wilson_interval(2, 4)
    assert found.recall == wilson_interval(2, 4)
    assert found.answered_in_vain == wilson_interval(1, 2)
    assert found.n == 6
    for few, threshold in ((queries, 0.95), (queries[:2], 0.5), (queries[2:3], 0.5)):
        with pytest.raises(UsageError, match="give no rates"):
            at_threshold(few, threshold)


def test_faq_queries_are_judged_by_the_entry_they_were_drawn_for() -> None:
    world, encoder = draw_world("law", 5, Sizes(60, 40, 5, 5, 5)), HashEncoder(dim=64)
    stored, drawn = draw_faq(world, "en", 80)
    queries = faq_queries(world, "en", 80, encoder)
    assert len(queries) == len(drawn) == 120
    matrix = np.stack([encoder.vector(entry.question) for entry in stored])  # (E, D)
    for query, truth in zip(queries, drawn, strict=True):
        cosines = matrix @ encoder.vector(truth.text)
        assert query.likeness == pytest.approx(float(cosines.max()), abs=1e-6)
        assert query.answerable == (truth.entry is not None)
        assert query.right == (stored[int(cosines.argmax())].id == truth.entry)
    by_words = faq_queries(world, "en", 80)
    assert sum(query.right for query in by_words) > 60  # of 80, in a small FAQ
