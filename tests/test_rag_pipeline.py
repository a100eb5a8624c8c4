"""The pipeline: abstains below its threshold, streams what it says, and says the same again."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from fake_encoder import HashEncoder
from tiny_models import tiny_reader

from minirag.errors import UsageError
from minirag.rag.pipeline import WRITING, Abstention, Answer, Pipeline, Settings, Unmentioned
from minirag.rag.prompt import MARKED
from minirag.rag.reader import Reader
from minirag.retrieval.knowledge_base import KnowledgeBase
from minirag.retrieval.retriever import Hit
from minirag.text.documents import Document, Passage
from minirag.transformer.generation import Sampling

TEXTS = ["The river freezes in winter.", "The mill burned in May.", "A house stands in the street."]


class Fixed:
    """A retriever that finds what it was given, with these scores, and remembers the questions."""

    def __init__(self, *scores: float) -> None:
        self.hits = [
            Hit(Passage.cut(Document(f"{n}.md", text), 0, len(text), ""), score)
            for n, (text, score) in enumerate(zip(TEXTS, scores, strict=False))
        ]
        self.asked: list[tuple[str, int]] = []

    def search(self, question: str, k: int) -> list[Hit]:
        self.asked.append((question, k))
        return self.hits[:k]


@pytest.fixture(scope="module")
def reader() -> Reader:
    return tiny_reader()


def _pipeline(reader: Reader, retriever, **changes) -> Pipeline:
    return Pipeline(retriever, reader, replace(Settings(), **changes))


def test_answers_at_the_threshold_and_abstains_below(reader) -> None:
    for threshold, kind in ((0.5, Answer), (0.51, Abstention)):
        result = _pipeline(reader, Fixed(0.5, 0.2), threshold=threshold).ask("Who?")
        assert isinstance(result, kind)
        assert result.abstained == (kind is Abstention)


def test_an_abstention_shows_what_was_near_and_generates_nothing(reader, monkeypatch) -> None:
    monkeypatch.setattr(reader.model, "forward", None)  # would fail if it were called
    retriever = Fixed(0.4, 0.3, 0.1)
    result = _pipeline(reader, retriever, threshold=0.45, k=2).ask("Who?")
    assert isinstance(result, Abstention)
    assert result.hits == retriever.hits[:2]
    assert (result.best_score, result.threshold) == (0.4, 0.45)
    assert "0.40" in result.text
    assert "0.45" in result.text
    assert result.timings.read == 0.0
    assert retriever.asked == [("Who?", 2)]


def test_passages_that_share_too_few_rare_words_are_not_read(reader) -> None:
    found = Fixed(0.8, 0.7, 0.6)
    counts = (0.5, 0.7, None)  # of the third they were not counted
    found.hits = [replace(h, shared=n) for h, n in zip(found.hits, counts, strict=True)]
    result = _pipeline(reader, found, least_shared=0.6).ask("What froze?")
    assert result.hits == found.hits[1:]
    assert [passage.text for passage in result.prompt.passages] == TEXTS[1:]
    assert _pipeline(reader, found, least_shared=0.5).ask("What froze?").hits == found.hits
    found.hits = found.hits[:2]
    result = _pipeline(reader, found, least_shared=0.9).ask("What froze?")
    assert isinstance(result, Unmentioned)
    assert (result.hits, result.best_score, result.shared) == (found.hits, 0.8, 0.7)


def test_an_empty_collection_is_an_abstention(reader) -> None:
    base = KnowledgeBase(HashEncoder())
    result = Pipeline(base, reader).ask("Who?")
    assert isinstance(result, Abstention)
    assert (result.hits, result.best_score) == ([], None)
    assert "no passages" in result.text


def test_by_words_it_abstains_by_the_cosine_too(reader) -> None:
    """One word that a passage shares, "the", is no reason to answer."""
    base = KnowledgeBase(HashEncoder())
    base.add([Document(f"{n}.md", text) for n, text in enumerate(TEXTS)])
    pipeline = _pipeline(reader, base.live("lexical"), threshold=0.7)
    far = pipeline.ask("What is the capital of France?")
    assert isinstance(far, Abstention)
    assert far.hits  # something shares a word
    assert far.best_score == max(hit.similarity for hit in far.hits)
    assert isinstance(pipeline.ask("the mill burned in may"), Answer)
    none = pipeline.ask("zzzz qqqq")
    assert (none.abstained, none.best_score) == (True, None)
    assert none.text.startswith("No passage shares a word with the question")


@pytest.mark.parametrize("question", ["", "  ", "\n\t"])
def test_an_empty_question_is_a_sentence(reader, question) -> None:
    retriever = Fixed(0.9)
    with pytest.raises(UsageError, match="question is empty"):
        _pipeline(reader, retriever).ask(question)
    assert retriever.asked == []


@pytest.mark.parametrize("k", [0, -3])
def test_k_below_one_is_a_sentence(k) -> None:
    with pytest.raises(UsageError, match=f"k is {k}"):
        Settings(k=k)


def test_streamed_pieces_are_the_answer(reader) -> None:
    pieces: list[str] = []
    result = _pipeline(reader, Fixed(0.9, 0.8)).ask("Who?", pieces.append)
    assert isinstance(result, Answer)
    assert len(pieces) > 1
    assert "".join(pieces) == result.generation.text
    assert result.text == result.generation.text.strip()  # this model writes no markers


def test_greedy_is_deterministic_and_equals_the_plain_loop(reader) -> None:
    """Against argmax over a whole forward pass for every token, without cache or streaming."""
    settings = {"sampling": Sampling(max_new_tokens=12)}
    first = _pipeline(reader, Fixed(0.9, 0.8), **settings).ask("Who?")
    again = _pipeline(reader, Fixed(0.9, 0.8), **settings).ask("Who?")
    assert isinstance(first, Answer)
    assert isinstance(again, Answer)
    assert (first.text, first.generation.ids) == (again.text, again.generation.ids)
    ids, expected = list(first.prompt.ids), []
    with torch.inference_mode():
        for _ in range(12):
            token = int(reader.model.logits(reader.model(torch.tensor([ids])))[0, -1].argmax())
            if token in reader.model.config.eos_ids:
                break
            expected.append(token)
            ids.append(token)
    assert first.generation.ids == expected


def test_seeds_of_a_temperature_repeat_and_differ(reader) -> None:
    def written(seed: int) -> list[int]:
        sampling = replace(WRITING, temperature=1.5, seed=seed, max_new_tokens=16)
        result = _pipeline(reader, Fixed(0.9), sampling=sampling).ask("Who?")
        assert isinstance(result, Answer)
        return result.generation.ids

    assert written(1) == written(1)
    assert written(1) != written(2)


def test_passages_without_room_are_dropped_and_scores_stay_theirs(reader) -> None:
    small = tiny_reader(max_length=64)
    retriever = Fixed(0.9, 0.8, 0.7)
    sampling = Sampling(max_new_tokens=8)
    result = _pipeline(small, retriever, k=3, sampling=sampling).ask("Who?")
    assert isinstance(result, Answer)
    given = len(result.prompt.passages)
    assert 0 < given < 3
    assert result.hits == retriever.hits
    assert result.prompt.dropped == [hit.passage for hit in retriever.hits[given:]]
    assert len(result.prompt.ids) + len(result.generation.ids) <= 64


def test_a_question_longer_than_the_context_is_a_sentence(reader) -> None:
    with pytest.raises(UsageError, match="ask a shorter question"):
        _pipeline(reader, Fixed(0.9)).ask("why " * 700)


def test_citations_come_from_the_passages_given(reader, monkeypatch) -> None:
    """A model that writes [2] and [9]: the one is checked and kept, the other taken out."""

    def writes(model, prompt, tokenizer, sampling, generation):
        generation.text = "It burned in May [2], they say [9]."
        yield generation.text

    monkeypatch.setattr("minirag.rag.pipeline.stream", writes)
    result = _pipeline(reader, Fixed(0.9, 0.8, 0.7), k=3, instruction=MARKED).ask("When?")
    assert isinstance(result, Answer)
    assert result.text == "It burned in May [2], they say."
    assert result.invalid_citations == [9]
    assert [(c.number, c.passage.document_id, c.score) for c in result.citations] == [
        (2, "1.md", 0.8)
    ]


def test_what_is_asked_is_the_collection_as_it_is_now(reader) -> None:
    base = KnowledgeBase(HashEncoder())
    pipeline = Pipeline(base, reader, Settings(sampling=Sampling(max_new_tokens=2)))
    assert pipeline.ask("mill?").abstained
    base.add([Document("a.md", TEXTS[1]), Document("b.md", TEXTS[0])])
    found = pipeline.ask("The mill burned in May.")
    assert isinstance(found, Answer)
    assert found.hits[0].passage.document_id == "a.md"
    base.delete("a.md")
    assert [hit.passage.document_id for hit in pipeline.ask("mill?").hits] == ["b.md"]
