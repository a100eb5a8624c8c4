"""Retrieval-augmented generation: retrieve, read, and cite or abstain.

Lewis et al. 2020 (arXiv:2005.11401) gave the name: a retriever finds passages in a collection that
can change, and a generator reads them with the question. The answer comes from the passages, so
it is as current as they are, and it can say where it comes from.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from minirag.errors import UsageError
from minirag.rag.citations import Citation, cite
from minirag.rag.prompt import QUOTED, SENTENCE, UNASKED, Instruction, Prompt, build_prompt
from minirag.rag.quoting import best_quote
from minirag.rag.reader import Reader
from minirag.rag.sentences import nearest_sentence
from minirag.retrieval.retriever import Hit, Retriever
from minirag.text.tokenizer import Tokenizer
from minirag.transformer.generation import Generation, Sampling, stream
from minirag.transformer.models import Decoder, EncoderDecoder


@dataclass(frozen=True)
class Timings:
    """Seconds of each part."""

    retrieve: float
    read: float = 0.0  # from the prompt to the last token
    first_token: float = 0.0  # of these, until the first token


@dataclass(frozen=True)
class Answer:
    """What the reader wrote, and what it stands on."""

    question: str
    text: str
    citations: list[Citation]
    hits: list[Hit]  # everything retrieved, best first
    read: list[Hit]  # those of which the prompt shows something, in its order
    prompt: Prompt
    generation: Generation
    invalid_citations: list[int]  # markers of passages that were not given
    timings: Timings
    abstained: bool = field(default=False, init=False)


@dataclass(frozen=True)
class Abstention:
    """No passage is near enough to the question: nothing is generated."""

    question: str
    hits: list[Hit]
    best_score: float | None  # None: nothing was found
    threshold: float
    timings: Timings
    abstained: bool = field(default=True, init=False)

    @property
    def text(self) -> str:
        """The abstention as a sentence."""
        if self.best_score is None:
            # Vectors find whatever there is; words find only what shares one.
            return (
                "No passage shares a word with the question, or there are no passages at all: "
                "there is nothing to answer from."
            )
        return (
            "The documents don't seem to answer this: the nearest passage's similarity is "
            f"{self.best_score:.2f}, and below {self.threshold:.2f} an answer would be a guess."
        )


@dataclass(frozen=True)
class Unmentioned(Abstention):
    """No passage shares enough rare words with the question: nothing is read."""

    shared: float  # of the best passage: see Hit.shared
    least: float

    @property
    def text(self) -> str:
        """The abstention as a sentence."""
        return (
            "The documents don't seem to mention what this is about: the best passage shares few "
            f"rare words with the question ({self.shared:.2f}), and below {self.least:.2f} an "
            "answer would be about something else."
        )


# Greedy: the same question, the same answer. Small models fall into circles; one has begun where
# twelve tokens come a second time.
WRITING = Sampling(max_new_tokens=96, repeat=12)


@dataclass(frozen=True)
class Settings:
    """How a question is answered."""

    k: int = 4  # passages retrieved
    threshold: float = -1.0  # least cosine of the nearest passage; see minirag.rag.threshold
    # Least share of the question's rare words in a passage that is read (Hit.shared): who is asked
    # about one thing and reads of another like it takes the other's answer.
    least_shared: float = 0.0
    instruction: Instruction = SENTENCE
    sampling: Sampling = WRITING
    quote: bool = False  # answer with words of the passages only, instead of writing
    # Readers of our own refuse where refusing has this probability or more; None: where no other
    # beginning of an answer is likelier. See minirag.training.refusing.
    refuse_from: float | None = None

    def __post_init__(self) -> None:
        if self.k < 1:
            raise UsageError(f"-k is {self.k}: at least one passage must be retrieved.")


class AnyReader(Protocol):
    """What whoever asks may want to know of a reader, whichever kind it is."""

    @property
    def name(self) -> str:
        """The model's name."""

    @property
    def fingerprint(self) -> str:
        """Differs between models."""

    @property
    def model(self) -> Decoder | EncoderDecoder:
        """Its weights."""

    @property
    def tokenizer(self) -> Tokenizer:
        """Its own tokens."""


class Answering(Protocol):
    """Anything that answers questions from passages or abstains: this pipeline, or another."""

    settings: Settings

    @property
    def reader(self) -> AnyReader:
        """Who writes the answers."""

    def ask(
        self, question: str, on_text: Callable[[str], None] | None = None
    ) -> Answer | Abstention:
        """See :meth:`Pipeline.ask`."""


