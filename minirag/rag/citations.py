"""Which passages stand behind an answer: checked against those that were given, never believed.

A model may write markers, ``[2]``. One that names a passage that was not given is taken out and
counted. Without a marker, an answer is compared with the passages word by word: a passage that
holds most of its content words supports it. If none does, that is said.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from minirag.text.documents import Passage

_MARKER = re.compile(r"\s*\[(\d{1,3})\]")
_WORD = re.compile(r"\w+")

# Words that say nothing about where an answer comes from.
_COMMON = frozenset(
    "a an the of to in on at by for with from and or but if is are was were be been it its this "
    "that these those as you your can will must not no do does did use using have has had which "
    "what who when where how answer question passage "
    "el la los las un una unos unas de del al a en por para con y o u e si es son era fue ser "
    "está lo su sus este esta estos estas que se no puede debe como más".split()
)

MOST = 0.6  # share of an answer's content words that a supporting passage holds


@dataclass(frozen=True)
class Citation:
    """One passage behind the answer."""

    number: int  # its place in the prompt, from 1
    passage: Passage
    score: float  # of its retrieval
    support: float  # share of the answer's content words that it holds
    marked: bool  # named by the model itself
    quoted: tuple[int, int] | None = None  # characters of the passage that are the answer


@dataclass(frozen=True)
class Cited:
    """An answer with its citations."""

    text: str  # without markers of passages that were not given
    citations: list[Citation]
    invalid: list[int]  # numbers that the model named and that were not given


def cite(
    answer: str, passages: Sequence[Passage], scores: Sequence[float], *, numbered: bool = True
) -> Cited:
    """Check the model's own markers; where there are none, find what supports the answer.

    Parameters
    ----------
    passages, scores : as given to the model, in the prompt's order
    numbered : bool
        Whether the model saw numbers; if not, ``[2]`` is text like any other.

    Returns
    -------
    Cited
        Citations in the order of the prompt: those that the model marked, else those that hold
        the largest share of the answer's words, if it is ``MOST`` of them.
    """
    named = [int(match.group(1)) for match in _MARKER.finditer(answer)] if numbered else []
    invalid = sorted({n for n in named if not 1 <= n <= len(passages)})
    text = _MARKER.sub(lambda m: "" if int(m.group(1)) in invalid else m.group(0), answer).strip()
    words = content_words(_MARKER.sub("", text) if numbered else text)
    support = [_share(words, passage) for passage in passages]
    marked = sorted(set(named) - set(invalid))
    if marked:
        chosen = [n - 1 for n in marked]
    else:
        most = max(support, default=0.0)
        chosen = [i for i, share in enumerate(support) if share >= MOST and share == most]
    citations = [Citation(i + 1, passages[i], scores[i], support[i], bool(marked)) for i in chosen]
    return Cited(text, citations, invalid)


def content_words(text: str) -> set[str]:
    """Lower-case words, without those that any text has."""
    return set(_WORD.findall(text.lower())) - _COMMON


def _share(words: set[str], passage: Passage) -> float:
    if not words:
        return 0.0
    held = set(_WORD.findall(f"{passage.heading} {passage.text}".lower()))
    return len(words & held) / len(words)
