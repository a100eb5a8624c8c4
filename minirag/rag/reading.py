"""RAG with a reader of our own: it reads the format that it was trained on, copies, and refuses.

:class:`minirag.rag.pipeline.Pipeline` is for chat models, which are told in words what to do. The
laboratory's readers were trained to do one thing: to copy the answer out of the passages, or to say
that they don't hold it. So there is no instruction, nothing to sample, and abstaining needs no
threshold: a refusal is one of the reader's answers, though it can be asked to refuse sooner. What
comes out is the same, so that a conversation and the command line take either pipeline.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from minirag.errors import CheckpointError, UsageError
from minirag.rag.citations import Citation, cite
from minirag.rag.pipeline import Abstention, Answer, Settings, Timings, find, nearness
from minirag.rag.prompt import Prompt
from minirag.retrieval.retriever import Hit, Retriever
from minirag.text.documents import Passage
from minirag.text.reading_format import SPECIAL_TOKENS, read_answer
from minirag.text.tokenizer import Tokenizer
from minirag.training.evaluate_reading import (
    ANSWERS,
    answering,
    encoded_prompts,
    write_answers,
)
from minirag.training.weights import shipped_or_other
from minirag.transformer import checkpoints
from minirag.transformer.hub import locate
from minirag.transformer.models import Decoder, EncoderDecoder


@dataclass(frozen=True)
class TrainedReader:
    """A reader of our own, GPT-like or BART-like, with what is needed to write prompts for it."""

    model: Decoder | EncoderDecoder
    tokenizer: Tokenizer
    name: str
    fingerprint: str

    @property
    def context(self) -> int:
        """Tokens that are read together: prompt and answer; of a BART-like one, each passage."""
        return self.model.config.max_length

    @classmethod
    def load(cls, name_or_path: str | Path) -> TrainedReader:
        """Load a shipped reader by name, or one from its directory.

        Raises
        ------
        ModelUnavailable
            If there is neither.
        CheckpointError
            If the model is an encoder, or was not trained on the laboratory's reading format.
        """
        files = locate(shipped_or_other(str(name_or_path)))
        model = checkpoints.load(files.directory)
        if not isinstance(model, Decoder | EncoderDecoder):
            raise CheckpointError(
                f"{files.name} is an encoder: it gives vectors, no answers. Give a reader that "
                "`minirag pretrain` or `minirag finetune` made."
            )
        tokenizer = Tokenizer.load(files.directory)
        if any(tokenizer.id_of(token) is None for token in SPECIAL_TOKENS):
            raise CheckpointError(
                f"{files.name} does not know the laboratory's reading format: give a reader that "
                "`minirag pretrain` or `minirag finetune` made, or ask it about --docs."
            )
        return cls(model, tokenizer, files.name, files.fingerprint)


@dataclass(frozen=True)
class Refusal(Abstention):
    """The reader has read the passages and says that they don't answer the question."""

    probability: float  # that the reader gave to refusing, where the answer begins

    @property
    def text(self) -> str:
        """The refusal as a sentence."""
        if not self.hits:
            return "The model says that it doesn't know; it was given no passage to read."
        return "The documents don't say: the model read the nearest passages and refuses to answer."


