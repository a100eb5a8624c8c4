"""The arms on the slices: the same questions to every arm, one outcome per arm and question.

What is compared is what stands in the documents and in the weights; all else (questions, documents,
retriever, number of passages, decoding) is the same for all arms of a run.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from tqdm import tqdm

from minirag.combination.arms import Arm, ReaderName
from minirag.combination.evidence import evidence_for, found_documents
from minirag.corpus.questions import Question, ReadingExercise
from minirag.corpus.slices import SAME_IN_ALL_WORLDS, SLICES, SliceQuestion
from minirag.intervals import Interval, clustered_bootstrap, clustered_share
from minirag.metrics import Language, exact_match, token_f1
from minirag.retrieval.retriever import BatchRetriever
from minirag.text.tokenizer import Tokenizer
from minirag.training.evaluate_reading import (
    ANSWERS,
    Answered,
    answer_exercises,
    encoded_prompts,
    prompts_of,
)
from minirag.transformer.models import Decoder, Model

# Passages that a reader is given: as few as show both versions of a document that was revised.
# Each passage more costs right answers: see lessons/results/development.json.
PASSAGES = 2
# Least share of a question's rare words in a passage that a reader is given: it keeps away hardly
# any that answers and most others, so that a reader is seldom tempted; see development.json, too.
LEAST_SHARED = 0.6
TIMED = 10  # questions asked one by one, for the time of an answer

Measure = Literal["right", "f1"]


@dataclass(frozen=True)
class Outcome:
    """What an arm made of a question."""

    slice: str
    question: str
    about: str  # the fact that is asked for, whatever the language
    expected: str | None
    answer: str | None  # None: refused
    right: bool  # exact match, or a refusal where there is nothing to find
    f1: float
    stale: bool  # the answer as it was before a revision
    given: tuple[str, ...]  # ids of the documents that the reader got, as it had room for them
    golden_given: bool


@dataclass(frozen=True)
class ArmResult:
    """One arm on all slices, in one world."""

    arm: Arm
    seed: int
    outcomes: tuple[Outcome, ...]
    seconds: float  # per answer, asked one by one, what is found included; the median
    tokens: float  # read per answer, on average

    def of(self, slice: str) -> list[Outcome]:
        """The outcomes of one slice."""
        return [outcome for outcome in self.outcomes if outcome.slice == slice]

    def as_json(self) -> dict[str, Any]:
        """Plain values, every outcome included."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> ArmResult:
        """Take up what :meth:`as_json` gave."""
        outcomes = tuple(
            Outcome(**{**outcome, "given": tuple(outcome["given"])})
            for outcome in values["outcomes"]
        )
        return cls(**{**values, "arm": Arm(**values["arm"]), "outcomes": outcomes})


def pooled(results: Iterable[ArmResult]) -> list[ArmResult]:
    """One result for each arm and seed: the outcomes of several (of two languages) together."""
    groups: dict[tuple[Arm, int], list[ArmResult]] = {}
    for result in results:
        groups.setdefault((result.arm, result.seed), []).append(result)
    return [
        replace(
            some[0],
            outcomes=tuple(outcome for result in some for outcome in result.outcomes),
            seconds=statistics.fmean(result.seconds for result in some),
            tokens=statistics.fmean(result.tokens for result in some),
        )
        for some in groups.values()
    ]


@dataclass
class Readers:
    """The models that the arms answer with; all have one tokenizer.

    An answer is kept: what a reader is asked again, of the same passages, it need not read again.
    """

    tokenizer: Tokenizer
    models: dict[ReaderName, Model] = field(default_factory=dict)
    _kept: dict[tuple[ReaderName, ReadingExercise], Answered] = field(
        default_factory=dict, init=False, repr=False
    )

    def answer(self, name: ReaderName, exercises: Sequence[ReadingExercise]) -> list[Answered]:
        """One reader's greedy answers."""
        new = [e for e in dict.fromkeys(exercises) if (name, e) not in self._kept]
        for answered in answer_exercises(self.models[name], self.tokenizer, new):
            self._kept[name, answered.exercise] = answered
        return [self._kept[name, exercise] for exercise in exercises]


