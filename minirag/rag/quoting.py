"""Answers in the documents' own words: the stretch of the passages that the model finds likeliest.

A small model writes fluent sentences that no document holds. Asked to *choose*, it cannot: every
stretch of the passages, up to a length, is a candidate, scored by the mean log-probability that the
model gives its tokens and the end after them, where it would otherwise write freely. The answer
stands in a document word for word, and its citation is exact by construction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from minirag.rag.prompt import Prompt
from minirag.rag.reader import Reader
from minirag.text.tokenizer import Tokenizer

LONGEST = 12  # tokens of a quote, at most
STARTS = 16  # places looked at: those whose first token is likeliest
_ENDS = (".", ",", "\n", ".\n", "\n\n")  # what may follow a complete answer, besides an end token


_CLOSING = ".,;:!?"  # belongs to the sentence, not to the quote


@dataclass(frozen=True)
class Quote:
    """A stretch of one of the passages given."""

    passage: int  # its place in the prompt, from 0
    start: int  # characters of the passage's text: text == passage.text[start:end]
    end: int
    text: str
    score: float  # mean log-probability of its tokens and of the end after them
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
    reader: Reader, prompt: Prompt, *, longest: int = LONGEST, starts: int = STARTS
) -> Quote | None:
    """The likeliest answer among the words of the passages given.

    Parameters
    ----------
    prompt : Prompt
        Ends where the answer is to begin.
    longest : int
        Tokens of a quote, at most. Quotes begin and end with whole words.
    starts : int
        Only the places with the likeliest first tokens are looked at in full.

    Returns
    -------
    Quote, or None
        None if the passages hold no word at all.
    """
    tokenizer, model = reader.tokenizer, reader.model
    texts = [_Text.of(i, p.text, tokenizer) for i, p in enumerate(prompt.passages)]
    places = [(t, i) for t in texts for i in range(len(t.ids)) if t.begins_word(i)]
    if not places:
        return None
    longest = min(longest, model.config.max_length - len(prompt.ids))
    cache = model.new_cache(len(prompt.ids) + longest)
    first = _log_probabilities(model.logits(model(torch.tensor([prompt.ids]), cache=cache)[:, -1:]))
    first = first[0, 0]  # (V,)
    places.sort(key=lambda place: -float(first[place[0].ids[place[1]]]))
    places = places[:starts]  # equal ones: in the order of the text, as sorting is stable

    rows = [text.ids[start : start + longest] for text, start in places]
    padded = torch.tensor([row + [0] * (longest - len(row)) for row in rows])  # (R, L)
    states = model(padded, cache=cache.repeated(len(rows)))
    after = _log_probabilities(model.logits(states))  # (R, L, V): what follows each token
    ends = sorted(_end_ids(tokenizer) | set(model.config.eos_ids))
    end = after[:, :, ends].logsumexp(dim=-1)  # (R, L)

    best: Quote | None = None
    for (text, start), row, following, stop in zip(places, rows, after, end, strict=True):
        steps = [float(first[row[0]])]
        steps += [float(following[n - 1, row[n]]) for n in range(1, len(row))]
        for n in range(1, len(row) + 1):
            score = (sum(steps[:n]) + float(stop[n - 1])) / (n + 1)
            if not text.ends_word(start + n - 1) or (best is not None and score <= best.score):
                continue
            place = _place(text, start, start + n - 1, prompt.passages[text.passage].text)
            if place is not None:
                words = prompt.passages[text.passage].text[slice(*place)]
                probabilities = torch.tensor(steps[:n]).exp().tolist()
                best = Quote(text.passage, *place, words, score, row[:n], probabilities)
    return best


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
