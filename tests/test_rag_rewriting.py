"""Follow-ups are made whole, and what stands alone is left as it is, letter by letter."""

from __future__ import annotations

import random

import pytest
from fake_encoder import HashEncoder
from hypothesis import given
from hypothesis import strategies as st

from minirag.corpus.slices import general_documents, slice_questions, training_questions
from minirag.corpus.world import Sizes, draw_world
from minirag.rag.names import Names, names_of
from minirag.rag.rewriting import LONGEST, Exchange, RuleRewriter
from minirag.retrieval.knowledge_base import KnowledgeBase
from minirag.text.documents import Document

TITLES = [
    "Fufidum",
    "Febedum",
    "Tor guideline",
    "Kem guideline",
    "Library cards",
    "Opening hours",
    "Gazarum",
    "Bidrorinida",
    "Licencia de plasumel",
    "Ley Dadosk",
    "Ley Lupalis",
    "Child benefit",
]
NAMES = Names(Document(f"{n}.md", f"{title}: children, interactions", title)
              for n, title in enumerate(TITLES))  # fmt: skip
RULES = RuleRewriter(lambda: NAMES)


def _rewrite(last: str, question: str):
    return RULES.rewrite(question, [Exchange(last, last, "an answer")])


@pytest.mark.parametrize(
    ("last", "question", "rewritten", "rule"),
    [
        # another name
        ("How is fufidum dosed?", "And febedum?", "How is febedum dosed?", "name"),
        ("How is fufidum dosed?", "and for Febedum", "How is Febedum dosed?", "name"),
        ("How is fufidum dosed?", "For febedum?", "How is febedum dosed?", "name"),
        ("How is fufidum dosed?", "What about febedum then?", "How is febedum dosed?", "name"),
        ("Who issued the Tor guideline?", "And the Kem guideline?",
         "Who issued the Kem guideline?", "name"),
        ("Who issued the Tor guideline?", "And Kem guideline?",
         "Who issued the Kem guideline?", "name"),
        ("What is the capital of France?", "And of Spain?", "What is the capital of Spain?",
         "name"),
        ("How is fufidum dosed?", "And brolanol?", "How is brolanol dosed?", "name"),
        ("How is fufidum dosed?", "And act?", "How is act dosed?", "name"),  # not "interactions"
        ("¿Cuál es la dosis del gazarum?", "¿Y la bidrorinida?",
         "¿Cuál es la dosis de la bidrorinida?", "name"),
        ("¿Cuál es la dosis de la bidrorinida?", "¿Y en el caso del gazarum?",
         "¿Cuál es la dosis del gazarum?", "name"),
        ("¿Qué dosis de bidrorinida toman?", "¿Y el gazarum?", "¿Qué dosis de gazarum toman?",
         "name"),
        ("¿Qué deroga la Ley Dadosk?", "y la Ley Lupalis", "¿Qué deroga la Ley Lupalis?", "name"),
        # an addition to the last question
        ("How is fufidum dosed in adults?", "And in children?", "How is fufidum dosed in children?",
         "addition"),
        # other people instead of those that the question was about
        ("What is the adult dose of fufidum?", "And in children?",
         "What is the dose of fufidum in children?", "addition"),
        ("How much does a card cost for adults a year?", "And for children?",
         "How much does a card cost a year for children?", "addition"),
        ("What is the dose of fufidum?", "And of children?",
         "What is the dose of fufidum of children?", "addition"),
        ("How is Child benefit paid in adults?", "And in children?",
         "How is Child benefit paid in children?", "addition"),  # a name keeps its words
        ("¿Cuál es la dosis del gazarum para adultos?", "¿Y en niños?",
         "¿Cuál es la dosis del gazarum en niños?", "addition"),
        ("¿Cuál es la dosis adulta del gazarum?", "¿Y en los niños?",
         "¿Cuál es la dosis del gazarum en los niños?", "addition"),
        ("How much does a card cost?", "And for children?",
         "How much does a card cost for children?", "addition"),
        ("How is fufidum stored in France?", "And in children with asthma?",
         "How is fufidum stored in children with asthma?", "addition"),
        ("How much is a library card?", "And in Spain?", "How much is a library card in Spain?",
         "addition"),
        ("How much is a library card?", "In Spain?", "How much is a library card in Spain?",
         "addition"),
        ("What are the opening hours?", "And on Sundays?", "What are the opening hours on Sundays?",
         "addition"),
        ("What is the fine for fufidum?", "And for repeat offenders?",
         "What is the fine for fufidum for repeat offenders?", "addition"),
        ("¿Cómo se dosifica el gazarum en adultos?", "¿Y en niños?",
         "¿Cómo se dosifica el gazarum en niños?", "addition"),
        # a pronoun
        ("How is fufidum dosed?", "Who manufactures it?", "Who manufactures fufidum?", "pronoun"),
        ("How is fufidum dosed?", "And how is it stored?", "How is fufidum stored?", "pronoun"),
        ("How is fufidum dosed?", "At what temperature is it kept?",
         "At what temperature is fufidum kept?", "pronoun"),
        ("How is fufidum dosed?", "What are its contraindications?",
         "What are fufidum's contraindications?", "pronoun"),
        ("How is fufidum dosed?", "And its price?", "And fufidum's price?", "pronoun"),
        ("Who issued the Tor guideline?", "When did it appear?",
         "When did the Tor guideline appear?", "pronoun"),
        ("How much is a library card?", "What happens if it is lost?",
         "What happens if a library card is lost?", "pronoun"),
        ("How is fufidum dosed?", "Does this drug help?", "fufidum: does this drug help?",
         "pronoun"),
        ("¿Cuál es la dosis del gazarum?", "¿Y su precio?", "el gazarum: ¿su precio?", "pronoun"),
        ("¿Cuál es la dosis del gazarum?", "¿Cuáles son sus efectos?",
         "el gazarum: ¿cuáles son sus efectos?", "pronoun"),
        ("¿Cuál es la dosis del gazarum?", "¿Y quién no debe tomarlo?",
         "el gazarum: ¿quién no debe tomarlo?", "pronoun"),
        ("Where is the Tor guideline?", "When was it revised in May?",
         "When was the Tor guideline revised in May?", "pronoun"),
        # something else about the same thing
        ("How is fufidum dosed?", "And the maximum dose?", "And the maximum dose of fufidum?",
         "topic"),
        ("How is fufidum dosed?", "The price?", "The price of fufidum?", "topic"),
        ("How is fufidum dosed?", "And is there an antidote?", "fufidum: is there an antidote?",
         "topic"),
        ("How is fufidum dosed?", "What about children?", "fufidum: what about children?",
         "topic"),
        ("¿Cuál es la dosis del gazarum?", "¿Y la dosis máxima?", "¿Y la dosis máxima del gazarum?",
         "topic"),
        ("¿Cuál es la tasa de la licencia de plasumel?", "¿Cuándo caduca?",
         "la licencia de plasumel: ¿cuándo caduca?", "topic"),
        ("¿Cuál es la dosis del gazarum?", "¿Qué contraindicaciones tiene?",
         "el gazarum: ¿qué contraindicaciones tiene?", "topic"),
        ("¿Cuál es la dosis del gazarum?", "¿Tiene efectos secundarios?",
         "el gazarum: ¿tiene efectos secundarios?", "topic"),
        # nothing of its own
        ("How is fufidum dosed?", "How often?", "How is fufidum dosed? How often?", "question"),
        ("How do I renew a book?", "Why?", "How do I renew a book? Why?", "question"),
        ("¿Cómo se toma el gazarum?", "¿Cada cuánto?", "¿Cómo se toma el gazarum? ¿Cada cuánto?",
         "question"),
        ("How do I renew a book?", "Who grants it?", "How do I renew a book? Who grants it?",
         "question"),  # no name is known to put in its place
        ("How do I renew a book?", "And febedum?", "How do I renew a book? And febedum?",
         "question"),
        ("How do I renew a book?", "And the fine?", "How do I renew a book? And the fine?",
         "question"),
    ],
)  # fmt: skip
def test_a_follow_up_is_made_whole(last, question, rewritten, rule) -> None:
    found = _rewrite(last, question)
    assert (found.text, found.rule) == (rewritten, rule)


