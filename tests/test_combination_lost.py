"""Where answers are lost, and what retrieval finds before anything is read."""

import dataclasses

import pytest
from fake_encoder import HashEncoder

from minirag.combination.arms import ARMS
from minirag.combination.collection import collection, texts_of
from minirag.combination.compare import ArmResult, Outcome
from minirag.combination.finding import DEPTH, Finding, find, summarize_findings
from minirag.combination.lost import PARTS, losses, losses_table, lost_in
from minirag.corpus.slices import slice_questions
from minirag.corpus.world import Sizes, draw_world
from minirag.intervals import clustered_bootstrap

RIGHT = Outcome("new", "q", "d, dose", "40 mg", "40 mg", True, 1.0, False, ("a", "b"), True)


def _but(**changes):
    return dataclasses.replace(RIGHT, **{"right": False, "f1": 0.0, **changes})


CASES = [
    (RIGHT, None),
    (dataclasses.replace(RIGHT, golden_given=False), None),  # right by knowing it
    (_but(answer="4 mg"), "reading"),
    (_but(answer=None), "refusing"),
    (_but(answer="4 mg", golden_given=False), "retrieval"),
    (_but(answer=None, golden_given=False), "retrieval"),
    (_but(answer=None, given=(), golden_given=False), "retrieval"),  # nothing was worth reading
    (_but(expected=None, answer="4 mg", golden_given=False), "refusing"),
    (_but(expected=None, answer="4 mg", given=(), golden_given=False), "refusing"),
    (_but(expected=None, answer=None, right=True, golden_given=False), None),
]


@pytest.mark.parametrize(("outcome", "part"), CASES)
def test_the_part_that_loses(outcome, part):
    assert lost_in(outcome, "retrieved") == part


def test_without_evidence_it_is_memory_that_loses():
    nothing = {"given": (), "golden_given": False}
    assert lost_in(_but(answer="4 mg", **nothing), "none") == "memory"
    assert lost_in(_but(answer=None, **nothing), "none") == "memory"
    assert lost_in(_but(expected=None, answer="4 mg", **nothing), "none") == "refusing"
    right = {"right": True, "f1": 1.0, **nothing}
    assert lost_in(_but(**right), "none") is None


def test_shares_of_what_is_lost():
    runs = [[o for o, _ in CASES], [CASES[2][0], CASES[4][0]]]
    results = [ArmResult(ARMS[2], seed, tuple(run), 0.1, 9.0) for seed, run in enumerate(runs)]
    (row,) = losses(results)
    assert (row.arm, row.slice) == ("RAG", "new")
    assert row.right == pytest.approx((3 / 10 + 0) / 2)  # seeds count alike
    assert row.reading == pytest.approx((1 / 10 + 1 / 2) / 2)
    assert row.retrieval == pytest.approx((3 / 10 + 1 / 2) / 2)
    assert row.refusing == pytest.approx((3 / 10) / 2)
    assert row.memory == 0
    assert row.right + sum(getattr(row, part) for part in PARTS) == pytest.approx(1)
    assert (
        losses_table([row]).splitlines()[2]
        == "| RAG | new | 0.150 | 0.000 | 0.400 | 0.300 | 0.150 |"
    )
    assert row.as_json()["reading"] == 0.3
    closed_book = [dataclasses.replace(result, arm=ARMS[1]) for result in results]
    (row,) = losses(closed_book)
    assert (row.right, row.memory, row.refusing) == pytest.approx((0.15, 0.75, 0.1))


@pytest.mark.parametrize("language", ["en", "es"])
def test_ranks_are_those_of_a_search_by_hand(language):
    world = draw_world("medicine", 4, Sizes(stable=12, unseen=6, updated=6, new=6, unanswerable=4))
    base = collection(world, language, HashEncoder())
    texts = texts_of(base)
    questions = [q for some in slice_questions(world, language, 5).values() for q in some]
    findings = find(base.lexical(), questions, texts)
    asked = [q for q in questions if q.document is not None]
    assert [f.question for f in findings] == [q.text for q in asked]
    assert len(asked) == 25
    for finding, question in zip(findings, asked, strict=True):
        hits = base.lexical().search(question.text, 2 * DEPTH)
        order = list(dict.fromkeys(hit.passage.document_id for hit in hits))[:DEPTH]
        rank = order.index(question.document) + 1 if question.document in order else None
        assert finding.rank == rank
        assert finding.in_first == (question.answer in texts[order[0]])
        if rank == 1:
            assert finding.in_first
    assert sum(f.rank == 1 for f in findings) > 15


def test_findings_are_summed_up_over_seeds():
    runs = [
        [
            Finding("new", "a", "1", 1, True),
            Finding("new", "b", "2", None, False),
            Finding("old", "c", "3", 3, True),
        ],
        [
            Finding("new", "d", "4", 2, False),
            Finding("new", "e", "5", 1, True),
            Finding("old", "f", "6", 1, True),
        ],
    ]
    new, old = summarize_findings(runs, upto=3, bootstrap_seed=5, n_resamples=500)
    assert (new.slice, new.n, old.slice, old.n) == ("new", 2, "old", 1)
    assert [interval.value for interval in new.recall] == [0.5, 0.75, 0.75]
    assert [interval.value for interval in old.recall] == [0.5, 0.5, 1.0]
    assert new.recall[1] == clustered_bootstrap([[1.0, 0.0], [1.0, 1.0]], 5, 500)
    assert new.in_first == clustered_bootstrap([[1.0, 0.0], [0.0, 1.0]], 5, 500)
    assert new.as_json()["recall"][1][0] == 0.75
