"""The advisor's rules on maps made by hand: which arm, why, what it costs, what would change it."""

import dataclasses
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_map import (
    BASE,
    NAMES,
    RAFT,
    RAG,
    SECONDS,
    TUNED,
    TUNED_RAG,
    VOLATILITIES,
    about,
    cell,
    place,
    textbook_map,
    usual,
)

from minirag.choosing.advisor import Change, advise, duration, said
from minirag.choosing.measured_map import MeasuredMap
from minirag.choosing.rules import Needs, decide, year_of
from minirag.combination.arms import ARMS
from minirag.errors import UsageError

READS = {arm.name: arm.evidence != "none" for arm in ARMS}
BY_NAME = {arm.name: arm for arm in ARMS}


def text(map, **answers):
    return "\n".join(advise(map, Needs(**answers)).lines())


# --------------------------------------------------------------------------------- rule by rule


def test_the_most_accurate_arm_is_advised():
    """.96 of the stable facts: 0 % → fine-tuned; .72 < .9 from 25 % on → RAFT."""
    measured = textbook_map()
    arms = [decide(measured, Needs(volatility=v)).arm for v in VOLATILITIES]
    assert arms == [TUNED, RAFT, RAFT, RAFT, RAFT]
    said = text(measured, volatility=0.25)
    assert said.startswith("advice: RAFT + RAG\n")
    assert "(disjoint wording, 300 things, 25% changed), exact match" in said
    assert f" > {RAFT:<18}0.900 [0.880, 0.920]" in said
    assert "ahead of fine-tuned by 0.180 [0.160, 0.200], paired by question." in said
    assert "small-base on medicine, 200 questions in each world (worlds 301, 302); the" in said
    assert "those of a slide rule" in said
    assert "Its reader learned from 2,000 labelled questions, 1.0 times each." in said
    assert "nearest to your" not in said


def test_what_lies_outside_the_map_is_not_measured():
    measured = textbook_map()
    for answers, why in (
        ({"entities": 5000}, "it has 100 to 1,000 things to know about, not 5,000"),
        ({"entities": 99}, "it has 100 to 1,000 things to know about, not 99"),
        ({"specialisation": "half"}, "it has the wordings shared, disjoint, not half"),
    ):
        advice = advise(measured, Needs(**answers))
        assert advice.decision.outside == why
        assert advice.decision.arm is None
        assert not advice.changes
        lines = advice.lines()
        assert lines[0] == f"not measured: your answers are outside the map: {why}."
        assert "minirag map --run" in lines[1]
        body = advice.as_json()
        assert (body["measured"], body["arm"], body["outside"]) == (False, None, why)
    some = MeasuredMap(about(), (place("shared", 300, [usual(0.25), usual(0.5)]),))
    for volatility in (0.0, 0.75):
        outside = decide(some, Needs("shared", volatility)).outside
        assert outside == f"it has 25% to 50% of changed facts, not {volatility:.0%}"


def test_between_measured_points_the_nearest_speaks():
    measured = textbook_map()
    for entities, nearest in ((100, 100), (173, 100), (174, 300), (547, 300), (548, 1000)):
        assert decide(measured, Needs(entities=entities)).place.entities == nearest
    for volatility, nearest in ((0.12, 0.0), (0.125, 0.0), (0.13, 0.25), (0.9, 1.0)):
        assert decide(measured, Needs(volatility=volatility)).cell.volatility == nearest
    assert "nearest to your 310 things and 30%" in text(measured, entities=310, volatility=0.3)


def test_sources_are_cited_by_arms_that_have_some():
    measured = textbook_map()
    assert decide(measured, Needs(volatility=0.0)).arm == TUNED
    decision = decide(measured, Needs(volatility=0.0, citations=True))
    assert decision.arm == RAFT
    assert {name for name, _ in decision.left_out} == {BASE, TUNED}
    said = text(measured, volatility=0.0, citations=True)
    assert "left out: answers from its weights, and has no source to cite" in said
    assert "ahead of fine-tuned + RAG by 0.300" in said  # not of the fine-tuned one


