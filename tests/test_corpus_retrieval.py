"""Pages and questions for the retriever: what a page states is in it, what it doesn't is not."""

from __future__ import annotations

import dataclasses

import pytest

from minirag.corpus.dice import Dice
from minirag.corpus.grammar import LANGUAGES
from minirag.corpus.phrasings import load
from minirag.corpus.retrieval import (
    Family,
    RetrievalMix,
    draw_domain_family,
    draw_family,
    draw_retrieval_set,
)
from minirag.corpus.world import Sizes, draw_world
from minirag.errors import UsageError

BILINGUAL = RetrievalMix(nonce=0.0, everyday=0.0)
WORLD = draw_world("law", 3, Sizes(stable=30, unseen=2, updated=12, new=2, unanswerable=2))


def _families(n: int, mix: RetrievalMix, seed: int = 1) -> list[Family]:
    dice = Dice(seed, "families")
    return [draw_family(dice, mix, str(i)) for i in range(n)]


def _domain_families(n: int, mix: RetrievalMix = BILINGUAL) -> list[Family]:
    dice = Dice(2, "domain families")
    return [draw_domain_family(dice, mix, WORLD) for _ in range(n)]


def _has(text: str, answer: str) -> bool:
    """Lists begin their values with a small letter and sentences with a capital."""
    return answer.lower() in text.lower()


@pytest.mark.parametrize(
    "families", [_families(300, RetrievalMix()), _domain_families(100)], ids=["general", "law"]
)
def test_the_golden_page_answers_and_its_relatives_do_not(families: list[Family]) -> None:
    n_asked = 0
    for family in families:
        assert len(family.pages) == len(family.questions)
        for place, (page, asked) in enumerate(zip(family.pages, family.questions, strict=True)):
            assert len(asked) <= 3
            for question in asked:
                n_asked += 1
                answering = [q for q, p in enumerate(family.pages) if question.answered_by(p)]
                assert answering == [place]
                at = LANGUAGES.index(page.language) if len(question.answers) > 1 else 0
                assert _has(page.text, question.answers[at])
    assert n_asked > 4 * len(families)


def test_shares_are_what_was_asked_for() -> None:
    mix = dataclasses.replace(BILINGUAL, english=0.8, crossed=0.25, titled=0.5, split=0.0)
    pages = [page for family in _families(400, mix) for page in family.pages]
    english = sum(page.language == "en" for page in pages) / len(pages)
    assert english == pytest.approx(0.8, abs=0.07)
    asked = [
        (page, question)
        for family in _families(400, mix)
        for page, some in zip(family.pages, family.questions, strict=True)
        for question in some
    ]
    crossed = sum(page.language != question.language for page, question in asked) / len(asked)
    assert crossed == pytest.approx(0.25, abs=0.04)
    none = dataclasses.replace(mix, crossed=0.0)
    assert all(
        page.language == question.language
        for family in _families(50, none)
        for page, some in zip(family.pages, family.questions, strict=True)
        for question in some
    )


def test_a_split_thing_has_two_pages_with_different_facts() -> None:
    mix = dataclasses.replace(BILINGUAL, split=1.0, well_known=0.0, pages=(0.0, 1.0))
    n_split = 0
    for family in [*_families(60, mix), *_domain_families(20, mix)]:
        names = [{fact.rpartition("/")[0] for fact in page.states} for page in family.pages]
        if len(names[0]) > 1 or names[0] != names[1]:  # travellers
            continue
        n_split += 1
        assert not family.pages[0].states & family.pages[1].states
    assert n_split > 60


def test_invented_facts_are_nobody_elses() -> None:
    mix = RetrievalMix(nonce=0.5, everyday=0.5)
    families = _families(40, mix)
    facts = [fact for family in families for page in family.pages for fact in page.states]
    assert len(facts) == len(set(facts))
    for family in families:
        assert all(
            q.language == p.language
            for p, some in zip(family.pages, family.questions, strict=True)
            for q in some
        )


def test_a_domain_teaches_no_entity_of_its_tests() -> None:
    seen = {r.entity.name.en.text for r in WORLD.group("stable", "updated")}
    told = {
        fact.rpartition("/")[0]
        for family in _domain_families(80)
        for page in family.pages
        for fact in page.states
    }
    assert told <= seen
    held_out = {e.name.en.text for e in draw_retrieval_set("law", 3, 500).entities}
    assert not held_out & {r.entity.name.en.text for r in WORLD.records}


@pytest.mark.parametrize("domain", ["general", "medicine", "law"])
def test_a_set_asks_for_one_fact_in_both_languages(domain: str) -> None:
    data = draw_retrieval_set(domain, 5, 60)
    names = [entity.name.en.text for entity in data.entities]
    assert len(set(names)) == 60
    for language in LANGUAGES:
        assert len(set(data.passages[language])) == 60
        for place, entity in enumerate(data.entities):
            text = data.passages[language][place]
            for value in entity.facts.values():
                assert _has(text, getattr(value, language).text)
            question = data.question(place, language)
            held_out = {
                load(domain, language)
                .attributes[key]
                .questions[-1]
                .fill({"name": getattr(entity.name, language)})
                for key in entity.facts
            }
            assert question in held_out
    again = draw_retrieval_set(domain, 5, 60)
    assert again.passages == data.passages
    assert again.question(7, "es") == data.question(7, "es")
    assert data.sample(20) == again.sample(20)
    assert len(set(data.sample(20))) == 20
    assert draw_retrieval_set(domain, 6, 60).passages != data.passages


def test_what_can_not_be_drawn() -> None:
    for wrong, match in (
        ({"crossed": 1.5}, "crossed is 1.5: give a share"),
        ({"nonce": 0.6, "everyday": 0.6}, "at most 1 together"),
        ({"pages": ()}, "give weights of 1, 2, 3"),
        ({"facts": (3, 2)}, "1 <= low <= high"),
        ({"questions": 0}, "questions is 0"),
    ):
        with pytest.raises(UsageError, match=match):
            RetrievalMix(**wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="one of general, medicine, law"):
        draw_retrieval_set("cooking", 1, 5)
    with pytest.raises(UsageError, match="0 passages are none"):
        draw_retrieval_set("law", 1, 0)
    with pytest.raises(UsageError, match="there are 5 passages: give 1 to 5 questions"):
        draw_retrieval_set("law", 1, 5).sample(6)
    empty = draw_world("law", 3, Sizes(0, 1, 0, 1, 1))
    with pytest.raises(UsageError, match="no entities to train on"):
        draw_domain_family(Dice(1), BILINGUAL, empty)
