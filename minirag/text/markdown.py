"""The little of Markdown that retrieval needs: where the headings are, and the front matter.

Headings follow CommonMark (https://spec.commonmark.org, sections 4.2, 4.3 and 4.5): ``#`` headings,
underlined ones, neither inside fenced code. One simplification: an underlined heading is one line,
with a blank line or another heading above it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

MARKDOWN_SUFFIXES = (".md", ".markdown")
_MAX_TITLE = 200  # characters; a longer "heading" is a paragraph that lost its way
_MAX_FRONT_MATTER = 64 << 10  # characters

# Every line that can matter; all else is never looked at, so that long texts are read fast.
_LANDMARK = re.compile(
    r"^ {0,3}(?:(?P<hashes>\#{1,6})(?P<title>[ \t].*)"
    r"|(?P<fence>`{3,}|~{3,})(?P<info>.*)"
    r"|(?P<underline>=+|-+)[ \t]*)$",
    re.MULTILINE,
)
# What can't be the text of an underlined heading: a quote, a list item, a table row, indented code.
_NOT_A_PARAGRAPH = re.compile(r"(?: {0,3}(?:>|[-+*][ \t]|\d{1,9}[.)][ \t]|\|)| {4}|\t)")
_FRONT_MATTER_END = re.compile(r"^(?:---|\.\.\.)[ \t]*$\n?", re.MULTILINE)
_FRONT_MATTER_TITLE = re.compile(r"^title:[ \t]*(\S.*)$", re.MULTILINE | re.IGNORECASE)


@dataclass(frozen=True)
class Heading:
    """A heading: ``text[start:end]`` is its line (or its two lines), ``level`` is 1 to 6."""

    start: int
    end: int
    level: int
    title: str


def is_markdown(name: str) -> bool:
    """Whether a file of this name holds Markdown."""
    return name.lower().endswith(MARKDOWN_SUFFIXES)


def front_matter(text: str) -> tuple[int, str]:
    """Where a YAML block at the very beginning ends (0 if there is none), and its ``title:``."""
    if not re.match(r"---[ \t]*\n(?:#.*\n)*[A-Za-z_][\w-]*:", text):
        return 0, ""
    end = _FRONT_MATTER_END.search(text, text.index("\n") + 1, _MAX_FRONT_MATTER)
    if end is None:
        return 0, ""
    title = _FRONT_MATTER_TITLE.search(text, 0, end.start())
    return end.end(), title[1].strip().strip("\"'")[:_MAX_TITLE] if title else ""


def headings(text: str) -> Iterator[Heading]:
    """All headings, in order."""
    fence = ""  # the mark that opened the fenced code we are in
    last_end, _ = front_matter(text)
    for line in _LANDMARK.finditer(text, last_end):
        mark = line["fence"]
        if fence:
            if mark and mark.startswith(fence) and not line["info"].strip():
                fence, last_end = "", line.end()
        elif mark:
            if mark[0] == "~" or "`" not in line["info"]:
                fence = mark
        elif line["hashes"]:
            title = _without_closing_hashes(line["title"].strip())
            if title:
                last_end = line.end()
                level = len(line["hashes"])
                yield Heading(line.start(), last_end, level, title[:_MAX_TITLE])
        else:
            start = _underlined_line(text, last_end, line.start())
            if start is not None:
                title = text[start : line.start()].strip()
                last_end = line.end()
                level = 1 if line["underline"][0] == "=" else 2
                yield Heading(start, last_end, level, title[:_MAX_TITLE])


def _without_closing_hashes(title: str) -> str:
    """``"Title ##"`` -> ``"Title"``, but ``"C#"`` stays."""
    bare = title.rstrip("#")
    return bare.rstrip() if bare == "" or bare[-1] in " \t" else title


def _underlined_line(text: str, last_end: int, underline: int) -> int | None:
    """Where the heading begins that the line at ``underline`` would underline, if it does."""
    start = text.rfind("\n", last_end, max(underline - 1, last_end)) + 1
    start = start or last_end  # no line break between: the line begins where the last thing ended
    line = text[start : underline - 1] if underline else ""
    if not line.strip() or _NOT_A_PARAGRAPH.match(line):
        return None
    above = text.rfind("\n", last_end, max(start - 1, last_end)) + 1 or last_end
    return None if text[above:start].strip() else start