def test_a_reader_needs_the_labelled_questions_that_it_learned_from():
    """Closed book 1,200 at 300 entities, RAFT 2,000."""
    measured = textbook_map()
    for labelled, arm in (
        (0, RAG),
        (1199, RAG),
        (1200, TUNED_RAG),
        (1999, TUNED_RAG),
        (2000, RAFT),
    ):
        assert decide(measured, Needs(volatility=0.5, labelled=labelled)).arm == arm
    why = "learned from 2,000 labelled questions; with 1,500 it is not measured"
    assert dict(decide(measured, Needs(labelled=1500)).left_out) == {RAFT: why}
    assert f"left out: {why}" in text(measured, labelled=1500)


def test_an_answer_may_take_no_longer_than_is_allowed():
    measured = textbook_map()
    assert decide(measured, Needs(latency=0.05)).arm == RAFT
    assert decide(measured, Needs(latency=0.049)).arm == TUNED  # .72 against .6
    decision = decide(measured, Needs(latency=0.049))
    assert dict(decision.left_out) == {RAFT: "takes 0.05 seconds an answer, more than 0.049"}


def test_where_nothing_is_left_that_is_said():
    measured = textbook_map()
    decision = decide(measured, Needs(citations=True, latency=0.02))
    assert decision.arm is None
    assert len(decision.left_out) == 5
    said = text(measured, citations=True, latency=0.02)
    assert said.startswith("advice: none of the arms\n")
    assert "Each arm is left out by one of your answers" in said
    assert "0.04 seconds for an answer instead of 0.02 seconds for an answer:" in said
    assert "costs" not in said
    only = text(measured, latency=0.04, labelled=0, citations=True)
    assert "It is the only one that your answers leave." in only
    assert "labelled questions, " not in only  # RAG's reader is the base
    assert "Mind that it may well be wrong more often than right there." in only  # .4


def test_ties_are_decided_by_the_cost_of_a_year():
    """Tuned .90 and RAFT .91: the difference may be nothing. A year by hand."""
    values = dict(zip(NAMES, (0.0, 0.9, 0.4, 0.6, 0.91), strict=True))
    here = place("disjoint", 300, [cell(0.0, values), cell(1.0, values)])
    measured = MeasuredMap(about(), (here,))
    decision = decide(measured, Needs(volatility=0.0))
    assert decision.first == (RAFT, TUNED)
    assert decision.arm == TUNED
    years = {a: year_of(BY_NAME[a], here, here.cells[1], Needs()) for a in NAMES}
    assert years[TUNED] == {"training": 100.0, "answers": pytest.approx(365 * 100 * 0.01)}
    assert years[RAFT] == {
        "training": pytest.approx(150.0),
        "indexing": 3.0,
        "updates": pytest.approx(300 * 0.02),
        "answers": pytest.approx(365 * 100 * 0.05),
    }
    assert set(years[RAG]) == {"indexing", "updates", "answers"}
    said = text(measured, volatility=0.0)
    assert "RAFT + RAG and fine-tuned are tied: RAFT + RAG is ahead of fine-tuned by" in said
    assert "0.010 [-0.010, 0.030], paired by question, which may be nothing." in said
    assert "the advised one is the cheapest of them" in said
    lines = said.splitlines()
    (row,) = (line for line in lines if line.startswith("fine-tuned        ") and "min" in line)
    assert row.split() == ["fine-tuned", "100", "s", "100", "s", "10", "ms", "10", "7.8", "min"]
    (row,) = (line for line in lines if line.startswith("RAFT + RAG  ") and "min" in line)
    assert row.split()[3:] == ["2.5", "min", "20", "ms", "50", "ms", "50", "33", "min"]
    # Just apart: .90 against .93 with .02 to both sides.
    apart = cell(0.0, {**values, RAFT: 0.93})
    measured = MeasuredMap(about(), (place("disjoint", 300, [apart, usual(1.0)]),))
    assert decide(measured, Needs(volatility=0.0)).first == (RAFT,)


