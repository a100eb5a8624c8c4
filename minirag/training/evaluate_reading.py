"""How well a model reads: exact match on worlds that no training saw, with intervals.

Every set comes from :mod:`minirag.corpus.exercises`' evaluation worlds: entities that were never
drawn in training, and (unless said otherwise) phrasings and question wordings held out from it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from tqdm import tqdm

from minirag.corpus.exercises import closed_book_set, reading_set, unanswerable_set
from minirag.corpus.grammar import LANGUAGES
from minirag.corpus.questions import ReadingExercise
from minirag.corpus.raft import domain_reading_set
from minirag.intervals import Interval, wilson_interval
from minirag.metrics import exact_match
from minirag.text.reading_format import UNKNOWN, read_answer, reading_prompt, reading_sources
from minirag.text.tokenizer import Tokenizer
from minirag.training.batches import pad_right
from minirag.training.pairs import fused_memory
from minirag.transformer.generation import Generation, Sampling, generate, generate_from
from minirag.transformer.models import Decoder, EncoderDecoder, Model

ANSWERS = Sampling(max_new_tokens=48)  # greedy; the longest answers have about 40 tokens


@dataclass(frozen=True)
class Answered:
    """A question, what the model was given, what it should have said and what it said."""

    exercise: ReadingExercise  # with exactly one question
    answer: str | None  # None: the model says that the passages don't say

    @property
    def right(self) -> bool:
        """Exact match (normalised), or a refusal where there is nothing to find."""
        gold = self.exercise.questions[0].answer
        if gold is None or self.answer is None:
            return gold is self.answer
        spanish = self.exercise.language == "es"
        return exact_match(self.answer, [gold], "es" if spanish else "en") == 1.0


def answering(tokenizer: Tokenizer, refuse_from: float | None = None) -> Sampling:
    """How answers are written: greedily, or with another readiness to refuse.

    Parameters
    ----------
    refuse_from : float, optional
        Refuse just where refusing has this probability or more (see
        :mod:`minirag.training.refusing`). Default: where refusing is likelier than any other
        beginning of an answer.
    """
    if refuse_from is None:
        return ANSWERS
    unknown = tokenizer.id_of(UNKNOWN)
    assert unknown is not None  # of a reader of the laboratory's format
    return dataclasses.replace(ANSWERS, gate=(unknown, refuse_from))


def answer_exercises(
    model: Model,
    tokenizer: Tokenizer,
    exercises: Iterable[ReadingExercise],
    batch_tokens: int = 16_384,
    *,
    bar: bool = False,
) -> list[Answered]:
    """The model's greedy answer to the first question of each exercise, in the given order.

    An encoder-decoder reads every passage apart.
    """
    exercises = list(exercises)
    prompts = prompts_of(model, tokenizer, exercises)
    written = write_in_batches(model, prompts, ANSWERS, batch_tokens, bar=bar)
    return [
        Answered(exercise, read_answer(tokenizer, generation.ids))
        for exercise, generation in zip(exercises, written, strict=True)
    ]


def prompts_of(
    model: Model, tokenizer: Tokenizer, exercises: Iterable[ReadingExercise]
) -> list[list[list[int]]]:
    """The :func:`encoded_prompts` of the first question of each exercise."""
    return encoded_prompts(model, tokenizer, [(e.passages, e.questions[0].text) for e in exercises])


def encoded_prompts(
    model: Model, tokenizer: Tokenizer, asked: Iterable[tuple[Sequence[str], str]]
) -> list[list[list[int]]]:
    """Encode questions with their passages as the model reads them.

    Parameters
    ----------
    asked : pairs (passages, question)

    Returns
    -------
    The token ids of each question's parts: one text with everything, or, for an encoder-decoder,
    a text for each passage and, at the end, the question that the decoder begins with.
    """
    apart = isinstance(model, EncoderDecoder)
    texts = [
        [*reading_sources(passages, [question]), reading_prompt([], question)]
        if apart
        else [reading_prompt(passages, question)]
        for passages, question in asked
    ]
    flat = tokenizer.encode_batch([t for parts in texts for t in parts], special=False)
    encoded = iter(flat)
    return [[next(encoded) for _ in parts] for parts in texts]


def write_in_batches(
    model: Model,
    prompts: Sequence[Sequence[Sequence[int]]],
    sampling: Sampling,
    batch_tokens: int = 16_384,
    *,
    bar: bool = False,
) -> list[Generation]:
    """Write the answer to each of :func:`encoded_prompts`, those of like length together."""
    model.eval()
    written: dict[int, Generation] = {}
    lengths = [sum(map(len, parts)) for parts in prompts]
    with tqdm(
        desc="answering", total=len(prompts), unit="question", disable=not bar, leave=False
    ) as shown:
        for rows in _by_length(lengths, batch_tokens):
            together = write_answers(model, [prompts[row] for row in rows], sampling)
            written.update(zip(rows, together, strict=True))
            shown.update(len(rows))
    return [written[row] for row in range(len(prompts))]


@torch.inference_mode()
def write_answers(
    model: Model, prompts: Sequence[Sequence[Sequence[int]]], sampling: Sampling = ANSWERS
) -> list[Generation]:
    """Write the answer to each of :func:`encoded_prompts`, all in one batch; greedy by default."""
    if isinstance(model, Decoder):
        return generate(model, [prompt for (prompt,) in prompts], sampling)
    assert isinstance(model, EncoderDecoder)  # an encoder writes nothing
    parts = [part for parts in prompts for part in parts[:-1]]
    sources, keep = pad_right(parts, model.config.pad_id or 0, model.config.max_length)
    sources, keep = sources.to(model.device), keep.to(model.device)
    memory, memory_keep = fused_memory(model, sources, keep, [len(p) - 1 for p in prompts])
    return generate_from(model, memory, memory_keep, sampling, [p[-1] for p in prompts])


def _by_length(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Row numbers in groups of like length: almost nothing is padding."""
    rows: list[int] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        if rows and (len(rows) + 1) * lengths[row] > batch_tokens:
            yield rows
            rows = []
        rows.append(row)
    if rows:
        yield rows


