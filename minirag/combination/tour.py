"""The tour: the same questions to five arms, a guideline that changes, and what nobody can answer.

It tells its parts in the order in which a person should read them, each as soon as it is there: the
documents are not even opened before the first arm has answered from memory. Nothing in it is chosen
by how well it comes out: the questions are those that a seed draws from the slices.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from tqdm import tqdm

from minirag.combination.arms import ARMS, Arm, ReaderName
from minirag.combination.collection import collection_documents, texts_of
from minirag.combination.compare import Readers, run_arms
from minirag.combination.live import Training, answering
from minirag.combination.tour_texts import Chapter, Texts, texts_in
from minirag.corpus.questions import Question, ReadingExercise
from minirag.corpus.slices import SLICES, SliceQuestion, slice_questions
from minirag.corpus.world import World
from minirag.errors import UsageError
from minirag.intervals import Interval, wilson_interval
from minirag.rag.pipeline import Abstention, Answer, Unmentioned
from minirag.rag.reading import TrainedReader
from minirag.retrieval.knowledge_base import KnowledgeBase
from minirag.text.documents import Document
from minirag.training.evaluate_reading import Answered

QUESTIONS = 20  # of each slice, in the table


@dataclass(frozen=True)
class Cast:
    """Who takes part in the tour.

    Attributes
    ----------
    readers : mapping of reader to TrainedReader
        "base", "closed-book" and "raft".
    open_collection : function
        Called once, when passages are wanted for the first time. Gives the world's collection as it
        stands after the cut-off; the tour changes it, and leaves it as it was.
    training : Training, optional
        What the closed-book reader's fine-tuning cost.
    """

    world: World
    language: str
    readers: Mapping[ReaderName, TrainedReader]
    open_collection: Callable[[], KnowledgeBase]
    training: Training | None = None


# ----------------------------------------------------------------------------- the parts of a tour


@dataclass(frozen=True)
class Begun:
    """A chapter begins."""

    number: int
    title: str
    introduction: str


@dataclass(frozen=True)
class Asked:
    """A question is put to all arms."""

    question: str
    kind: str  # what is special about it
    right: str | None  # None: to refuse


@dataclass(frozen=True)
class Reply:
    """What one arm answers."""

    arm: str
    answer: str | None  # None: refused
    right: bool
    stale: bool  # the answer as it was before the change
    given: tuple[str, ...]  # titles of the passages that were read
    sources: tuple[str, ...]  # those of them that hold the answer
    seconds: float
    unmentioned: bool  # nothing was found that shares enough words, so nothing was read


@dataclass(frozen=True)
class Changed:
    """A document is replaced."""

    document: str
    title: str
    before: str
    after: str
    milliseconds: float
    training_seconds: float | None  # of the model that learned the document as it was


@dataclass(frozen=True)
class Cell:
    """One arm on one slice."""

    arm: str
    slice: str
    n: int
    right: Interval  # 95 % Wilson interval


@dataclass(frozen=True)
class Table:
    """All arms on all slices."""

    cells: tuple[Cell, ...]
    seconds: float


@dataclass(frozen=True)
class Noticed:
    """A chapter ends: what was to be seen in it, and what explains it."""

    text: str
    read_on: str  # a file of minirag's


Part = Begun | Asked | Reply | Changed | Table | Noticed


def tour(
    cast: Cast, *, seed: int = 0, n: int = QUESTIONS, progress: bool = False
) -> Iterator[Part]:
    """Tell the tour part by part.

    Parameters
    ----------
    seed : int
        Which questions are drawn.
    n : int
        Questions of each slice, in the table.
    progress : bool
        Show a bar on stderr while the table is computed.

    Raises
    ------
    UsageError
        If the world is too small, or none of its guidelines changes.
    """
    said = texts_in(cast.language)
    questions = slice_questions(cast.world, cast.language, n, draw=seed)
    guideline = _about_a_guideline(cast.world, cast.language, seed)
    before = replace(guideline, answer=guideline.stale, stale=None)
    arms = _Arms(cast, guideline)
    first = [(questions[slice][0], said.kinds[slice]) for slice in ("stable", "unseen")]
    nobody_knows = _left_out(cast.world, cast.language, seed)

    yield _begin(1, said.five_ways)
    for question, kind in (*first, (before, said.kinds["before"])):
        yield from arms.ask(question, kind, said)
    yield Noticed(said.five_ways.notice, said.five_ways.read_on)

    yield _begin(2, said.change)
    yield (changed := arms.change())
    for question, kind in ((guideline, said.kinds["after"]), *first):
        yield from arms.ask(question, kind, said)
    cost = said.relearning_unknown
    if cast.training is not None:
        cost = said.relearning.format(
            model=cast.training.name, seconds=f"{cast.training.seconds:,.0f}"
        )
    noticed = said.change.notice.format(milliseconds=f"{changed.milliseconds:.0f}", relearning=cost)
    yield Noticed(noticed, said.change.read_on)

    yield _begin(3, said.unanswerable)
    yield from arms.ask(nobody_knows, said.kinds["unanswerable"], said)
    yield Noticed(said.unanswerable.notice, said.unanswerable.read_on)

    yield _begin(4, said.table, n=n)
    yield arms.table(questions, said, progress)
    yield Noticed(said.table.notice.format(n=n), said.table.read_on)


def _begin(number: int, chapter: Chapter, **values: int) -> Begun:
    return Begun(number, chapter.title, chapter.introduction.format(**values))


def _about_a_guideline(world: World, language: str, seed: int) -> SliceQuestion:
    """The first question about something in a guideline that has changed."""
    kinds = {record.id: record.entity.kind for record in world.records}
    drawn = slice_questions(world, language, QUESTIONS, slices=("updated",), draw=seed)["updated"]
    for question in drawn:
        if question.document is not None and kinds[question.document] == "guideline":
            return question
    raise UsageError(
        f"none of {QUESTIONS} questions about what has changed is about a guideline: take another "
        "seed."
    )


def _left_out(world: World, language: str, seed: int) -> SliceQuestion:
    """The first question about an entity whose document is there and does not say it.

    About one of which no document speaks, hardly a passage is worth reading: that is too easy.
    """
    drawn = slice_questions(world, language, QUESTIONS, slices=("unanswerable",), draw=seed)
    asked = drawn["unanswerable"]
    names = [
        getattr(record.entity.name, language).text.lower() for record in world.group("unanswerable")
    ]
    return next((q for q in asked if any(name in q.text.lower() for name in names)), asked[0])


# --------------------------------------------------------------------------------------- the arms


class _Arms:
    """The five arms over a collection in which a guideline is yet to change."""

    def __init__(self, cast: Cast, guideline: SliceQuestion) -> None:
        self.cast, self.guideline = cast, guideline

    @cached_property
    def base(self) -> KnowledgeBase:
        """The collection, opened when it is needed, with the guideline as it was."""
        base = self.cast.open_collection()
        base.upsert([_document(self.cast, self.guideline, "before")])
        base.hybrid()  # counts the words
        return base

    def change(self) -> Changed:
        """Replace the guideline by its revision."""
        base, training = self.base, self.cast.training
        new = _document(self.cast, self.guideline, "after")
        old = base.document(new.id)
        began = time.perf_counter()
        base.change(new)
        milliseconds = 1000 * (time.perf_counter() - began)
        return Changed(
            new.id,
            new.title,
            old.text,
            new.text,
            milliseconds,
            None if training is None else training.seconds,
        )

    def ask(self, question: SliceQuestion, kind: str, said: Texts) -> Iterator[Asked | Reply]:
        """Put a question to all arms."""
        yield Asked(question.text, kind, question.answer)
        for arm in ARMS:
            base = None if arm.evidence == "none" else self.base
            pipeline = answering(arm, self.cast.readers[arm.reader], base)
            yield _reply(said.arms[arm.name], question, pipeline.ask(question.text))

    def table(
        self, questions: Mapping[str, Sequence[SliceQuestion]], said: Texts, progress: bool
    ) -> Table:
        """All arms on all slices."""
        retriever, texts, began = self.base.hybrid(), texts_of(self.base), time.perf_counter()
        cells: list[Cell] = []
        bar: tqdm[Arm] = tqdm(ARMS, unit="arm", disable=not progress, leave=False)
        for arm in bar:
            bar.set_description(said.arms[arm.name])
            reader = self.cast.readers[arm.reader]
            readers = Readers(reader.tokenizer, {arm.reader: reader.model})
            (result,) = run_arms([arm], readers, questions, retriever, texts, timed=0)
            for slice in SLICES:
                right = [outcome.right for outcome in result.of(slice)]
                interval = wilson_interval(sum(right), len(right))
                cells.append(Cell(said.arms[arm.name], slice, len(right), interval))
        return Table(tuple(cells), time.perf_counter() - began)


def _document(cast: Cast, question: SliceQuestion, moment: str) -> Document:
    documents = collection_documents(cast.world, cast.language, moment=moment, general=False)
    (found,) = (document for document in documents if document.id == question.document)
    return found


def _reply(arm: str, question: SliceQuestion, result: Answer | Abstention) -> Reply:
    asked = Question(question.text, question.answer, None, question.attribute)
    exercise = ReadingExercise((), (asked,), question.language, question.slice)
    answer = result.text if isinstance(result, Answer) else None
    cited = result.citations if isinstance(result, Answer) else []
    return Reply(
        arm,
        answer,
        Answered(exercise, answer).right,
        answer is not None and answer == question.stale,
        () if isinstance(result, Unmentioned) else tuple(h.passage.heading for h in result.hits),
        tuple(citation.passage.heading for citation in cited),
        result.timings.retrieve + result.timings.read,
        isinstance(result, Unmentioned),
    )