def test_more_change_never_speaks_for_weights():
    """By chance the fine-tuned arm comes out first at 75 %: it is set aside, and said."""
    cells = [usual(0.0), usual(0.5), cell(0.75, {**dict.fromkeys(NAMES, 0.1), TUNED: 0.8})]
    measured = MeasuredMap(about(), (place("disjoint", 300, cells),))
    decision = decide(measured, Needs(volatility=0.75))
    assert decision.unaged == TUNED
    assert READS[decision.arm]
    said = text(measured, volatility=0.75)
    assert "fine-tuned would be advised here, but for less change an arm with passages is" in said
    assert advise(measured, Needs(volatility=0.75)).as_json()["set_aside_for_its_age"] == TUNED
    assert decide(measured, Needs(volatility=0.0)).arm == TUNED  # nothing before it
    lone = MeasuredMap(about(), (place("disjoint", 300, cells[2:]),))
    assert decide(lone, Needs(volatility=0.75)).arm == TUNED


# ------------------------------------------------------------------------ what would change it


def test_the_nearest_other_answers_are_found():
    advice = advise(textbook_map(), Needs(labelled=2500, latency=0.2, questions_a_day=50))
    assert advice.decision.arm == RAFT
    found = {(c.question, c.value): (c.arm, c.right and c.right.value) for c in advice.changes}
    assert found == {
        ("volatility", 0.0): (TUNED, 0.96),
        ("labelled", 1999): (TUNED, pytest.approx(0.72)),
        ("latency", 0.04): (TUNED, pytest.approx(0.72)),
    }
    lines = advice.lines()
    at = lines.index("what would change it, one answer at a time (the nearest that does):")
    assert lines[at + 1 : at + 3] == [
        "  0% of the facts changing in a year instead of 25% of the facts changing in a year:",
        "    fine-tuned, right in 0.960 [0.940, 0.980]",
    ]
    assert "  1,999 labelled questions instead of 2,500 labelled questions:" in lines


def test_changes_on_every_side():
    """A wording and a size in which another arm is first; a number of questions that pays."""
    better = [cell(0.25, {**dict.fromkeys(NAMES, 0.3), RAG: 0.9})]
    tie = [cell(0.25, {**dict.fromkeys(NAMES, 0.3), TUNED: 0.9, TUNED_RAG: 0.9})]
    seconds = {**SECONDS, TUNED_RAG: 0.004}
    measured = MeasuredMap(
        about(),
        (
            place("shared", 300, better),
            place("half", 100, better),
            place("half", 300, tie, seconds),
            place("half", 1000, better),
            place("disjoint", 300, better),
        ),
    )
    few = advise(measured, Needs("half", questions_a_day=1))
    assert few.decision.first == (TUNED, TUNED_RAG)
    # A year of TUNED_RAG: 3 s and 1.5 s more at once, 365 · .006 s less for each daily question.
    assert few.decision.arm == TUNED
    changes = [(c.question, c.value, c.arm) for c in few.changes]
    assert changes == [
        ("specialisation", "shared", RAG),
        ("specialisation", "disjoint", RAG),
        ("entities", 100, RAG),
        ("entities", 1000, RAG),
        ("questions_a_day", 10, TUNED_RAG),
        ("labelled", 1199, BASE),
        ("citations", True, TUNED_RAG),
        ("latency", 0.004, TUNED_RAG),
    ]
    assert "sources to cite instead of no sources to cite:" in "\n".join(few.lines())
    many = advise(measured, Needs("half", questions_a_day=100))
    assert many.decision.arm == TUNED_RAG
    (change,) = (c for c in many.changes if c.question == "questions_a_day")
    assert change == Change("questions_a_day", 1, TUNED, measured.places[2].cells[0].right[TUNED])


def test_what_nothing_changes_is_said():
    only = [cell(0.25, {**dict.fromkeys(NAMES, 0.1), RAG: 0.9})]
    measured = MeasuredMap(about(), (place("shared", 300, only),))
    advice = advise(measured, Needs("shared", latency=0.04))
    assert [c.question for c in advice.changes] == ["latency"]
    cheap = MeasuredMap(about(), (place("shared", 300, only, dict.fromkeys(NAMES, 0.02)),))
    said = text(cheap, specialisation="shared", latency=0.02)
    assert "no other answer to one question alone would change it, within the map." in said