def run_arms(
    arms: Iterable[Arm],
    readers: Readers,
    questions: Mapping[str, Sequence[SliceQuestion]],
    retriever: BatchRetriever,
    texts: Mapping[str, str],
    *,
    k: int = PASSAGES,
    least_shared: float = LEAST_SHARED,
    seed: int = 0,
    timed: int = TIMED,
    progress: bool = False,
) -> list[ArmResult]:
    """Ask every arm the same questions.

    Parameters
    ----------
    questions : mapping of slice -> questions
        From :func:`minirag.corpus.slices.slice_questions`.
    retriever : BatchRetriever
        Over the documents in ``texts``.
    texts : mapping of id -> text
        The knowledge base's documents, as readers get them.
    least_shared : float
        What is found and shares less with the question (``Hit.shared``) is not read. Where nothing
        is left, an arm that reads refuses.
    timed : int
        How many questions are asked once more, one by one; with 0 the seconds are 0, too.
    """
    asked = [question for some in questions.values() for question in some]
    arms, found = list(arms), list[list[str]]([[]] * len(asked))
    if any(arm.evidence != "none" for arm in arms):
        found = found_documents(retriever, asked, k, least_shared=least_shared, progress=progress)
    results = []
    for arm in tqdm(arms, desc="asking", unit="arm", disable=not progress, leave=False):
        model = readers.models[arm.reader]
        kept = arm.evidence == "golden"
        given = [
            _that_fit(model, readers.tokenizer, question, ids, texts, kept=kept)
            for question, ids in zip(
                asked, evidence_for(arm.evidence, asked, found, texts, k, seed), strict=True
            )
        ]
        exercises = [
            _exercise(question, [texts[id] for id in ids])
            for question, ids in zip(asked, given, strict=True)
        ]
        # an arm that reads and has nothing to read does not ask its reader
        read = exercises if arm.evidence == "none" else [e for e in exercises if e.passages]
        answers = dict(zip(read, readers.answer(arm.reader, read), strict=True))
        answered = [answers.get(e, Answered(e, None)) for e in exercises]
        outcomes = [
            _outcome(question, ids, reply)
            for question, ids, reply in zip(asked, given, answered, strict=True)
        ]
        prompts = prompts_of(model, readers.tokenizer, read)
        one_by_one = read[:: max(1, len(read) // max(1, timed))][:timed]
        results.append(
            ArmResult(
                arm,
                seed,
                tuple(outcomes),
                _seconds_per_answer(
                    model,
                    readers.tokenizer,
                    one_by_one,
                    retriever if arm.evidence == "retrieved" else None,
                    k,
                ),
                sum(sum(map(len, parts)) for parts in prompts) / len(exercises),
            )
        )
    return results


def _that_fit(
    model: Model,
    tokenizer: Tokenizer,
    question: SliceQuestion,
    ids: tuple[str, ...],
    texts: Mapping[str, str],
    *,
    kept: bool,
) -> tuple[str, ...]:
    """The documents that the reader has room for: the last are left out, whole, if need be.

    With ``kept`` the one that answers the question is not left out before the others.
    """
    reserve = ANSWERS.max_new_tokens if isinstance(model, Decoder) else 0
    while ids:
        passages = [texts[id] for id in ids]
        (parts,) = encoded_prompts(model, tokenizer, [(passages, question.text)])
        if max(map(len, parts)) + reserve <= model.config.max_length:
            break
        others = [id for id in ids if not (kept and id == question.document)] or ids
        ids = tuple(id for id in ids if id != others[-1])
    return ids


def _exercise(question: SliceQuestion, passages: Sequence[str]) -> ReadingExercise:
    asked = Question(question.text, question.answer, None, question.attribute)
    return ReadingExercise(tuple(passages), (asked,), question.language, question.slice)


def _outcome(question: SliceQuestion, given: tuple[str, ...], reply: Answered) -> Outcome:
    language: Language = "es" if question.language == "es" else "en"
    if question.answer is None or reply.answer is None:
        f1 = float(question.answer is reply.answer)
    else:
        f1 = token_f1(reply.answer, [question.answer], language)
    return Outcome(
        question.slice,
        question.text,
        question.about,
        question.answer,
        reply.answer,
        reply.right,
        f1,
        question.stale is not None
        and reply.answer is not None
        and exact_match(reply.answer, [question.stale], language) == 1,
        given,
        question.document in given,
    )


def _seconds_per_answer(
    model: Model,
    tokenizer: Tokenizer,
    exercises: Sequence[ReadingExercise],
    retriever: BatchRetriever | None,
    k: int,
) -> float:
    """The median time from a question to its answer; passages that are found take their time."""
    seconds = []
    for exercise in exercises:
        start = time.perf_counter()
        if retriever is not None:
            retriever.search(exercise.questions[0].text, 2 * k)
        answer_exercises(model, tokenizer, [exercise])
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds) if seconds else 0.0


# ---------------------------------------------------------------------------------------- summaries


@dataclass(frozen=True)
class Scores:
    """One score for each question of each seed, and what the question is about."""

    runs: tuple[tuple[float, ...], ...]
    about: tuple[tuple[str, ...], ...]
    same_questions: bool  # in every seed

    @property
    def by_seed(self) -> tuple[float, ...]:
        """The mean of each seed."""
        return tuple(map(statistics.fmean, self.runs))

    def interval(self, seed: int = 0, n_resamples: int = 10_000) -> Interval:
        """The mean, with its 95 % interval."""
        return clustered_bootstrap(
            self.runs, seed, n_resamples, about=self.about, same_questions=self.same_questions
        )

    def share(self, seed: int = 0, n_resamples: int = 10_000) -> Interval:
        """The same for scores that are 0 or 1."""
        return clustered_share(
            self.runs, seed, n_resamples, about=self.about, same_questions=self.same_questions
        )

    def __add__(self, other: Scores) -> Scores:
        """The questions of both, seed by seed."""
        return Scores(
            tuple(one + two for one, two in zip(self.runs, other.runs, strict=True)),
            tuple(one + two for one, two in zip(self.about, other.about, strict=True)),
            self.same_questions and other.same_questions,
        )

    def __sub__(self, other: Scores) -> Scores:
        """Paired differences of two systems on the same questions."""
        runs = tuple(
            tuple(a - b for a, b in zip(one, two, strict=True))
            for one, two in zip(self.runs, other.runs, strict=True)
        )
        return replace(self, runs=runs)


def scores(results: Iterable[ArmResult], slice: str, measure: Measure = "right") -> Scores:
    """How one arm did on a slice, seed by seed."""
    runs = [result.of(slice) for result in results]
    return Scores(
        tuple(tuple(float(getattr(o, measure)) for o in run) for run in runs),
        tuple(tuple(o.about for o in run) for run in runs),
        slice in SAME_IN_ALL_WORLDS,
    )


@dataclass(frozen=True)
class Cell:
    """One arm on one slice, over all seeds."""

    arm: str
    slice: str
    n: int  # questions per seed
    right: Interval  # 95 % bootstrap: seeds are resampled, then questions
    f1: Interval
    refused: float
    stale: float
    by_seed: tuple[float, ...]  # exact match in each world
    f1_by_seed: tuple[float, ...]

    def as_json(self) -> dict[str, object]:
        """Plain values, rounded to four digits."""
        values = asdict(self)
        for key in ("right", "f1", "by_seed", "f1_by_seed"):
            values[key] = [round(x, 4) for x in values[key]]
        for key in ("refused", "stale"):
            values[key] = round(values[key], 4)
        return values


def summarize(
    results: Sequence[ArmResult], bootstrap_seed: int = 0, n_resamples: int = 10_000
) -> list[Cell]:
    """A cell for each arm and slice, both in the order of their first result."""
    cells = []
    for name in dict.fromkeys(result.arm.name for result in results):
        own = [result for result in results if result.arm.name == name]
        for slice in slices_of(own):
            runs = [result.of(slice) for result in own]
            if not all(runs):
                continue
            right, f1 = scores(own, slice, "right"), scores(own, slice, "f1")
            everything = [o for run in runs for o in run]
            cells.append(
                Cell(
                    name,
                    slice,
                    min(map(len, runs)),
                    right.share(bootstrap_seed, n_resamples),
                    f1.interval(bootstrap_seed, n_resamples),
                    statistics.fmean(o.answer is None for o in everything),
                    statistics.fmean(o.stale for o in everything),
                    right.by_seed,
                    f1.by_seed,
                )
            )
    return cells


def slices_of(results: Iterable[ArmResult]) -> list[str]:
    """The slices that were asked, the six first, then the others as they came."""
    asked = dict.fromkeys(o.slice for result in results for o in result.outcomes)
    return [s for s in SLICES if s in asked] + [s for s in asked if s not in SLICES]


def paired_scores(
    results: Sequence[ArmResult], one: str, other: str, slice: str, measure: Measure = "right"
) -> Scores:
    """One arm's score minus another's on each question of a slice, seed by seed."""
    first = [result for result in results if result.arm.name == one]
    second = [
        next(r for r in results if r.arm.name == other and r.seed == own.seed) for own in first
    ]
    return scores(first, slice, measure) - scores(second, slice, measure)


def as_table(cells: Sequence[Cell], measure: Measure = "right") -> str:
    """Arms down, slices across: a score with its interval, as Markdown."""
    slices = list(dict.fromkeys(cell.slice for cell in cells))
    lines = [
        "| | " + " | ".join(slices) + " |",
        "|---|" + "---|" * len(slices),
    ]
    by_place = {(cell.arm, cell.slice): cell for cell in cells}
    for arm in dict.fromkeys(cell.arm for cell in cells):
        row = []
        for slice in slices:
            cell = by_place.get((arm, slice))
            if cell is None:
                row.append("–")
            else:
                value, low, high = getattr(cell, measure)
                row.append(f"{value:.2f} [{low:.2f}, {high:.2f}]")
        lines.append(f"| {arm} | " + " | ".join(row) + " |")
    return "\n".join(lines)
