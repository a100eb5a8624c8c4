"""One level below passages: the sentence that shares most words with the question.

Retrieval finds passages; a small reader that is to choose a few words of them loses its way. The
words of the question tell which sentence to look at, as they tell a search engine which text. Over
all of SQuAD's training paragraphs (``lessons/results/real-squad.json``), quotes have a token F1 of
.181; the same command gave .096 when the reader was shown the passages whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from minirag.retrieval.bm25 import BM25
from minirag.text.documents import Passage
from minirag.text.markdown import headings, is_markdown

# White space after a line, or between a point (and what closes with it) and what may begin a
# sentence.
_LINE_END = re.compile(r"\s*\n\s*")
_POINT = re.compile(r"(?<=[.!?…])[\"'”’»)\]]*(\s+)(?=[\"'“‘«(\[¿¡]*[A-ZÁÉÍÓÚÑÜ\d])")
_SHORTEST = 15  # characters: "St." and "e.g." end no sentence


def sentences(text: str) -> Iterator[tuple[int, int]]:
    """Where each sentence of a text begins and ends, without the white space around it."""
    start, last = len(text) - len(text.lstrip()), len(text.rstrip())
    lines = [line.span() for line in _LINE_END.finditer(text, start, last)]
    for end, next_line in [*lines, (last, last)]:
        for point in _POINT.finditer(text, start, end):
            if point.start(1) - start >= _SHORTEST:
                yield start, point.start(1)
                start = point.end()
        if start < end:
            yield start, end
        start = next_line


def _statements(passage: Passage) -> Iterator[tuple[int, int]]:
    """Its sentences; a heading says what is answered below it, and so answers nothing itself."""
    titles = list(headings(passage.text)) if is_markdown(passage.document_id) else []
    for start, end in sentences(passage.text):
        if not any(title.start <= start and end <= title.end for title in titles):
            yield start, end


def nearest_sentence(question: str, passages: Sequence[Passage]) -> tuple[int, Passage]:
    """The sentence that BM25 ranks first among those of the passages.

    Parameters
    ----------
    passages : at least one, best first

    Returns
    -------
    The place of its passage, and the sentence as a passage of its own. If no sentence shares a
    word with the question: 0, and the first passage as it is.
    """
    found = [(i, a, b) for i, p in enumerate(passages) for a, b in _statements(p)]
    index = BM25()
    index.add([passages[i].text[a:b] for i, a, b in found])
    _, ids = index.search(question, 1)
    if not len(ids):
        return 0, passages[0]
    source, a, b = found[int(ids[0])]
    whole = passages[source]
    start, end = whole.start + a, whole.start + b
    id = f"{whole.document_id}#{start}-{end}"
    return source, Passage(id, whole.document_id, start, end, whole.text[a:b], whole.heading)