def test_none_left_is_a_change_of_mind_too():
    advice = advise(textbook_map(), Needs(citations=True, latency=0.05))
    assert ("latency", 0.01, None) in [(c.question, c.value, c.arm) for c in advice.changes] or (
        "none of the arms is left" not in "\n".join(advice.lines())
    )
    lone = advise(textbook_map(), Needs(citations=True, labelled=0))
    assert ("latency", 0.01, None) in [(c.question, c.value, c.arm) for c in lone.changes]
    assert "    none of the arms is left" in lone.lines()


# ------------------------------------------------------------------------------- laws, for any map

SHARE = st.integers(0, 20).map(lambda n: n / 20)
TIME = st.sampled_from((0.001, 0.01, 0.1, 5.0))


@st.composite
def maps(draw):
    places = []
    for words, entities in itertools.product(("shared", "disjoint"), (100, 300)):
        cells = [
            cell(v, {name: draw(SHARE) for name in NAMES}, draw(st.sampled_from((0.0, 0.1, 0.3))))
            for v in (0.0, 0.5, 1.0)
        ]
        seconds = {name: draw(TIME) for name in NAMES}
        training = draw(st.sampled_from((1.0, 1e5)))
        places.append(place(words, entities, cells, seconds, training))
    return MeasuredMap(about(), tuple(places))


NEEDS = st.builds(
    Needs,
    st.sampled_from(("shared", "disjoint")),
    SHARE,
    st.integers(100, 300),
    st.sampled_from((0.0, 1.0, 1e4)),
    st.sampled_from((None, 0, 1000, 5000)),
    st.booleans(),
    st.sampled_from((None, 0.01, 1.0)),
)


@settings(max_examples=60, deadline=None)
@given(maps(), NEEDS)
def test_laws(measured, needs):
    decisions = [decide(measured, dataclasses.replace(needs, volatility=v / 8)) for v in range(9)]
    reads = [READS[d.arm] for d in decisions if d.arm]
    assert reads == sorted(reads), "more change, towards weights"
    for decision in decisions:
        if decision.arm is None:
            assert len(decision.left_out) == len(NAMES)
            continue
        assert READS[decision.arm] or not needs.citations
        assert decision.arm not in dict(decision.left_out)
        best = decision.first[0]
        if decision.arm != best:
            lead = decision.cell.lead(best, decision.arm)
            assert lead.low <= 0 <= lead.value
        costs = {
            name: sum(year_of(BY_NAME[name], decision.place, decision.cell, needs).values())
            for name in decision.first
        }
        assert costs[decision.arm] == min(costs.values())
        if not decision.unaged:
            out = dict(decision.left_out)
            right = {n: r.value for n, r in decision.cell.right.items() if n not in out}
            assert right[best] == max(right.values())
    for change in advise(measured, needs).changes:
        changed = dataclasses.replace(needs, **{change.question: change.value})
        assert decide(measured, changed).arm == change.arm != decide(measured, needs).arm


# ------------------------------------------------------------------------------------- small things


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"volatility": 1.5}, "the volatility is 1.5: give the share"),
        ({"entities": 0}, "the knowledge is about 0 things: give 1 or more"),
        ({"questions_a_day": -1}, "there are -1 questions a day: give 0 or more"),
        ({"questions_a_day": float("inf")}, "there are inf questions a day"),
        ({"labelled": -2}, "there are -2 labelled questions: give 0 or more"),
        ({"latency": 0.0}, "an answer may take 0.0 seconds: give more than 0"),
    ],
)
def test_answers_that_cannot_be_meant(wrong, said):
    with pytest.raises(UsageError, match=said):
        Needs(**wrong)


def test_durations_and_answers_in_words():
    shown = [duration(s) for s in (None, 0, 0.0023, 0.04, 1.44, 14, 150, 5000, 9000, 4e6)]
    assert shown == [
        "never", "–", "2.3 ms", "40 ms", "1.4 s", "14 s", "2.5 min", "83 min", "2.5 h", "1,111 h"
    ]  # fmt: skip
    assert said(Needs()) == [
        "disjoint wording",
        "25% of the facts changing in a year",
        "300 things to know about",
        "100 questions a day",
        "as many labelled questions as it takes",
        "no sources to cite",
        "any time for an answer",
    ]