@pytest.mark.parametrize(
    "question",
    [
        "Who manufactures febedum?",
        "And what is the dose of febedum?",
        "And the price of febedum?",
        "What is the capital of France?",
        "How long does it take to renew a card?",
        "What time is it?",
        "Is it possible to borrow films?",
        "What do I do with a scanner and how do I return it?",
        "What did the founder of the library do with his books?",
        "How do students get their cards?",
        "When was the library founded?",
        "opening hours",
        "What about the opening hours?",  # after a name of another sort
        "Thanks!",
        "And you?",  # whom it means, the last question doesn't tell
        "And they?",
        "¿Y tú?",
        "¿Y ellas?",
        "¿Cómo imprimo?",
        "¿Qué animales hibernan?",
        "¿Qué fármacos interaccionan con alcohol?",
        "¿Dónde está la biblioteca?",
        "¿Hay wifi en la biblioteca?",
        "¿Puedo renovar un libro?",
        "¿Quién fundó Málaga?",
        "¿Cuándo acaba la vigencia de la licencia de prerdarlo?",
        "gracias",
    ],
)
def test_what_stands_alone_is_left_as_it_is(question) -> None:
    for last in ("How is fufidum dosed in adults?", "¿Cuál es la dosis del gazarum?"):
        found = _rewrite(last, question)
        assert (found.text, found.rule) == (question, None)


