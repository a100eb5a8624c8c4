"""What a collection is about, as far as its titles tell: the names in a question.

A conversation turns round named things: a drug, a law, a page of a manual. Their names are found in
a question in two ways: a document's title that stands in it, and words written with a capital that
do not begin the sentence. Both are spelling, not understanding.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from minirag.retrieval.knowledge_base import KnowledgeBase
from minirag.text.documents import Document

_WORD = re.compile(r"\w+")
# Titles of such words alone name nothing, and words of this kind are never names by their capital:
# English writes its days and months with one.
_PLAIN = frozenset(
    "a an the i and or of in on for to with about what who how when where which why it general "
    "introduction overview contents index help el la los las un una y o de en por para con que "
    "quien como cuando donde cual introducción índice ayuda "
    "monday tuesday wednesday thursday friday saturday sunday january february march april may "
    "june july august september october november december".split()
)


@dataclass(frozen=True)
class Name:
    """A name and its place: ``text == question[start:end]``."""

    text: str
    start: int
    end: int
    titled: bool  # a document has this title


class Names:
    """The names that some documents give to things: their titles."""

    def __init__(self, documents: Iterable[Document] = ()) -> None:
        self.documents = list(documents)
        self._titles: dict[str, list[tuple[str, ...]]] = {}  # by first word
        for title in {tuple(map(_folded, _WORD.findall(d.title))) for d in self.documents}:
            if title and not set(title) <= _PLAIN:
                self._titles.setdefault(title[0], []).append(title)
        for titles in self._titles.values():
            titles.sort(key=lambda title: (-len(title), title))  # the longest that fits

    def find(self, question: str, *, first: bool = False) -> list[Name]:
        """The names in a question: titles, then capitals; each in the order of the text.

        Parameters
        ----------
        first : bool
            Whether the first word may be a name by its capital: in what follows "And ..." it may,
            at the beginning of a sentence it may not.
        """
        words = list(_WORD.finditer(question))
        folded = [_folded(word[0]) for word in words]
        found: list[Name] = []
        taken: set[int] = set()
        place = 0
        while place < len(words):
            fits = (
                title
                for title in self._titles.get(folded[place], ())
                if tuple(folded[place : place + len(title)]) == title
            )
            title = next(fits, None)
            if title is None:
                place += 1
                continue
            last = words[place + len(title) - 1]
            found.append(_name(question, words[place].start(), last.end(), True))
            taken.update(range(place, place + len(title)))
            place += len(title)
        if question.isupper():  # everything is written with capitals: they say nothing
            return found
        return found + [
            _name(question, words[run[0]].start(), words[run[-1]].end(), False)
            for run in _runs(
                place
                for place, word in enumerate(words)
                if place not in taken
                and (place > 0 or first)
                and word[0][0].isupper()
                and folded[place] not in _PLAIN
                and word[0].lower() not in _PLAIN
            )
        ]

    def mentions(self, word: str) -> bool:
        """Whether any document has the word, or one that begins like it, in any case."""
        begins = re.compile(rf"\b{re.escape(_folded(word))}")  # "art" is not in "starts"
        return any(begins.search(document.text.lower()) for document in self.documents)


def names_of(base: KnowledgeBase) -> Callable[[], Names]:
    """A function that gives the names of what the knowledge base holds by then."""
    held: list[Document] = []
    names = Names()

    def present() -> Names:
        nonlocal held, names
        documents = base.documents
        if len(documents) != len(held) or any(
            a is not b for a, b in zip(documents, held, strict=True)
        ):
            held, names = documents, Names(documents)
        return names

    return present


def _folded(word: str) -> str:
    """In small letters, without a plural's s: "cards" and "Card" are the same name."""
    word = unicodedata.normalize("NFC", word).lower()
    return word[:-1] if len(word) > 3 and word.endswith("s") else word


def _name(question: str, start: int, end: int, titled: bool) -> Name:
    return Name(question[start:end], start, end, titled)


def _runs(places: Iterable[int]) -> list[list[int]]:
    """Neighbouring places together: 3, 4, 7 to [3, 4], [7]."""
    runs: list[list[int]] = []
    for place in places:
        if runs and runs[-1][-1] == place - 1:
            runs[-1].append(place)
        else:
            runs.append([place])
    return runs
