"""From passages to the sentence that a question is about."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minirag.rag.sentences import nearest_sentence, sentences
from minirag.text.documents import Document, Passage


def _cut(text: str) -> list[str]:
    return [text[a:b] for a, b in sentences(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("  \n ", []),
        ("one", ["one"]),
        (
            " Dr. Smith came at 3.5 km an hour! “Why did he come?” he asked. Nobody knew it. ",
            [
                "Dr. Smith came at 3.5 km an hour!",
                "“Why did he come?” he asked.",
                "Nobody knew it.",
            ],
        ),
        (
            "Esto lo dijo ella: «¡No, nunca!» ¿Y quién lo oyó? Él.",
            ["Esto lo dijo ella: «¡No, nunca!»", "¿Y quién lo oyó?", "Él."],
        ),
        (
            "Steps\n\n- open it\n- close it.\r\n3. go",
            ["Steps", "- open it", "- close it.", "3. go"],
        ),
    ],
)
def test_where_sentences_end(text: str, expected: list[str]) -> None:
    assert _cut(text) == expected


@given(st.text(alphabet='aB.!? \n"»(3é', max_size=80))
def test_nothing_but_space_is_lost_and_nothing_comes_twice(text: str) -> None:
    spans = list(sentences(text))
    assert all(a < b and text[a:b] == text[a:b].strip() for a, b in spans)
    edges = [0, *(place for span in spans for place in span), len(text)]
    assert edges == sorted(edges)
    between = [text[a:b] for a, b in zip(edges[::2], edges[1::2], strict=True)]
    assert not "".join(between).strip()


def _passage(document: Document, start: int, end: int) -> Passage:
    return Passage.cut(document, start, end, "Mills")


def test_the_sentence_with_the_questions_words_keeps_its_place() -> None:
    town = Document("town.md", "Nothing stands here but a church. Nobody lives in it today.")
    mill = Document("mill.md", "Old mills. The mill of Arda burned in May. It was built anew soon.")
    passages = [_passage(town, 8, 59), _passage(mill, 4, len(mill.text))]
    source, sentence = nearest_sentence("When did the mill of Arda burn?", passages)
    assert source == 1
    assert sentence.text == "mills. The mill of Arda burned in May."  # "mills." is too short
    assert mill.text[sentence.start : sentence.end] == sentence.text
    assert sentence.document_id == "mill.md"
    assert sentence.id == f"mill.md#{sentence.start}-{sentence.end}"
    assert sentence.heading == "Mills"


def test_neither_place_nor_length_decides() -> None:
    text = (
        "Nobody lives in the valley today, and nothing but a long road leads through it. "
        "The mill burned in May. Once there were five farms and two inns beside the river."
    )
    other = "This page is about another river, its fish, its boats and its old stone bridges."
    passages = [_passage(Document(n, t), 0, len(t)) for n, t in (("a", text), ("b", other))]
    for order in (passages, passages[::-1]):
        source, sentence = nearest_sentence("When did the mill burn?", order)
        assert order[source].document_id == "a"
        assert sentence.text == "The mill burned in May."


def test_without_a_common_word_the_first_passage_stands() -> None:
    passages = [_passage(Document(n, t), 0, len(t)) for n, t in (("a", "Ab cd. Ef."), ("b", "gh"))]
    assert nearest_sentence("xyz?", passages) == (0, passages[0])
    blank = [_passage(Document("c", " \n"), 0, 2)]
    assert nearest_sentence("xyz?", blank) == (0, blank[0])


def test_a_heading_is_no_answer() -> None:
    text = "# When the mill burned\n\nIt burned in May.\n\nIts end\n-------\n\nIt stands no more."
    for name, said in (("a.md", "It burned in May."), ("a.txt", "# When the mill burned")):
        passage = _passage(Document(name, text), 0, len(text))
        assert nearest_sentence("When was it that the mill burned?", [passage])[1].text == said
    bare = _passage(Document("b.md", "# The mill"), 0, 10)
    assert nearest_sentence("The mill?", [bare]) == (0, bare)
