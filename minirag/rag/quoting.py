"""Answers in the documents' own words: the stretch of the passages that answers best.

A small model writes fluent sentences that no document holds. Asked to *choose*, it cannot: every
stretch of the passages, up to a length, is a candidate, scored by the log-probability that the
model gives its tokens and the end after them, where it would otherwise write freely. Some words are
likely whatever is asked (the topic, the first sentence); so the log-probability without the
question, weighted, is taken off. The answer stands in a document word for word, and its citation is
exact by construction.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from minirag.rag.prompt import Prompt
from minirag.rag.reader import Reader
from minirag.text.markdown import is_markdown
from minirag.text.tokenizer import Tokenizer

LONGEST = 10  # tokens of a quote, at most
CONTRAST = 0.6  # share of the log-probability without the question that is taken off
STARTS = 16  # places looked at: those whose first token is likeliest
_ENDS = (".", ",", "\n", ".\n", "\n\n")  # what may follow a complete answer, besides an end token
_CLOSING = ".,;:!?"  # belongs to the sentence, not to the quote
# What Markdown writes around words: before a line, around emphasis and code, in tables and links.
_MARKUP = re.compile(
    r"^ {0,3}(?:\#{1,6}|[-+*>])(?:\s|$)|^(?:=+|-+)$"
    r"|[`|]|\*\*|~~|(?<!\w)[*_](?=\w)|(?<=\w)[*_](?!\w)|\]\(|\[[^\]]*\Z",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Quote:
    """A stretch of one of the passages given."""

    passage: int  # its place in the prompt, from 0
    start: int  # characters of the passage's text: text == passage.text[start:end]
    end: int
    text: str
    score: float  # see best_quote; a mean over its tokens and the end after them
    ids: list[int]
    probabilities: list[float]  # the model's own, of each token


@dataclass(frozen=True)
class _Text:
    """A passage as tokens that could continue a line: the first one has its space, too."""

    passage: int
    text: str
    ids: list[int]
    spans: list[tuple[int, int]]  # characters of text that each token stands for, without spaces

    @classmethod
    def of(cls, passage: int, text: str, tokenizer: Tokenizer) -> _Text:
        shown = " " + tokenizer.without_special(text)
        ids, spans = tokenizer.offsets(shown)
        bare = []
        for a, b in spans:
            token = shown[a:b]
            a, b = a + len(token) - len(token.lstrip()), b - len(token) + len(token.rstrip())
            bare.append((max(a, 1) - 1, max(b, 1) - 1))  # the space in front is not the passage's
        return cls(passage, shown[1:], ids, bare)

    def begins_word(self, token: int) -> bool:
        a, b = self.spans[token]
        if token and self.spans[token - 1][1] > a:  # the rest of a character cut into bytes
            return False
        before = self.text[a - 1] if a else " "
        return a < b and (before.isspace() or (self.text[a].isalnum() and not before.isalnum()))

    def ends_word(self, token: int) -> bool:
        a, b = self.spans[token]
        cut = token + 1 < len(self.spans) and self.spans[token + 1][0] < b
        if a >= b or cut or self.text[b - 1] in _CLOSING:
            return False
        after = self.text[b] if b < len(self.text) else " "
        return after.isspace() or (self.text[b - 1].isalnum() and not after.isalnum())


@torch.inference_mode()
def best_quote(
    reader: Reader,
    prompt: Prompt,
    blank: Prompt,
    *,
    contrast: float = CONTRAST,
    longest: int = LONGEST,
    starts: int = STARTS,
) -> Quote | None:
    """The best answer among the words of the passages given.

    Parameters
    ----------
    prompt : Prompt
        Ends where the answer is to begin.
    blank : Prompt
        The same passages without the question.
    contrast : float
        How much of what is likely without the question is taken off; 0: nothing.
    longest : int
        Tokens of a quote, at most. Quotes begin and end with whole words, and hold no markup where
        their document is Markdown.
    starts : int
        Only so many places, those with the best first tokens, are looked at in full.

    Returns
    -------
    Quote, or None
        None if the passages hold no word at all.
    """
    tokenizer = reader.tokenizer
    texts = [_Text.of(i, p.text, tokenizer) for i, p in enumerate(prompt.passages)]
    places = [(t, i) for t in texts for i in range(len(t.ids)) if t.begins_word(i)]
    if not places:
        return None
    longest = min(longest, reader.context - max(len(prompt.ids), len(blank.ids)))
    asked, unasked = (_Continuation(reader, p.ids, longest) for p in (prompt, blank))
    first = asked.first - contrast * unasked.first  # (V,)
    places.sort(key=lambda place: -float(first[place[0].ids[place[1]]]))
    places = places[:starts]  # equal ones: in the order of the text, as sorting is stable
    rows = [text.ids[start : start + longest] for text, start in places]
    best: Quote | None = None
    for (text, start), row, with_it, without in zip(
        places, rows, asked.steps(rows), unasked.steps(rows), strict=True
    ):
        for n in range(1, len(row) + 1):
            score = (with_it.sum_to(n) - contrast * without.sum_to(n)) / (n + 1)
            if not text.ends_word(start + n - 1) or (best is not None and score <= best.score):
                continue
            passage = prompt.passages[text.passage]
            place = _place(text, start, start + n - 1, passage.text)
            if place is not None:
                words = passage.text[slice(*place)]
                if is_markdown(passage.document_id) and _MARKUP.search(words):
                    continue
                probabilities = torch.tensor(with_it.tokens[:n]).exp().tolist()
                best = Quote(text.passage, *place, words, score, row[:n], probabilities)
    return best


@dataclass(frozen=True)
class _Steps:
    """Log-probabilities along one stretch."""

    tokens: list[float]  # of each token after those before it
    ends: list[float]  # of an end after each token

    def sum_to(self, n: int) -> float:
        """Of the first ``n`` tokens and an end."""
        return sum(self.tokens[:n]) + self.ends[n - 1]


class _Continuation:
    """A prompt, read once, from which many stretches are tried."""

    def __init__(self, reader: Reader, ids: list[int], longest: int) -> None:
        self.model, self.longest = reader.model, longest
        self.ends = sorted(_end_ids(reader.tokenizer) | set(self.model.config.eos_ids))
        self.cache = self.model.new_cache(len(ids) + longest)
        states = self.model(torch.tensor([ids]), cache=self.cache)
        self.first = _log_probabilities(self.model.logits(states[:, -1:]))[0, 0]  # (V,)

    def steps(self, rows: Sequence[list[int]]) -> Iterator[_Steps]:
        """Along each of the rows, all in one pass."""
        padded = torch.tensor([row + [0] * (self.longest - len(row)) for row in rows])  # (R, L)
        states = self.model(padded, cache=self.cache.rows(torch.zeros(len(rows), dtype=torch.long)))
        after = _log_probabilities(self.model.logits(states))  # (R, L, V): what follows each token
        end = after[:, :, self.ends].logsumexp(dim=-1)  # (R, L)
        for row, following, stop in zip(rows, after, end, strict=True):
            later = [float(following[n - 1, row[n]]) for n in range(1, len(row))]
            yield _Steps([float(self.first[row[0]]), *later], stop.tolist())


def _log_probabilities(logits: Tensor) -> Tensor:
    return logits.float().log_softmax(dim=-1)


def _end_ids(tokenizer: Tokenizer) -> set[int]:
    """First tokens of what may end an answer."""
    encoded: Sequence[list[int]] = tokenizer.encode_batch(_ENDS, special=False)
    return {ids[0] for ids in encoded if ids}


def _place(text: _Text, first: int, last: int, source: str) -> tuple[int, int] | None:
    """Where a quote stands in the passage itself; None if a special token was cut out of it."""
    start, end = text.spans[first][0], text.spans[last][1]
    if source == text.text:
        return start, end
    found = source.find(text.text[start:end])
    return None if found < 0 else (found, found + end - start)