@pytest.mark.parametrize("language", ["en", "es"])
@pytest.mark.parametrize("domain", ["medicine", "law", "general"])
def test_no_complete_question_of_the_laboratory_is_changed(domain, language) -> None:
    """Every wording of every attribute, the held-out ones too, after any other question."""
    world = draw_world(domain, 4, Sizes(90, 50, 60, 40, 60))
    documents = [*world.documents(language), *general_documents(language)]
    names = Names(Document(d.id, d.text, d.title) for d in documents)
    rules = RuleRewriter(lambda: names)
    questions = [q.text for q in training_questions(world, language, 10)]
    for held_out in (True, False):
        drawn = slice_questions(world, language, 60, held_out=held_out).values()
        questions += [q.text for slice_ in drawn for q in slice_]
    assert len(questions) > 2500
    before = random.Random(1).sample(questions, len(questions))
    for question, last in zip(questions, before, strict=True):
        assert rules.rewrite(question, [Exchange(last, last, "x")]).text == question


def test_the_first_question_is_never_changed() -> None:
    for question in ("And febedum?", "How often?", "", "¿Y su precio?"):
        assert RULES.rewrite(question, []).text == question


def test_the_thing_is_carried_from_turn_to_turn() -> None:
    """Each turn leans on what the one before was searched as, not on what was typed."""
    history: list[Exchange] = []
    for question, expected in [
        ("How is fufidum dosed in adults?", "How is fufidum dosed in adults?"),
        ("And in children?", "How is fufidum dosed in children?"),
        ("And febedum?", "How is febedum dosed in children?"),
        ("How often?", "How is febedum dosed in children? How often?"),
        ("Why?", "How is febedum dosed in children? Why?"),  # doesn't grow without end
        ("Who makes it?", "Who makes febedum?"),
        ("How much is a library card?", "How much is a library card?"),
    ]:
        found = RULES.rewrite(question, history)
        assert found.text == expected
        history.append(Exchange(question, found.text, "an answer", found.rule))


def test_what_was_asked_about_a_topic_is_carried_on() -> None:
    """Its rewrite ends as it was typed, too, and yet it is no second question of two."""
    asked = "what does it cost?"
    whole = Exchange(asked, f"Library cards: {asked}", "an answer", "topic")
    assert RULES.rewrite("Why?", [whole]).text == f"Library cards: {asked} Why?"


@given(st.text(max_size=60), st.text(max_size=60))
def test_any_two_texts_can_follow_each_other(last, question) -> None:
    found = _rewrite(last, question)
    if found.rule is None:
        assert found.text == question


@pytest.mark.parametrize("unit", ["a", "a ", "it ", "la ", "and ", "in it ", "¿", "?", "a-"])
def test_long_input_ends_and_is_left_alone(unit) -> None:
    for length in (LONGEST, 20_000):
        _rewrite(unit * length, (unit * LONGEST)[:LONGEST])
    assert _rewrite("How is fufidum dosed?", "and " + unit * LONGEST).rule is None


# -- names -----------------------------------------------------------------------------------------


def _found(names: Names, question: str, **how: bool) -> list[tuple[str, bool]]:
    return [(name.text, name.titled) for name in names.find(question, **how)]


def test_names_are_titles_then_capitals() -> None:
    names = Names([Document("a", "", "Card"), Document("b", "", "Library cards"),
                   Document("c", "", "Overview"), Document("d", "", "The")])  # fmt: skip
    assert _found(names, "Does Ana Vega need a library card, or a card?") == [
        ("library card", True),
        ("card", True),
        ("Ana Vega", False),
    ]
    assert _found(names, "The overview of it") == []
    assert _found(names, "Madrid is far") == []
    assert _found(names, "Madrid is far", first=True) == [("Madrid", False)]
    assert _found(names, "WHERE IS MY CARD?") == [("CARD", True)]
    assert _found(names, "Where do I get it in I don't know where?") == []
    question = "is Ana Vega here"
    (name,) = names.find(question)
    assert question[name.start : name.end] == name.text == "Ana Vega"


def test_names_of_a_knowledge_base_are_those_of_the_moment() -> None:
    base = KnowledgeBase(HashEncoder())
    names = names_of(base)
    assert _found(names(), "how much fufidum?") == []
    base.add([Document("a.md", "Fufidum is stored in the cold.", "Fufidum")])
    assert _found(names(), "how much fufidum?") == [("fufidum", True)]
    assert names() is names()  # made once for each state
    assert names().mentions("COLD")
    assert names().mentions("colds")  # the plural of a word that is there
    assert names().mentions("sto")  # "stored" begins like it
    assert not names().mentions("tored")  # and does not begin like this
    assert not names().mentions("warm")
    base.change(Document("a.md", "Febedum is stored in the cold.", "Febedum"))
    assert _found(names(), "how much fufidum?") == []
    base.delete("a.md")
    assert _found(names(), "how much febedum?") == []
