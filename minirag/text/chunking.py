"""Cutting documents into passages, measured in the tokens of the encoder that will read them.

An encoder reads at most ``size`` tokens: its special tokens, the passage's heading, and the
passage's text. Passages end where a reader would pause: at the end of a section if it fits, else
of a paragraph, a sentence, a line, a word, and only then inside one. Neighbours within a section
overlap, so that a sentence on the border is whole in one of them.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from minirag.errors import UsageError
from minirag.text.documents import Document, Passage
from minirag.text.markdown import Heading, headings, is_markdown
from minirag.text.report import Report

# Preferred ends, best first; a match's end is where the next passage begins.
_PARAGRAPH = re.compile(r"\n[ \t]*\n\s*")
_SENTENCE = re.compile(r"[.!?…][\"'”’»)\]]*\s+|[。！？]\s*")
_LINE = re.compile(r"\n\s*")
_WORD = re.compile(r"\s+")
_SPACE = re.compile(r"\s*")

# A token covers about 4 characters of prose. A "word" of thousands is one unknown token to some
# tokenizers; no passage may be longer than this all the same.
_MAX_CHARS_PER_TOKEN = 16
# Texts are tokenized in blocks of so many characters at most: time and memory stay in proportion.
_BLOCK = 1 << 16
_MIN_SIZE = 8  # tokens that must be left beside the special ones


class PassageTokenizer(Protocol):
    """What chunking needs of :class:`minirag.text.tokenizer.Tokenizer`."""

    @property
    def n_special(self) -> int:
        """Tokens that :meth:`encode_batch` adds around one text."""

    def offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids without special tokens, and each one's characters in ``text``."""

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids with special tokens, as the encoder will read them."""


def passage_text_for_encoder(passage: Passage) -> str:
    """What an encoder reads of a passage: its heading on a line of its own, then its text."""
    return f"{passage.heading}\n{passage.text}" if passage.heading else passage.text


def chunk(
    document: Document,
    tokenizer: PassageTokenizer,
    *,
    size: int,
    overlap: int = 0,
    report: Report | None = None,
) -> list[Passage]:
    """Cut one document into passages.

    Parameters
    ----------
    size : int
        Tokens that the encoder may read of a passage, everything included: special tokens,
        heading, text.
    overlap : int
        About how many tokens at the end of a passage the next one begins with, at most; they
        begin at a sentence where there is one, else at a word. Sections don't overlap.
    report : Report, optional
        Collects what an encoder would not see whole: headings that had to be shortened (they may
        take a third of the room) and, if it ever happens, passages that could not be made to fit.

    Returns
    -------
    list of Passage
        In order. Together they hold every character of the text that is not white space.

    Raises
    ------
    UsageError
        If ``size`` leaves no room, or ``overlap`` is negative or more than half of ``size``.
    """
    check_sizes(tokenizer, size, overlap)
    cutter = _Cutter(document, tokenizer, size, overlap, Report() if report is None else report)
    return [passage for section in sections(document) for passage in cutter.cut(section)]


def check_sizes(tokenizer: PassageTokenizer, size: int, overlap: int) -> None:
    """Refuse sizes that :func:`chunk` can't work with, by a UsageError."""
    if size < tokenizer.n_special + _MIN_SIZE:
        raise UsageError(
            f"passages of {size} tokens are too small: {tokenizer.n_special} of them are special "
            f"tokens; give a size of at least {tokenizer.n_special + _MIN_SIZE}."
        )
    if not 0 <= overlap <= size // 2:
        raise UsageError(
            f"an overlap of {overlap} tokens does not go with passages of {size}: "
            f"give 0 to {size // 2}."
        )


# -- sections --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Section:
    """A stretch of a document under one heading; ``heading`` is the whole path to it."""

    start: int
    end: int
    heading: str


def sections(document: Document) -> list[Section]:
    """Divide a document at its headings; only Markdown (by its id's or source's suffix) has any.

    A section begins with the line of its heading. One that holds nothing else begins the next one,
    because a heading by itself answers no question.
    """
    text = document.text
    if not (is_markdown(document.id) or is_markdown(document.source)):
        return [Section(0, len(text), document.title)]
    found: list[Section] = []
    path: list[Heading] = []
    start, body, heading = 0, 0, document.title
    for next_heading in headings(text):
        if text[body : next_heading.start].strip():
            found.append(Section(start, next_heading.start, heading))
            start = next_heading.start
        while path and path[-1].level >= next_heading.level:
            path.pop()
        path.append(next_heading)
        body, heading = next_heading.end, _path_of(document.title, path)
    found.append(Section(start, len(text), heading))
    return found


def _path_of(title: str, path: Sequence[Heading]) -> str:
    names = [heading.title for heading in path]
    if title and names[0] != title:
        names.insert(0, title)
    return " > ".join(names)


