"""Foreign text without the strings of special tokens, which could pose as a turn or a question."""

from __future__ import annotations

import functools
import re


@functools.lru_cache(maxsize=32)
def _any_of(markers: tuple[str, ...]) -> re.Pattern[str]:
    longest_first = sorted(markers, key=len, reverse=True)
    return re.compile("|".join(re.escape(marker) for marker in longest_first))


def without_markers(text: str, markers: tuple[str, ...]) -> str:
    """``text`` without any of the markers, however they are nested.

    Taking one out can join the halves of another, so the joint is looked at after every one. Only
    the joint, a marker's length to either side: the time grows with the text, not with its square.
    """
    if not markers:
        return text
    pattern, reach = _any_of(markers), max(map(len, markers)) - 1
    kept: list[str] = []  # characters, with no marker among them
    at = 0  # where the text not yet looked at begins
    while found := pattern.search(text, at):
        kept += text[at : found.start()]
        at = found.end()
        while joint := _across(_end(kept, reach), text[at : at + reach], pattern):
            n_before, n_after = joint
            del kept[len(kept) - n_before :]
            at += n_after
    return "".join(kept) + text[at:]


def _end(characters: list[str], n: int) -> str:
    return "".join(characters[max(0, len(characters) - n) :])


def _across(before: str, after: str, pattern: re.Pattern[str]) -> tuple[int, int] | None:
    """How much of a marker's characters end ``before``, and how many begin ``after``, if any."""
    found = pattern.search(before + after)
    if found is None or found.start() >= len(before):
        return None
    return len(before) - found.start(), found.end() - len(before)