@dataclass(frozen=True)
class ReadingTest:
    """A set of questions under a name."""

    name: str  # "en/3 passages"
    exercises: list[ReadingExercise]


def validation_tests(seed: int, n: int, languages: Sequence[str] = LANGUAGES) -> list[ReadingTest]:
    """The few tests that a run is watched by: one and three passages in each language."""
    return [
        ReadingTest(f"{language}/{_passages(k)}", reading_set(seed, language, n, k))
        for language in languages
        for k in (1, 3)
    ]


def reading_tests(seed: int, n: int, languages: Sequence[str] = LANGUAGES) -> list[ReadingTest]:
    """The tests of a finished base model, in each language.

    Parameters
    ----------
    seed : int
        Another seed, other worlds; development and reported scores use different ones.
    n : int
        Questions a test; the well-known facts are asked for once each, however many there are.
    """
    tests = []
    for language in languages:
        for k in (1, 2, 3, 4):
            name = f"{language}/{_passages(k)}"
            tests.append(ReadingTest(name, reading_set(seed, language, n, k)))
        for k in (1, 3, 4):
            seen = reading_set(seed, language, n, k, held_out=False)
            tests.append(ReadingTest(f"{language}/{_passages(k)}, phrasings of training", seen))
        for k in (1, 3):
            unanswerable = unanswerable_set(seed, language, n, k)
            tests.append(ReadingTest(f"{language}/unanswerable, {_passages(k)}", unanswerable))
            seen = unanswerable_set(seed, language, n, k, held_out=False)
            name = f"{language}/unanswerable, {_passages(k)}, phrasings of training"
            tests.append(ReadingTest(name, seen))
        nonce = reading_set(seed, language, n, 1, nonce=1.0)
        tests.append(ReadingTest(f"{language}/made-up attributes, 1 passage", nonce))
        everyday = reading_set(seed, language, n, 1, everyday=1.0)
        tests.append(ReadingTest(f"{language}/everyday attributes, 1 passage", everyday))
        known = closed_book_set(language)
        tests.append(ReadingTest(f"{language}/well known, no passage", known))
        seen = closed_book_set(language, held_out=False)
        name = f"{language}/well known, no passage, phrasings of training"
        tests.append(ReadingTest(name, seen))
        for domain in ("medicine", "law"):
            foreign = domain_reading_set(domain, seed, language, n)
            tests.append(ReadingTest(f"{language}/{domain}, 1 passage", foreign))
            alone = [dataclasses.replace(exercise, passages=()) for exercise in foreign]
            tests.append(ReadingTest(f"{language}/{domain}, no passage", alone))
    return tests


def _passages(k: int) -> str:
    return f"{k} passage{'s' if k > 1 else ''}"


@dataclass(frozen=True)
class Score:
    """What came out of one test."""

    name: str
    n: int
    right: Interval  # share answered rightly, 95 % Wilson interval
    refused: Interval  # share answered with "not in the passages"

    def as_json(self) -> dict[str, object]:
        """Plain values, rounded to four digits."""
        return {
            "name": self.name,
            "n": self.n,
            "right": [round(x, 4) for x in self.right],
            "refused": [round(x, 4) for x in self.refused],
        }


def score(name: str, answered: Sequence[Answered]) -> Score:
    """Count what is right and what was refused."""
    n = len(answered)
    return Score(
        name,
        n,
        wilson_interval(sum(a.right for a in answered), n),
        wilson_interval(sum(a.answer is None for a in answered), n),
    )


def evaluate_reading(
    model: Model, tokenizer: Tokenizer, tests: Iterable[ReadingTest]
) -> list[Score]:
    """Put every test to the model."""
    return [score(test.name, answer_exercises(model, tokenizer, test.exercises)) for test in tests]
