"""The arms on the slices: the same questions to every arm, one outcome per arm and question.

What is compared is what stands in the documents and in the weights; all else (questions, documents,
retriever, number of passages, decoding) is the same for all arms of a run.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from minirag.combination.arms import Arm, ReaderName
from minirag.combination.evidence import evidence_for, found_documents
from minirag.corpus.questions import Question, ReadingExercise
from minirag.corpus.slices import SLICES, SliceQuestion
from minirag.metrics import Interval, Language, clustered_bootstrap, token_f1
from minirag.retrieval.retriever import BatchRetriever
from minirag.text.reading_format import reading_prompt
from minirag.text.tokenizer import Tokenizer
from minirag.training.evaluate_reading import Answered, answer_exercises
from minirag.transformer.models import Model

PASSAGES = 3  # that a reader is given
_TIMED = 10  # questions asked one by one, for the time of an answer


@dataclass(frozen=True)
class Outcome:
    """What an arm made of a question."""

    slice: str
    question: str
    expected: str | None
    answer: str | None  # None: refused
    right: bool  # exact match, or a refusal where there is nothing to find
    f1: float
    stale: bool  # the answer as it was before a revision
    given: tuple[str, ...]  # ids of the documents that the reader got
    golden_given: bool


@dataclass(frozen=True)
class ArmResult:
    """One arm on all slices, in one world."""

    arm: Arm
    seed: int
    outcomes: tuple[Outcome, ...]
    seconds: float  # per answer, asked one by one; the median
    tokens: float  # read per answer, on average

    def of(self, slice: str) -> list[Outcome]:
        """The outcomes of one slice."""
        return [outcome for outcome in self.outcomes if outcome.slice == slice]


@dataclass
class Readers:
    """The models that the arms answer with; all have one tokenizer."""

    tokenizer: Tokenizer
    models: dict[ReaderName, Model] = field(default_factory=dict)


def run_arms(
    arms: Iterable[Arm],
    readers: Readers,
    questions: Mapping[str, Sequence[SliceQuestion]],
    retriever: BatchRetriever,
    texts: Mapping[str, str],
    *,
    k: int = PASSAGES,
    seed: int = 0,
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
    """
    asked = [question for some in questions.values() for question in some]
    found = found_documents(retriever, asked, k, progress=progress)
    results = []
    for arm in arms:
        given = evidence_for(arm.evidence, asked, found, texts, k, seed)
        exercises = [
            _exercise(question, [texts[id] for id in ids])
            for question, ids in zip(asked, given, strict=True)
        ]
        model = readers.models[arm.reader]
        answered = answer_exercises(model, readers.tokenizer, exercises)
        outcomes = [
            _outcome(question, ids, reply)
            for question, ids, reply in zip(asked, given, answered, strict=True)
        ]
        prompts = [reading_prompt(e.passages, e.questions[0].text) for e in exercises]
        lengths = map(len, readers.tokenizer.encode_batch(prompts, special=False))
        timed = exercises[:: max(1, len(exercises) // _TIMED)]
        results.append(
            ArmResult(
                arm,
                seed,
                tuple(outcomes),
                _seconds_per_answer(model, readers.tokenizer, timed),
                statistics.fmean(lengths),
            )
        )
    return results


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
        question.answer,
        reply.answer,
        reply.right,
        f1,
        question.stale is not None and reply.answer == question.stale,
        given,
        question.document in given,
    )


def _seconds_per_answer(
    model: Model, tokenizer: Tokenizer, exercises: Sequence[ReadingExercise]
) -> float:
    seconds = []
    for exercise in exercises:
        start = time.perf_counter()
        answer_exercises(model, tokenizer, [exercise])
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


# ---------------------------------------------------------------------------------------- summaries


@dataclass(frozen=True)
class Cell:
    """One arm on one slice, over all seeds."""

    arm: str
    slice: str
    n: int  # questions per seed
    right: Interval  # 95 % bootstrap: seeds are resampled, then questions
    f1: float
    refused: float
    stale: float
    by_seed: tuple[float, ...]  # exact match in each world

    def as_json(self) -> dict[str, object]:
        """Plain values, rounded to four digits."""
        values = asdict(self)
        values["right"] = [round(x, 4) for x in self.right]
        for key in ("f1", "refused", "stale"):
            values[key] = round(values[key], 4)
        values["by_seed"] = [round(x, 4) for x in self.by_seed]
        return values


def summarize(results: Sequence[ArmResult], bootstrap_seed: int = 0) -> list[Cell]:
    """A cell for each arm and slice, arms in the order of their first result."""
    cells = []
    for name in dict.fromkeys(result.arm.name for result in results):
        own = [result for result in results if result.arm.name == name]
        for slice in SLICES:
            runs = [result.of(slice) for result in own]
            if not all(runs):
                continue
            right = [[float(o.right) for o in run] for run in runs]
            everything = [o for run in runs for o in run]
            cells.append(
                Cell(
                    name,
                    slice,
                    min(map(len, runs)),
                    clustered_bootstrap(right, bootstrap_seed),
                    statistics.fmean(o.f1 for o in everything),
                    statistics.fmean(o.answer is None for o in everything),
                    statistics.fmean(o.stale for o in everything),
                    tuple(statistics.fmean(run) for run in right),
                )
            )
    return cells


def difference(
    results: Sequence[ArmResult], one: str, other: str, slice: str, bootstrap_seed: int = 0
) -> Interval:
    """Exact match of one arm minus that of another on a slice: paired by question, within seeds."""
    pairs = []
    for first in (r for r in results if r.arm.name == one):
        (second,) = (r for r in results if r.arm.name == other and r.seed == first.seed)
        pairs.append(
            [
                float(a.right) - float(b.right)
                for a, b in zip(first.of(slice), second.of(slice), strict=True)
            ]
        )
    return clustered_bootstrap(pairs, bootstrap_seed)


def as_table(cells: Sequence[Cell]) -> str:
    """Arms down, slices across: exact match with its interval, as Markdown."""
    slices = [slice for slice in SLICES if any(cell.slice == slice for cell in cells)]
    lines = [
        "| | " + " | ".join(slices) + " |",
        "|---|" + "---|" * len(slices),
    ]
    by_place = {(cell.arm, cell.slice): cell for cell in cells}
    for arm in dict.fromkeys(cell.arm for cell in cells):
        row = [
            f"{c.right.value:.2f} [{c.right.low:.2f}, {c.right.high:.2f}]"
            if (c := by_place.get((arm, slice)))
            else "–"
            for slice in slices
        ]
        lines.append(f"| {arm} | " + " | ".join(row) + " |")
    return "\n".join(lines)
