"""The one format in which the laboratory's readers meet passages, questions and answers.

Training, evaluation and RAG all write it through this file, so that a reader never meets a prompt
that it was not trained on::

    <|passage|> Mount Tor is 911 metres high.<|passage|> ...
    <|question|> How high is Mount Tor?<|answer|> 911 metres<|end|>
    <|question|> Who climbed it first?<|answer|><|unknown|><|end|>

(the line breaks are only here). Any number of passages may stand in front, and any number of
questions may follow. Without a passage a question is asked closed book. A passage without questions
is plain text. A question that the passages don't answer has an answer of its own, the token
``<|unknown|>``, so that refusing is one decision with one probability.

Every text follows its marker after a space: in a byte-level vocabulary " Tor" and "Tor" are
different tokens, and a name must look the same wherever it stands if it is to be copied.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from minirag.text.markers import without_markers

if TYPE_CHECKING:
    from minirag.text.tokenizer import Tokenizer

PAD = "<|pad|>"
END = "<|end|>"  # of an answer, or of a plain text
PASSAGE = "<|passage|>"
QUESTION = "<|question|>"
ANSWER = "<|answer|>"
UNKNOWN = "<|unknown|>"  # the answer to what the passages don't say

MASK = "<|mask|>"  # a gap; only the models that fill gaps know it

SPECIAL_TOKENS = (PAD, END, PASSAGE, QUESTION, ANSWER, UNKNOWN)


def _plain(text: str) -> str:
    """``text`` without anything that could pose as a marker, or white space at its ends."""
    return without_markers(text, (*SPECIAL_TOKENS, MASK)).strip()


def reading_prompt(passages: Iterable[str], question: str) -> str:
    """What a reader is given: it continues with the answer.

    Parameters
    ----------
    passages : texts, the order of which is kept; none: closed book
        Markers in them are taken out: a document can't pose as a question.
    """
    return _passages(passages) + _question(question)


def reading_example(passages: Iterable[str], questions: Iterable[tuple[str, str | None]]) -> str:
    """What a reader learns from: passages, then questions, each with its answer.

    Parameters
    ----------
    questions : pairs (question, answer)
        None as the answer: the passages don't say.
    """
    asked = "".join(_question(question) + answer_text(answer) for question, answer in questions)
    return _passages(passages) + (asked or END)


def reading_sources(passages: Sequence[str], questions: Sequence[str]) -> list[str]:
    """What the encoder of an encoder-decoder reads: every passage apart and alone.

    The decoder knows what is asked; it is given the questions. Fusion in the decoder (Izacard and
    Grave 2021) writes the question before every passage. Here that does harm: an exercise asks
    about several entities, so that every part would hold every name, and a decoder that looks for
    a name would find it in each of them. Without it a passage reads the same whatever is asked.

    Without passages the questions are what is read: closed book.
    """
    if not passages:
        return ["".join(f"{QUESTION} {_plain(question)}" for question in questions)]
    return [f"{PASSAGE} {_plain(passage)}" for passage in passages]


def framing_tokenizer(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer with a frame around every text, as an encoder's pretraining had it.

    A passage stands alone there between ``<|passage|>`` and ``<|end|>``. Whatever is read as a
    whole (a question to search with, a text to be classified) gets the same frame; it is also what
    CLS and last-token pooling read. A tokenizer that has a frame already (BERT's [CLS] and [SEP])
    stays as it is.

    Raises
    ------
    CheckpointError
        If the vocabulary has no such tokens.
    """
    return tokenizer if tokenizer.n_special else tokenizer.framed(PASSAGE, END)


def answer_text(answer: str | None) -> str:
    """The continuation that a reader should give, its end included."""
    return f"{UNKNOWN}{END}" if answer is None else f" {_plain(answer)}{END}"


def _passages(passages: Iterable[str]) -> str:
    return "".join(f"{PASSAGE} {_plain(passage)}" for passage in passages)


def _question(question: str) -> str:
    return f"{QUESTION} {_plain(question)}{ANSWER}"


def read_answer(tokenizer: Tokenizer, ids: Sequence[int]) -> str | None:
    """The answer in what a reader wrote after the prompt; None if it says that it doesn't know.

    An answer of nothing at all counts as not knowing.
    """
    if tokenizer.id_of(UNKNOWN) in ids:
        return None
    return tokenizer.decode(ids).strip() or None