# -- passages of one section -----------------------------------------------------------------------


@dataclass(frozen=True)
class _Cutter:
    document: Document
    tokenizer: PassageTokenizer
    size: int
    overlap: int
    report: Report

    def cut(self, section: Section) -> Iterator[Passage]:
        """The passages of one section."""
        heading, n_heading = self._fitting(section.heading)
        budget = self.size - self.tokenizer.n_special - n_heading
        for start, end in _blocks(self.document.text, section.start, section.end):
            yield from self._pack(start, end, heading, budget)

    def _fitting(self, heading: str) -> tuple[str, int]:
        """The heading, its beginning cut off if it is too long, and its tokens."""
        ids, offsets = self.tokenizer.offsets(f"{heading}\n" if heading else "")
        limit = (self.size - self.tokenizer.n_special) // 3
        if len(ids) <= limit:
            return heading, len(ids)
        what = f"has a heading of {len(ids)} tokens; the last {limit} are encoded: {heading[:80]!r}"
        self.report.add(self.document.id, what, "truncated")
        return heading[offsets[-limit][0] :].lstrip(" >"), limit

    def _pack(self, start: int, end: int, heading: str, budget: int) -> list[Passage]:
        """Passages of ``text[start:end]`` with at most ``budget`` tokens of text each."""
        _, offsets = self.tokenizer.offsets(self.document.text[start:end])
        starts = [start + first for first, _ in offsets]
        while True:
            overlap = min(self.overlap, budget // 2)
            passages = [
                Passage.cut(self.document, first, last, heading)
                for first, last in _spans(self.document.text, start, end, starts, budget, overlap)
            ]
            # Cut out of its context a text may take a token or two more (" word" is one token,
            # "word" two): so passages are counted as the encoder will read them.
            encoded = self.tokenizer.encode_batch([passage_text_for_encoder(p) for p in passages])
            excess = max((len(ids) for ids in encoded), default=0) - self.size
            if excess <= 0:
                return passages
            if budget == 1:
                break
            budget = max(1, budget - excess)
        for passage, ids in zip(passages, encoded, strict=True):
            if len(ids) > self.size:
                what = f"has {len(ids)} tokens; an encoder reads the first {self.size}"
                self.report.add(passage.id, what, "truncated")
        return passages


def _blocks(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    while end - start > _BLOCK:
        cut = _best_cut(text, start + _BLOCK // 2, start + _BLOCK)
        yield start, cut
        start = cut
    yield start, end


def _spans(
    text: str, start: int, end: int, starts: Sequence[int], budget: int, overlap: int
) -> Iterator[tuple[int, int]]:
    """Cut ``text[start:end]`` into spans without white space at their ends.

    ``starts`` are the tokens' first characters. Each cut lies behind the one before, whatever the
    overlap, so that this comes to an end.
    """

    def skip_space(at: int) -> int:
        space = _SPACE.match(text, at, end)
        return space.end() if space else at

    def reach(first: int) -> int:
        """How far a span may go that begins at ``first``; space at its end costs nothing."""
        beyond = bisect_left(starts, first) + budget  # the first token that has no room
        last = starts[beyond] if beyond < len(starts) else end
        last = min(last, first + _MAX_CHARS_PER_TOKEN * budget)
        return skip_space(max(last, first + 1))  # one character may be several tokens

    start = cut = skip_space(start)
    while start < end:
        high = reach(start)
        if high <= cut:  # the overlap alone fills a passage: do without it
            start, high = cut, reach(cut)
        cut = high if high >= end else _best_cut(text, max(cut, (start + high) // 2), high)
        yield start, start + len(text[start:cut].rstrip())
        if cut >= end:
            return
        start = skip_space(_overlap_start(text, start, cut, starts, overlap))


def _best_cut(text: str, low: int, high: int) -> int:
    """The last good place to cut in ``(low, high]``."""
    for boundary in (_PARAGRAPH, _SENTENCE, _LINE, _WORD):
        cuts = [match.end() for match in boundary.finditer(text, low, high)]
        if cuts:
            return cuts[-1]
    return high


def _overlap_start(text: str, start: int, cut: int, starts: Sequence[int], overlap: int) -> int:
    """Where the passage after ``text[start:cut]`` begins: up to ``overlap`` tokens before ``cut``.

    It repeats half of the passage before it at most.
    """
    n_before = bisect_left(starts, cut)
    first = max(0, n_before - overlap, bisect_left(starts, (start + cut + 1) // 2))
    if first >= n_before:
        return cut
    earliest = starts[first]
    for boundary in (_SENTENCE, _WORD):
        for match in boundary.finditer(text, max(0, earliest - 2), cut):
            if earliest <= match.end() < cut:
                return match.end()
    return earliest
