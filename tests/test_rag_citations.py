"""Citations: markers checked against what was given; without them, support found by words."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from minirag.rag.citations import MOST, cite, content_words
from minirag.text.documents import Document, Passage


def _passages(*texts: str, heading: str = "") -> list[Passage]:
    return [
        Passage.cut(Document(f"{n}.md", text), 0, len(text), heading)
        for n, text in enumerate(texts, start=1)
    ]


PASSAGES = _passages(
    "Freeze the first row with View, Freeze Rows and Columns.",
    "Rows are inserted from the Sheet menu.",
    "A chart shows numbers as bars.",
)
SCORES = [0.9, 0.6, 0.3]


def test_marked_passages_are_cited_once_in_order() -> None:
    cited = cite("Use the Sheet menu [2], then View [1] and again [2].", PASSAGES, SCORES)
    assert [(c.number, c.passage, c.score, c.marked) for c in cited.citations] == [
        (1, PASSAGES[0], 0.9, True),
        (2, PASSAGES[1], 0.6, True),
    ]
    assert cited.text == "Use the Sheet menu [2], then View [1] and again [2]."
    assert cited.invalid == []


def test_support_is_the_share_of_content_words() -> None:
    """Of the five words the second passage holds two; "use" and "the" say nothing."""
    cited = cite("Use the Sheet menu [2], then View and again.", PASSAGES, SCORES)
    words = {"sheet", "menu", "then", "view", "again"}
    assert content_words("Use the Sheet menu, then View and again.") == words
    assert cited.citations[0].support == 2 / 5


def test_markers_of_passages_not_given_are_taken_out() -> None:
    cited = cite("Insert rows [7] from the Sheet menu [2] [0].", PASSAGES, SCORES)
    assert cited.text == "Insert rows from the Sheet menu [2]."
    assert cited.invalid == [0, 7]
    assert [c.number for c in cited.citations] == [2]


def test_only_invalid_markers_fall_back_to_words() -> None:
    cited = cite("Rows are inserted from the Sheet menu [9].", PASSAGES, SCORES)
    assert (cited.text, cited.invalid) == ("Rows are inserted from the Sheet menu.", [9])
    assert [(c.number, c.support, c.marked) for c in cited.citations] == [(2, 1.0, False)]


def test_without_numbers_in_the_prompt_a_marker_is_text_like_any_other() -> None:
    cited = cite("Rows are inserted [1] from the Sheet menu [9].", PASSAGES, SCORES, numbered=False)
    assert (cited.text, cited.invalid) == ("Rows are inserted [1] from the Sheet menu [9].", [])
    assert [(c.number, c.support, c.marked) for c in cited.citations] == [(2, 4 / 6, False)]


def test_numbers_in_brackets_that_are_no_markers_stay() -> None:
    text = "Rows are inserted (see [2024] and array[i]) from the Sheet menu."
    cited = cite(text, PASSAGES, SCORES)
    assert (cited.text, cited.invalid) == (text, [])


def test_words_must_reach_most_of_the_answer() -> None:
    """Three of five words are MOST; two of five are not."""
    enough = cite("rows inserted sheet zebra giraffe", PASSAGES, SCORES)
    assert MOST == 0.6
    assert [(c.number, c.support) for c in enough.citations] == [(2, 0.6)]
    assert cite("rows inserted lion zebra giraffe", PASSAGES, SCORES).citations == []


def test_equal_support_cites_all_of_the_best() -> None:
    same = _passages("The mill burned down.", "Nothing here.", "In May the mill burned.")
    cited = cite("The mill burned.", same, [0.5, 0.4, 0.3])
    assert [(c.number, c.support) for c in cited.citations] == [(1, 1.0), (3, 1.0)]


def test_a_heading_holds_words_too() -> None:
    passages = _passages("It burned in 1931.", heading="The mill of Ostra")
    assert cite("The Ostra mill burned in 1931.", passages, [0.5]).citations[0].support == 1.0


def test_an_answer_without_words_is_supported_by_nothing() -> None:
    for answer in ("", "   ", "The.", "¡¿?!", "is it"):
        cited = cite(answer, PASSAGES, SCORES)
        assert (cited.text, cited.citations, cited.invalid) == (answer.strip(), [], [])


PIECES = st.sampled_from(
    ["[1]", "[2]", "[3]", " [4]", "[99]", "[0]", " row", " sheet", " menu", " zebra", ".", "\n"]
)


@settings(max_examples=200, deadline=None)
@given(st.lists(PIECES, max_size=14).map("".join), st.integers(0, 3))
def test_whatever_was_written_only_given_passages_are_cited(answer: str, n: int) -> None:
    cited = cite(answer, PASSAGES[:n], SCORES[:n])
    named = {int(m) for m in re.findall(r"\[(\d{1,3})\]", answer)}
    assert set(cited.invalid) == {m for m in named if not 1 <= m <= n}
    assert {int(m) for m in re.findall(r"\[(\d{1,3})\]", cited.text)} == named - set(cited.invalid)
    numbers = [c.number for c in cited.citations]
    assert numbers == sorted(set(numbers))
    valid = named - set(cited.invalid)
    if valid:
        assert set(numbers) == valid
    assert all(c.passage is PASSAGES[c.number - 1] for c in cited.citations)
    assert all(c.marked == bool(valid) for c in cited.citations)
    assert all(c.marked or c.support >= MOST for c in cited.citations)
