"""The laboratory's collections: which documents, under which ids, and which news still hold."""

import pytest
from fake_encoder import HashEncoder

from minirag.combination.collection import (
    collection,
    collection_documents,
    news_documents,
    texts_of,
)
from minirag.corpus.news import news
from minirag.corpus.slices import slice_questions
from minirag.corpus.world import Sizes, draw_world
from minirag.retrieval.knowledge_base import KnowledgeBase

WORLD = draw_world("medicine", 4, Sizes(stable=4, unseen=3, updated=3, new=2, unanswerable=3))


@pytest.mark.parametrize("language", ["en", "es"])
def test_every_question_finds_its_answer_in_the_document_that_it_names(language) -> None:
    base = collection(WORLD, language, HashEncoder())
    texts = texts_of(base)
    questions = [q for some in slice_questions(WORLD, language, 4).values() for q in some]
    for question in questions:
        if question.document is not None:
            assert question.answer in texts[question.document]
    assert len(texts) == 15 + 51
    first = WORLD.documents(language)[0]
    assert base.document(first.id).title == first.title


def test_moments_versions_and_general_knowledge() -> None:
    def ids(**options: object) -> set[str]:
        return {d.id for d in collection_documents(WORLD, "en", **options)}

    after = ids(general=False)
    new = {record.id for record in WORLD.group("new")}
    revised = {record.id for record in WORLD.group("updated")}
    assert ids(moment="before", general=False) == after - new
    assert ids(both_versions=True, general=False) == after | {f"{id}-v1" for id in revised}
    assert {id for id in ids() if id not in after} == {f"known-{n}" for n in range(1, 52)}
    now = {d.id: d.text for d in collection_documents(WORLD, "en")}
    then = {d.id: d.text for d in collection_documents(WORLD, "en", moment="before")}
    assert {id for id in then if then[id] != now[id]} == revised


def test_news_hold_until_something_newer_comes() -> None:
    items = news(7, "es", 40)
    held = {d.id: d for d in news_documents(7, "es", 40)}
    for item in items:
        successors = [other for other in items if other.supersedes == item.id]
        assert (item.id in held) == (not successors)
    assert 10 < len(held) < 40
    last = items[-1]
    assert (held[last.id].text, held[last.id].title) == (last.text, last.headline)


def test_a_knowledge_base_follows_the_news() -> None:
    base = KnowledgeBase(HashEncoder())
    base.add(news_documents(7, "en", 30))
    for n in range(31, 40):
        item = news(7, "en", n)[-1]
        had = item.supersedes is not None
        changes = base.update_from(news_documents(7, "en", n))
        assert (changes.added, changes.changed, changes.removed) == (1, 0, int(had))
        assert item.id in base
        assert not had or item.supersedes not in base
