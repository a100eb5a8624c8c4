"""Quotes: the likeliest whole words of the passages, found by trying every stretch of them."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
from test_rag_pipeline import TEXTS, Fixed
from tiny_models import tiny_reader

from minirag.rag.pipeline import Answer, Pipeline, Settings
from minirag.rag.prompt import QUOTED, UNASKED, Prompt, build_prompt
from minirag.rag.quoting import Quote, best_quote
from minirag.rag.reader import Reader
from minirag.rag.sentences import nearest_sentence
from minirag.text.documents import Document, Passage

ENDS = [".", ",", "\n", ".\n", "\n\n"]


@pytest.fixture(scope="module", params=[3, 4, 5])
def reader(request) -> Reader:
    reader = tiny_reader(seed=request.param)
    reader.model.double()  # logits of some thirty: in float32 the order of a sum would show
    return reader


def _passages(*texts: str) -> list[Passage]:
    return [Passage.cut(Document(f"{n}.txt", t), 0, len(t), "") for n, t in enumerate(texts)]


def _prompt(reader: Reader, *texts: str, blank: bool = False) -> Prompt:
    return build_prompt(
        "" if blank else "When did it burn?",
        _passages(*texts),
        reader.tokenizer,
        context=reader.context,
        reserve=20,
        instruction=UNASKED if blank else QUOTED,
    )


def _quote(reader: Reader, *texts: str, **options) -> Quote | None:
    return best_quote(
        reader, _prompt(reader, *texts), _prompt(reader, *texts, blank=True), **options
    )


@torch.inference_mode()
def _brute_force(
    reader: Reader, prompt: Prompt, blank: Prompt, longest: int, contrast: float
) -> list[tuple[float, str]]:
    """Each stretch from word to word, read in a pass of its own; the likeliest first."""
    tokenizer, found = reader.tokenizer, []
    ends = {tokenizer.encode(end, special=False)[0] for end in ENDS} | {tokenizer.eos_id}
    for passage in prompt.passages:
        ids = tokenizer.encode(" " + passage.text, special=False)
        for start in range(len(ids)):
            for stop in range(start + 1, min(start + longest, len(ids)) + 1):
                before, words, after = (
                    tokenizer.decode(part) for part in (ids[:start], ids[start:stop], ids[stop:])
                )
                if "\ufffd" in before + words + after:
                    continue  # half a character
                bare = words.strip()
                left, right = before[-1:] or " ", after[:1] or " "
                left = " " if words[:1].isspace() else left
                begins = bare and (left.isspace() or (bare[0].isalnum() and not left.isalnum()))
                whole = bare and (right.isspace() or (bare[-1].isalnum() and not right.isalnum()))
                clean = words.lstrip() == bare and bare[-1:] not in (*".,;:!?",)
                if not (
                    begins and whole and clean and tokenizer.decode(ids[start : start + 1]).strip()
                ):
                    continue
                score = 0.0
                for before_it, weight in ((prompt.ids, 1.0), (blank.ids, -contrast)):
                    read = torch.tensor([before_it + ids[start:stop]])
                    logits = reader.model.logits(reader.model(read))[0, len(before_it) - 1 :]
                    steps = logits.log_softmax(-1)
                    total = sum(float(steps[i, t]) for i, t in enumerate(ids[start:stop]))
                    total += math.log(sum(math.exp(float(steps[-1, e])) for e in ends))
                    score += weight * total
                found.append((score / (stop - start + 1), bare))
    return sorted(found, reverse=True)


@pytest.mark.parametrize(
    "texts",
    [
        TEXTS[:2],
        TEXTS,
        ["El año pasado ardió dos veces: 1.250,5 kg (¡más!)."],
        ["one"],
        ["  \n- see `/var/log/dpkg.log`\n\n- or don't", "𝄞 北京 año"],
    ],
)
@pytest.mark.parametrize("contrast", [0.0, 0.6])
def test_equals_trying_every_stretch(reader, texts, contrast) -> None:
    prompt, blank = _prompt(reader, *texts), _prompt(reader, *texts, blank=True)
    quote = best_quote(reader, prompt, blank, contrast=contrast, longest=5, starts=10_000)
    expected = _brute_force(reader, prompt, blank, 5, contrast)
    assert quote is not None
    assert quote.score == pytest.approx(expected[0][0], abs=1e-4)
    assert quote.text in [text for score, text in expected if score > expected[0][0] - 1e-4]
    source = prompt.passages[quote.passage].text
    assert source[quote.start : quote.end] == quote.text == quote.text.strip()
    assert reader.tokenizer.decode(quote.ids).strip() == quote.text
    assert len(quote.probabilities) == len(quote.ids) <= 5


def test_probabilities_are_the_models_own(reader) -> None:
    prompt, quote = _prompt(reader, *TEXTS), _quote(reader, *TEXTS)
    assert quote is not None
    with torch.inference_mode():
        logits = reader.model.logits(reader.model(torch.tensor([prompt.ids + quote.ids])))[0]
    for i, (token, probability) in enumerate(zip(quote.ids, quote.probabilities, strict=True)):
        expected = logits[len(prompt.ids) - 1 + i].softmax(-1)[token]
        assert probability == pytest.approx(float(expected), abs=1e-5)


def test_fewer_starts_find_no_better_quote(reader) -> None:
    scores = [_quote(reader, *TEXTS, starts=n).score for n in (1, 2, 4, 8, 16, 1000)]
    assert all(b >= a - 1e-4 for a, b in itertools.pairwise(scores))


def test_passages_without_a_word_have_no_quote(reader) -> None:
    for texts in ([], [""], ["  \n "], ["<|end|>"], ["..."]):
        assert _quote(reader, *texts) is None


def test_a_special_token_in_a_document_is_never_quoted(reader) -> None:
    text = "The mill<|end|> burned in<|start|> May, said the miller."
    quote = _quote(reader, text, starts=1000)
    assert quote is not None
    assert text[quote.start : quote.end] == quote.text
    assert "<|" not in quote.text
    assert reader.tokenizer.eos_id not in quote.ids


def test_the_pipeline_quotes_with_its_place(reader) -> None:
    retriever = Fixed(0.9, 0.8, 0.7)
    settings = Settings(k=3, quote=True)
    said: list[str] = []
    answer = Pipeline(retriever, reader, settings).ask("When did it burn?", said.append)
    assert isinstance(answer, Answer)
    assert said == [answer.text]
    (citation,) = answer.citations
    assert citation.quoted is not None
    start, end = citation.quoted
    assert citation.passage.text[start:end] == answer.text
    assert (citation.support, citation.marked) == (1.0, False)
    assert citation.passage == retriever.hits[citation.number - 1].passage
    assert citation.score == retriever.hits[citation.number - 1].score
    source, sentence = nearest_sentence("When did it burn?", [h.passage for h in retriever.hits])
    assert answer.prompt.passages == [sentence]  # nothing else is shown to the reader
    assert (citation.number, answer.prompt.dropped) == (source + 1, [])
    assert sentence.start <= citation.passage.start + start
    assert citation.passage.start + end <= sentence.end
    assert answer.generation.text == answer.text
    again = Pipeline(retriever, reader, settings).ask("When did it burn?")
    assert isinstance(again, Answer)
    assert replace(again, timings=answer.timings) == answer


def test_a_context_that_is_nearly_full_shortens_the_quote() -> None:
    reader = tiny_reader(max_length=200)
    prompt = _prompt(reader, TEXTS[0])
    full = replace(prompt, ids=(prompt.ids * 9)[:198])
    quote = best_quote(reader, full, prompt)
    assert quote is None or len(quote.ids) <= 2


def test_a_quote_out_of_the_middle_of_a_passage_keeps_its_place(reader) -> None:
    """The passage begins inside its document, the sentence inside the passage."""
    text = "Mills\n\nNobody lives in this valley now. The mill burned in May. Once it had inns."
    start = text.index("Nobody")
    retriever = Fixed(0.9, 0.8)
    passage = Passage.cut(Document("valley.md", text), start, len(text), "Mills")
    retriever.hits[1] = replace(retriever.hits[1], passage=passage)
    answer = Pipeline(retriever, reader, Settings(k=2, quote=True)).ask("When did the mill burn?")
    assert isinstance(answer, Answer)
    assert [p.text for p in answer.prompt.passages] == ["The mill burned in May."]
    (citation,) = answer.citations
    assert (citation.number, citation.passage, citation.score) == (2, passage, 0.8)
    assert citation.quoted is not None
    a, b = citation.quoted
    assert answer.text == passage.text[a:b]
    assert answer.text == text[start + a : start + b]
    assert text.index("The mill") <= start + a < start + b <= text.index(" Once")


@pytest.mark.parametrize(
    "text",
    [
        "# The river",
        "**The river** is `cold`",
        "- The _river_ | > the mill",
        "The [river](winter.md) is *cold*",
    ],
)
def test_a_quote_of_markdown_holds_no_markup(reader, text) -> None:
    passage = Passage.cut(Document("a.md", text), 0, len(text), "")
    prompt, blank = (
        replace(_prompt(reader, text, blank=blank), passages=[passage]) for blank in (False, True)
    )
    quote = best_quote(reader, prompt, blank, starts=10_000)
    assert quote is not None
    assert not set(quote.text) & set("#*`_|>[](")
    assert text[quote.start : quote.end] == quote.text