class ReadingPipeline:
    """A retriever and a reader of our own, put together.

    Parameters
    ----------
    retriever : Retriever, optional
        None: no passages, the question is asked closed book.
    settings : Settings
        ``k``, ``threshold``, ``least_shared`` and ``refuse_from`` alone count; our readers write in
        one way.
    """

    def __init__(
        self, retriever: Retriever | None, reader: TrainedReader, settings: Settings
    ) -> None:
        self.retriever, self.reader, self.settings = retriever, reader, settings

    def ask(
        self, question: str, on_text: Callable[[str], None] | None = None
    ) -> Answer | Abstention:
        """Answer from the collection as it is now, or abstain.

        Parameters
        ----------
        on_text : function, optional
            Given the answer, which comes in one piece.

        Raises
        ------
        UsageError
            If the question is empty, or too long for the reader's context.
        """
        if not question.strip():
            raise UsageError("the question is empty: ask something, in quotation marks.")
        if self.retriever is None:
            return self._read(question, [], on_text, Timings(0.0))
        found = find(self.retriever, question, self.settings)
        if isinstance(found, Abstention):
            return found
        return self._read(question, found.hits, on_text, Timings(found.seconds))

    def _read(
        self,
        question: str,
        hits: Sequence[Hit],
        on_text: Callable[[str], None] | None,
        retrieved: Timings,
    ) -> Answer | Abstention:
        reader, began = self.reader, time.perf_counter()
        prompt, parts = _prompt(reader, question, [hit.passage for hit in hits])
        how = answering(reader.tokenizer, self.settings.refuse_from)
        (generation,) = write_answers(reader.model, [parts], how)
        text = read_answer(reader.tokenizer, generation.ids)
        timings = Timings(retrieved.retrieve, read := time.perf_counter() - began, read)
        if text is None:
            best = max(map(nearness, hits), default=None)
            sure = generation.probabilities[0] if generation.probabilities else 0.0
            return Refusal(question, list(hits), best, self.settings.threshold, timings, sure)
        generation.text = text
        if on_text is not None:
            on_text(text)
        given = list(hits[: len(prompt.passages)])
        return Answer(
            question=question,
            text=text,
            citations=where_it_stands(text, prompt.passages, [hit.score for hit in given]),
            hits=list(hits),
            read=given,
            prompt=prompt,
            generation=generation,
            invalid_citations=[],
            timings=timings,
        )


def where_it_stands(
    answer: str, passages: Sequence[Passage], scores: Sequence[float]
) -> list[Citation]:
    """The passages that hold an answer word for word; if there is none, those with its words."""
    # no word may go on: "5 mg" does not stand in "45 mg"
    whole = re.compile(rf"(?<!\w){re.escape(answer)}(?!\w)")
    found = [(n, passage, whole.search(passage.text)) for n, passage in enumerate(passages)]
    return [
        Citation(n + 1, passage, scores[n], 1.0, False, place.span())
        for n, passage, place in found
        if place is not None
    ] or cite(answer, passages, scores, numbered=False).citations


def _prompt(
    reader: TrainedReader, question: str, passages: Sequence[Passage]
) -> tuple[Prompt, list[list[int]]]:
    """What the reader reads, and its parts; whole passages are left out where it gets too long."""
    model, tokenizer = reader.model, reader.tokenizer
    apart = isinstance(model, EncoderDecoder)  # every passage, and the answer, has its own context
    reserve = 0 if apart else ANSWERS.max_new_tokens

    def encoded(given: Sequence[Passage]) -> list[list[int]]:
        return encoded_prompts(model, tokenizer, [([p.text for p in given], question)])[0]

    n_question, room = len(encoded([])[0]), reader.context - reserve
    if n_question > room:
        raise UsageError(
            f"the question has {n_question} tokens, and {reader.name} reads {room} beside the "
            "answer: ask a shorter question."
        )
    # Markers are tokens of their own, so that lengths add up, and each passage is measured once.
    given: list[Passage] = []
    spans: list[tuple[int, int]] = []
    used = 0
    for passage in passages:
        end = used + len(encoded([passage])[0]) - n_question
        if n_question + end > room:
            break
        given.append(passage)
        if not apart:
            spans.append((used, end))
            used = end
    parts = encoded(given)
    prompt = Prompt(
        text="".join(tokenizer.decode(part, skip_special=False) for part in parts),
        ids=[id for part in parts for id in part],
        passages=given,
        dropped=list(passages[len(given) :]),
        spans=spans,
        context=reader.context,
        reserved=reserve,
    )
    return prompt, parts
