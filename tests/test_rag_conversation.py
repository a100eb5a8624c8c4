"""A conversation searches what a follow-up means, remembers within bounds, and forgets."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fake_encoder import HashEncoder
from test_rag_pipeline import Fixed
from tiny_models import tiny_reader

from minirag.errors import UsageError
from minirag.rag.conversation import Bounds, Conversation
from minirag.rag.names import names_of
from minirag.rag.pipeline import Answer, Pipeline, Settings
from minirag.rag.rewriting import Rewrite, RuleRewriter
from minirag.retrieval.knowledge_base import KnowledgeBase
from minirag.text.documents import Document
from minirag.transformer.generation import Sampling

SHORT = Settings(sampling=Sampling(max_new_tokens=4), k=3)


class Noting:
    """A rewriter that notes what it is given and says what it is told to."""

    def __init__(self, *says: Rewrite) -> None:
        self.says, self.given = list(says), []

    def rewrite(self, question, history):
        self.given.append((question, [(e.question, e.searched, e.answer) for e in history]))
        return self.says.pop(0) if self.says else Rewrite(question)


@pytest.fixture(scope="module")
def reader():
    return tiny_reader()


def test_the_rewrite_is_what_is_searched_and_read(reader) -> None:
    retriever = Fixed(0.9, 0.8, 0.1)
    rewriter = Noting(Rewrite("When did the mill burn?"), Rewrite("Why did the mill burn?", "why"))
    talk = Conversation(Pipeline(retriever, reader, SHORT), rewriter)
    shown: list[Rewrite] = []
    pieces: list[str] = []
    first = talk.ask("When did the mill burn?", on_rewrite=shown.append)
    second = talk.ask("Why?", pieces.append, shown.append)
    assert retriever.asked == [("When did the mill burn?", 3), ("Why did the mill burn?", 3)]
    assert shown == [Rewrite("Why did the mill burn?", "why")]  # only where something changed
    assert (second.question, second.searched) == ("Why?", "Why did the mill burn?")
    assert isinstance(second.result, Answer)
    assert second.result.question == "Why did the mill burn?"
    assert "Why did the mill burn?" in second.result.prompt.text
    assert "When did" not in second.result.prompt.text  # the history is not a source
    assert "".join(pieces) == second.result.generation.text
    assert rewriter.given[1] == (
        "Why?",
        [("When did the mill burn?", "When did the mill burn?", first.result.text)],
    )
    assert talk.turns == [first, second]


def test_each_turn_has_its_own_sources(reader) -> None:
    talk = Conversation(Pipeline(Fixed(0.9, 0.8, 0.1), reader, SHORT), Noting())
    turn = talk.ask("Who?")
    assert isinstance(turn.result, Answer)
    assert [hit.passage for hit in turn.sources] == turn.result.prompt.passages
    small = tiny_reader(max_length=48)  # no room for all
    tight = Conversation(Pipeline(Fixed(0.9, 0.8, 0.1), small, SHORT), Noting()).ask("Who?")
    assert isinstance(tight.result, Answer)
    assert len(tight.sources) == len(tight.result.prompt.passages) < 3
    refusing = replace(SHORT, threshold=0.95)
    refused = Conversation(Pipeline(Fixed(0.9, 0.8), reader, refusing), Noting()).ask("Who?")
    assert refused.result.abstained
    assert [hit.score for hit in refused.sources] == [0.9, 0.8]


def test_of_a_quote_the_passage_that_was_read_is_the_source(reader) -> None:
    quoting = replace(SHORT, quote=True)
    retriever = Fixed(0.9, 0.8, 0.1)
    asked = retriever.hits[1].passage.text  # of its own words: its sentence is read, and no other
    turn = Conversation(Pipeline(retriever, reader, quoting), Noting()).ask(asked)
    assert isinstance(turn.result, Answer)
    assert turn.sources == turn.result.read == [retriever.hits[1]]
    assert turn.result.prompt.passages[0].document_id == "1.md"
    assert [citation.number for citation in turn.result.citations] == [2]


def test_what_can_t_be_asked_is_not_remembered(reader) -> None:
    talk = Conversation(Pipeline(Fixed(0.9), reader, SHORT), Noting())
    talk.ask("Who?")
    for question, sentence in (("  ", "question is empty"), ("why " * 700, "shorter question")):
        with pytest.raises(UsageError, match=sentence):
            talk.ask(question)
    assert [turn.question for turn in talk.turns] == ["Who?"]


def test_the_oldest_turns_are_forgotten_first(reader) -> None:
    talk = Conversation(Pipeline(Fixed(0.9), reader, SHORT), Noting(), Bounds(turns=3))
    for n in range(5):
        talk.ask(f"Who is number {n}?")
    assert [turn.question for turn in talk.turns] == [f"Who is number {n}?" for n in (2, 3, 4)]
    assert len(talk.rewriter.given[-1][1]) == 3
    talk.reset()
    assert talk.turns == []
    talk.ask("Who?")
    assert talk.rewriter.given[-1] == ("Who?", [])


@pytest.mark.parametrize("limit", [1, 20, 45, 90, 10_000])
def test_remembered_tokens_are_bounded_and_the_last_turn_stays(reader, limit) -> None:
    talk = Conversation(Pipeline(Fixed(0.9), reader, SHORT), Noting(), Bounds(99, limit))
    asked = []
    for n in range(6):
        asked.append(talk.ask(f"Who are the {n} people in the house?"))
        costs = [
            len(reader.tokenizer.encode(f"{t.searched}\n{t.result.text}", special=False))
            for t in asked
        ]
        fits = [m for m in range(1, len(asked) + 1) if sum(costs[-m:]) <= limit]
        assert talk.turns == asked[-max(fits, default=1) :]


@pytest.mark.parametrize("bounds", [{"turns": 0}, {"tokens": -5}])
def test_bounds_below_one_are_a_sentence(bounds) -> None:
    (name,) = bounds
    with pytest.raises(UsageError, match=f"{name} is {bounds[name]}: remember 1"):
        Bounds(**bounds)


def test_a_document_added_between_two_turns_is_known_to_the_second(reader) -> None:
    """Both to the search and to the rules: its title is a name from then on."""
    base = KnowledgeBase(HashEncoder())
    base.add([Document("a.md", "Fufidum is taken by mouth.", "Fufidum")])
    talk = Conversation(Pipeline(base.live("lexical"), reader, SHORT), RuleRewriter(names_of(base)))
    talk.ask("How is fufidum taken?")
    base.add([Document("b.md", "Tor guideline: taken by the nose.", "Tor guideline")])
    turn = talk.ask("And Tor guideline?")
    assert turn.searched == "How is Tor guideline taken?"
    assert turn.sources[0].passage.document_id == "b.md"
