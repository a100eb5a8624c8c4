"""The diagnostics beside the six slices: halves of answers, superseded documents."""

import re

import pytest

from minirag.corpus.dialogue import mixed_questions
from minirag.corpus.general import GENERAL, well_known
from minirag.corpus.mixed import BOTH_VERSIONS, MIXED, mixed_slice, with_both_versions
from minirag.corpus.slices import general_documents, slice_questions
from minirag.corpus.world import Sizes, draw_world
from minirag.errors import UsageError

SIZES = Sizes(stable=8, unseen=8, updated=8, new=8, unanswerable=8)


@pytest.mark.parametrize("domain", ["medicine", "law"])
@pytest.mark.parametrize("language", ["en", "es"])
def test_half_of_the_answer_stands_in_the_passage(domain, language):
    world = draw_world(domain, 6, SIZES)
    documents, questions = mixed_slice(world, language, 37)
    assert [d.id for d in documents] == [q.document for q in questions]
    assert len({d.id for d in documents}) == len({d.title for d in documents}) == 37
    assert {q.slice for q in questions} == {MIXED}
    of_the_world = {d.title for d in world.documents(language)}
    known = {getattr(e.name, language).text: e for e in well_known()}
    entries = {d.title.lower(): d.text for d in general_documents(language)}
    for document, question in zip(documents, questions, strict=True):
        assert document.title not in of_the_world
        assert document.title.lower() in question.text.lower()
        assert question.answer not in document.text
        assert re.search(r"\b20[34]\d\b", document.text)  # it says of when it is
        (linked,) = [name for name in known if re.search(rf"\b{re.escape(name)}\b", document.text)]
        assert linked.lower() not in question.text.lower()
        value = getattr(known[linked].facts[question.attribute], language).text
        assert question.answer == value
        assert value in entries[linked.lower()]  # the other half: what everybody knows


def test_names_that_come_up_twice_and_guesses_are_left_out(monkeypatch):
    world = draw_world("medicine", 6, SIZES)
    drawn = mixed_questions("medicine", 6, "en", 60)
    assert any(item.attribute in GENERAL.closed for item in drawn)
    once = [item for item in drawn if item.attribute not in GENERAL.closed]
    assert [q.text for q in mixed_slice(world, "en", 40)[1]] == [i.question for i in once[:40]]
    calls = []

    def again_and_again(domain, seed, language, n):
        calls.append(n)
        return [item for item in once for _ in range(8)][:n]

    monkeypatch.setattr("minirag.corpus.mixed.mixed_questions", again_and_again)
    documents, questions = mixed_slice(world, "en", 3)
    assert [q.text for q in questions] == [item.question for item in once[:3]]
    assert all(
        document.text.endswith(item.passage)
        for document, item in zip(documents, once[:3], strict=True)
    )
    assert calls == [6, 12, 24]
    assert mixed_slice(world, "en", 0) == ([], [])


def test_the_updated_questions_are_asked_again_where_both_versions_stand():
    world = draw_world("medicine", 6, SIZES)
    (updated,) = slice_questions(world, "es", 6, slices=["updated"]).values()
    again = with_both_versions(updated)
    assert {q.slice for q in again} == {BOTH_VERSIONS}
    both = {d.id: d.text for d in world.documents("es", both_versions=True)}
    for question, before in zip(again, updated, strict=True):
        assert (question.text, question.answer, question.document) == (
            before.text, before.answer, before.document,
        )  # fmt: skip
        assert question.answer in both[question.document]
        assert question.stale in both[f"{question.document}-v1"]


def test_some_slices_alone_are_the_same_as_among_all():
    world = draw_world("law", 2, SIZES)
    every = slice_questions(world, "en", 7)
    some = slice_questions(world, "en", 7, slices=("new", "general"))
    assert some == {name: every[name] for name in ("new", "general")}


def test_there_is_no_mixed_slice_of_the_general_world():
    with pytest.raises(UsageError, match="no mixed questions"):
        mixed_slice(draw_world("general", 0, SIZES), "en", 2)