class Pipeline:
    """A retriever and a reader, put together."""

    def __init__(
        self, retriever: Retriever, reader: Reader, settings: Settings | None = None
    ) -> None:
        self.retriever, self.reader = retriever, reader
        self.settings = settings or Settings()

    def ask(
        self, question: str, on_text: Callable[[str], None] | None = None
    ) -> Answer | Abstention:
        """Answer from the collection as it is now, or abstain.

        Parameters
        ----------
        on_text : function, optional
            Given the answer piece by piece as it is written.

        Raises
        ------
        UsageError
            If the question is empty, or too long for the reader's context.
        """
        if not question.strip():
            raise UsageError("the question is empty: ask something, in quotation marks.")
        found = find(self.retriever, question, self.settings)
        if isinstance(found, Abstention):
            return found
        return self.read(question, found.hits, on_text, found.seconds)

    def read(
        self,
        question: str,
        hits: Sequence[Hit],
        on_text: Callable[[str], None] | None = None,
        retrieve_seconds: float = 0.0,
    ) -> Answer:
        """Answer from these passages: the second half of :meth:`ask`, for any retrieval."""
        reader, sampling = self.reader, self.settings.sampling
        given, source = [hit.passage for hit in hits], 0
        if self.settings.quote and given:  # a few words are to be chosen: first, in which sentence
            source, sentence = nearest_sentence(question, given)
            given = [sentence]
        prompt = build_prompt(
            question,
            given,
            reader.tokenizer,
            context=reader.context,
            reserve=sampling.max_new_tokens,
            instruction=QUOTED if self.settings.quote else self.settings.instruction,
        )
        read = list(hits[source : source + len(prompt.passages)])  # quoting, one or none
        began = time.perf_counter()
        first = 0.0
        generation = Generation()

        def say(piece: str) -> None:
            nonlocal first
            first = first or time.perf_counter() - began
            if on_text is not None:
                on_text(piece)

        invalid: list[int] = []
        if self.settings.quote:
            citations = self._quote(prompt, generation, hits, source)
            text = generation.text
            say(text)
        else:
            for piece in stream(reader.model, prompt.ids, reader.tokenizer, sampling, generation):
                say(piece)
            numbered = self.settings.instruction.numbered
            scores = [hit.score for hit in read]
            cited = cite(generation.text, prompt.passages, scores, numbered=numbered)
            text, citations, invalid = cited.text, cited.citations, cited.invalid
        seconds = time.perf_counter() - began
        return Answer(
            question=question,
            text=text,
            citations=citations,
            hits=list(hits),
            read=read,
            prompt=prompt,
            generation=generation,
            invalid_citations=invalid,
            timings=Timings(retrieve_seconds, seconds, first),
        )

    def _quote(
        self, prompt: Prompt, generation: Generation, hits: Sequence[Hit], source: int
    ) -> list[Citation]:
        """Answer with the likeliest words of a sentence, which stands in hit number ``source``."""
        generation.stopped_by = "end"
        blank = build_prompt(
            "",
            prompt.passages,
            self.reader.tokenizer,
            context=self.reader.context,
            reserve=self.settings.sampling.max_new_tokens,
            instruction=UNASKED,
        )
        quote = best_quote(self.reader, prompt, blank)
        if quote is None:  # nothing given, or nothing with a word in it
            return []
        generation.ids, generation.probabilities = quote.ids, quote.probabilities
        generation.text = quote.text
        hit, sentence = hits[source], prompt.passages[0]
        before = sentence.start - hit.passage.start
        place = (before + quote.start, before + quote.end)
        return [Citation(source + 1, hit.passage, hit.score, 1.0, False, place)]


def nearness(hit: Hit) -> float:
    """How near a passage is to the question, whatever it was ranked by."""
    return hit.score if hit.similarity is None else hit.similarity


def worth_reading(hits: Sequence[Hit], least_shared: float) -> list[Hit]:
    """Those that share enough rare words with the question, or whose words were not counted."""
    return [hit for hit in hits if hit.shared is None or hit.shared >= least_shared]


@dataclass(frozen=True)
class Found:
    """The passages that are worth reading, best first, and the seconds that finding them took."""

    hits: list[Hit]
    seconds: float


def find(retriever: Retriever, question: str, settings: Settings) -> Found | Abstention:
    """Search, and abstain where nothing is near enough or worth reading."""
    began = time.perf_counter()
    hits = retriever.search(question, settings.k)
    seconds = time.perf_counter() - began
    best, least = max(map(nearness, hits), default=None), settings.threshold
    if best is None or best < least:
        return Abstention(question, hits, best, least, Timings(seconds))
    if worth := worth_reading(hits, settings.least_shared):
        return Found(worth, seconds)
    shared = max(hit.shared or 0.0 for hit in hits)
    return Unmentioned(question, hits, best, least, Timings(seconds), shared, settings.least_shared)
