"""One world, from nothing to answers: what a comparison and most claims repeat for several seeds.

A study draws a world, fine-tunes the readers that its arms need, makes the collections, and asks
every arm the same questions. All of it is kept in a cache by the content of what it depends on:
asking for a study again reads what is there, and a study that was killed goes on.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from minirag.combination.arms import ARMS, DIAGNOSTICS, Arm, ReaderName
from minirag.combination.collection import ENCODER, collection_documents, texts_of
from minirag.combination.compare import (
    LEAST_SHARED,
    PASSAGES,
    TIMED,
    ArmResult,
    Readers,
    run_arms,
)
from minirag.combination.finding import Finding, find
from minirag.combination.fine_tuned import FineTuned, fine_tuned
from minirag.combination.seeds import CLAIM_SEEDS
from minirag.combination.workbench import sum_of
from minirag.corpus.grammar import LANGUAGES
from minirag.corpus.mixed import BOTH_VERSIONS, MIXED, mixed_slice, with_both_versions
from minirag.corpus.slices import SLICES, SliceQuestion, slice_questions
from minirag.corpus.world import Sizes, World, draw_world
from minirag.errors import UsageError
from minirag.files import write_text_atomically
from minirag.finetuning.base import Base, fingerprint
from minirag.finetuning.config import RECIPES, FineTuneConfig, LaboratoryData, Way
from minirag.finetuning.laboratory import laboratory_data
from minirag.retrieval.encoder import BiEncoder
from minirag.retrieval.knowledge_base import RETRIEVERS, KnowledgeBase
from minirag.text.documents import Document
from minirag.transformer.machine import Machine, this_machine
from minirag.transformer.models import Model

# How the arms with retrieval search. Words find names that a small encoder has never met, vectors
# what is worded otherwise; `minirag compare --development` prints what each finds on its own.
RETRIEVER = "hybrid"

_LEARNED: tuple[Literal["closed-book", "raft"], ...] = ("closed-book", "raft")  # ways of learning
# A mean is kept, so that what validation would say on the way decides nothing.
_RAFT = dataclasses.replace(RECIPES["raft"], validate_every=0)
_VERSION = 1  # of what an answer depends on beside the values of a study: raise it with a change
_UPDATES = 5  # documents that are changed for the time of an update
_ALL_SLICES = (*SLICES, BOTH_VERSIONS, MIXED)


@dataclass(frozen=True)
class Study:
    """What is compared in one world; the same values give the same answers."""

    domain: str = "medicine"
    base: str = "gpt-base"  # a shipped reader's name, or a directory
    seed: int = CLAIM_SEEDS[0]  # of the world, of both fine-tunings and of chance
    # the world
    sizes: Sizes = field(default_factory=Sizes)
    wording: str = "domain"  # see corpus.phrasings.phrasings_of
    languages: tuple[str, ...] = LANGUAGES
    # how the readers are fine-tuned
    closed_book: FineTuneConfig = RECIPES["closed-book"]
    raft: FineTuneConfig = _RAFT
    paraphrases: int = 8  # wordings of each closed-book question
    exercises: int = LaboratoryData.exercises  # of reading with passages
    distractors: tuple[float, ...] = LaboratoryData.distractors  # weights of 0, 1, 2, ... of them
    unanswerable: float = LaboratoryData.unanswerable  # share of their questions
    tests: int = 30  # questions of each test of a fine-tuning's own report: the arms tell more
    # what is asked, and of whom
    arms: tuple[Arm, ...] = (*ARMS, *DIAGNOSTICS)
    slices: tuple[str, ...] = _ALL_SLICES
    questions: int = 200  # of each slice, in each language
    timed: int = TIMED  # of them asked one by one, for the time of an answer
    # what the arms with retrieval work with
    k: int = PASSAGES
    least_shared: float = LEAST_SHARED  # of a question's rare words, in a passage that is read
    retriever: str = RETRIEVER
    encoder: str = ENCODER

    def __post_init__(self) -> None:
        for name in ("questions", "k"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}: give 1 or more.")
        if self.timed < 0:
            raise UsageError(f"timed is {self.timed}: give 0 or more.")
        if self.retriever not in RETRIEVERS:
            raise UsageError(
                f"there is no retriever {self.retriever!r}: give one of {', '.join(RETRIEVERS)}."
            )
        if not self.slices:
            raise UsageError(f"no slice is asked: give some of {', '.join(_ALL_SLICES)}.")
        for slice in self.slices:
            if slice not in _ALL_SLICES:
                raise UsageError(
                    f"there is no slice {slice!r}: give some of {', '.join(_ALL_SLICES)}."
                )
        if BOTH_VERSIONS in self.slices and "updated" not in self.slices:
            raise UsageError(f"the slice {BOTH_VERSIONS!r} needs the slice 'updated' beside it.")

    def world(self) -> World:
        """Draw the world."""
        return draw_world(self.domain, self.seed, self.sizes, wording=self.wording)

    def laboratory(self, way: Way) -> LaboratoryData:
        """What a reader of this study learns from."""
        return LaboratoryData(
            domain=self.domain,
            way=way,
            languages=self.languages,
            world_seed=self.seed,
            entities=self.sizes.stable,
            changing=self.sizes.updated,
            paraphrases=self.paraphrases,
            exercises=self.exercises,
            distractors=self.distractors,
            unanswerable=self.unanswerable,
            questions=self.tests,
            questions_on_the_way=min(self.tests, 30),
        )

    def recipe(self, way: Way) -> FineTuneConfig:
        """How a reader of this study learns; its seed is the study's."""
        config = self.closed_book if way == "closed-book" else self.raft
        return dataclasses.replace(config, seed=self.seed)

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return values


def reduced(study: Study) -> Study:
    """The same in small, for seconds: a tiny world, a few steps, five questions a slice.

    It shows that everything works together. Its numbers mean nothing.
    """

    def few(config: FineTuneConfig) -> FineTuneConfig:
        return dataclasses.replace(
            config, epochs=1, max_steps=4, validate_every=0, patience=None, checkpoint_every=0
        )

    return dataclasses.replace(
        study,
        sizes=Sizes(stable=8, unseen=4, updated=6, new=4, unanswerable=4),
        closed_book=few(study.closed_book),
        raft=few(study.raft),
        exercises=40,
        tests=3,
        questions=5,
        timed=2,
    )


@dataclass(frozen=True)
class CollectionCosts:
    """What the knowledge base of one language takes."""

    documents: int
    seconds: float  # to cut, encode and index all of them
    update: float  # seconds from a changed document to the next search that sees it; the median
    bytes: int  # on disk


@dataclass(frozen=True)
class Asked:
    """What came of a study in one language."""

    arms: tuple[ArmResult, ...]
    findings: tuple[Finding, ...]
    collection: CollectionCosts

    def as_json(self) -> dict[str, Any]:
        """Plain values, every outcome included."""
        return {
            "arms": [result.as_json() for result in self.arms],
            "findings": [dataclasses.asdict(finding) for finding in self.findings],
            "collection": dataclasses.asdict(self.collection),
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Asked:
        """Take up what :meth:`as_json` gave."""
        return cls(
            tuple(ArmResult.from_json(result) for result in values["arms"]),
            tuple(Finding(**finding) for finding in values["findings"]),
            CollectionCosts(**values["collection"]),
        )


@dataclass(frozen=True)
class StudyResult:
    """What came of a study, every outcome kept."""

    study: Study
    asked: Mapping[str, Asked]  # language -> answers
    reports: Mapping[str, dict[str, Any]]  # way -> the report of its fine-tuning
    bytes: Mapping[str, int]  # of the weights in memory: base, closed-book, raft, encoder
    fingerprints: Mapping[str, str]  # of the same

    def arms(self, language: str) -> list[ArmResult]:
        """All arms in one language."""
        return list(self.asked[language].arms)


def run_study(
    study: Study,
    cache: Path,
    *,
    machine: Machine | None = None,
    bar: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> StudyResult:
    """Do a study, or read what was done of it before.

    Parameters
    ----------
    cache : Path
        Keeps fine-tuned readers (``readers/``) and answers (``answers/``).
    tell : function str
        Gets what a person may want to read on the way.

    Raises
    ------
    UsageError
        If the world is too small for the questions, or for its readers to learn from.
    ModelUnavailable
        If there is no such base or encoder.
    DiskError
        If something can't be written; what was done before it is kept.
    """
    machine = machine or this_machine()
    world = study.world()
    base = Base.load(study.base)
    encoder = BiEncoder.load(study.encoder)
    # before hours of fine-tuning: a world that is too small for its questions is told now
    askings = [_Asking(study, world, language) for language in study.languages]
    models: dict[ReaderName, Model] = {"base": base.model.to(machine.device)}
    made: dict[Way, FineTuned] = {}
    for way in _LEARNED:
        if any(arm.reader == way for arm in study.arms):
            data, recipe = laboratory_data(study.laboratory(way), world), study.recipe(way)
            made[way] = fine_tuned(
                base, data, recipe, cache / "readers", machine, bar=bar, tell=tell
            )
            models[way] = made[way].model
    prints: dict[str, str] = {
        "base": fingerprint(base.model),
        **{str(way): reader.sha256 for way, reader in made.items()},
        "encoder": encoder.fingerprint,
    }
    readers = Readers(base.tokenizer, models)
    asked: dict[str, Asked] = {}
    for asking in askings:
        place = cache / "answers" / f"{asking.key(prints)[:20]}.json"
        answers = _filed(place)
        if answers is None:
            tell(f"{study.domain}, world {study.seed}: asking in {asking.language}")
            answers = asking.ask(readers, encoder, bar)
            write_text_atomically(place, json.dumps(answers.as_json(), ensure_ascii=False))
        asked[asking.language] = answers
    return StudyResult(
        study,
        asked,
        {way: reader.report for way, reader in made.items()},
        {
            "base": _bytes_of(base.model),
            **{str(way): _bytes_of(reader.model) for way, reader in made.items()},
            "encoder": _bytes_of(encoder.model),
        },
        prints,
    )


@functools.lru_cache(maxsize=16)
def content_of(study: Study) -> str:
    """A name for all that a study asks, and of what: another corpus, another name."""
    world = study.world()
    return sum_of([_Asking(study, world, language).content() for language in study.languages])


def _filed(place: Path) -> Asked | None:
    """The answers that were kept; None if there are none, or none that are whole."""
    try:
        return Asked.from_json(json.loads(place.read_text("utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _bytes_of(model: Model) -> int:
    return sum(p.numel() * p.element_size() for p in model.parameters())


class _Asking:
    """The questions of one language with the documents they are asked of."""

    def __init__(self, study: Study, world: World, language: str) -> None:
        self.study, self.language = study, language
        six = [slice for slice in study.slices if slice in SLICES]
        self.questions = slice_questions(world, language, study.questions, slices=six)
        self.documents = collection_documents(world, language)
        self.superseded: list[Document] = []
        self.both: dict[str, list[SliceQuestion]] = {}
        if BOTH_VERSIONS in study.slices:
            both = collection_documents(world, language, both_versions=True)
            self.superseded = [document for document in both if document not in self.documents]
            self.both = {BOTH_VERSIONS: with_both_versions(self.questions["updated"])}
        self.of_the_world: list[Document] = []
        self.linking: list[Document] = []
        self.mixed: dict[str, list[SliceQuestion]] = {}
        if MIXED in study.slices:
            self.of_the_world = collection_documents(world, language, general=False)
            linking, mixed = mixed_slice(world, language, study.questions)
            self.linking = [Document(d.id, d.text, d.title) for d in linking]
            self.mixed = {MIXED: mixed}

    def key(self, fingerprints: Mapping[str, str]) -> str:
        """A name for all that the answers depend on."""
        study = self.study
        return sum_of(
            {
                "weights": dict(fingerprints),
                "arms": [dataclasses.asdict(arm) for arm in study.arms],
                "seed": study.seed,
                "k": study.k,
                "least shared": study.least_shared,
                "retriever": study.retriever,
                "timed": study.timed,
                "asked": self.content(),
            }
        )

    def content(self) -> str:
        """A name for the questions and the documents, and for the way they are asked."""
        questions = [self.questions, self.both, self.mixed]
        documents = [self.documents, self.superseded, self.of_the_world, self.linking]
        return sum_of([_VERSION, repr(questions), repr(documents)])

    def ask(self, readers: Readers, encoder: BiEncoder, bar: bool) -> Asked:
        """Put every question to every arm.

        The collections of the two diagnostics are the one of the six slices, changed: with the
        superseded versions; then without these and without the entries on general knowledge, which
        mixed questions are to find in the weights, but with the documents of their first halves.
        """
        base = KnowledgeBase(encoder)
        began = time.perf_counter()
        base.add(self.documents, progress=bar)
        base.retriever(self.study.retriever)  # words are counted when they are first searched
        seconds = time.perf_counter() - began
        costs = CollectionCosts(
            len(base), seconds, self._update_seconds(base), _bytes_on_disk(base)
        )
        parts, timed = [], self.study.timed
        if self.questions:
            parts.append(self._put(self.questions, base, readers, timed, bar))
            timed = 0  # once is enough
        if self.both:
            base.add(self.superseded, progress=bar)
            parts.append(self._put(self.both, base, readers, timed, bar))
        if self.mixed:
            base.update_from([*self.of_the_world, *self.linking], progress=bar)
            parts.append(self._put(self.mixed, base, readers, timed, bar))
        arms = [
            dataclasses.replace(
                results[0], outcomes=tuple(o for result in results for o in result.outcomes)
            )
            for results in zip(*(arms for arms, _ in parts), strict=True)
        ]
        return Asked(tuple(arms), tuple(f for _, findings in parts for f in findings), costs)

    def _put(
        self,
        questions: Mapping[str, Sequence[SliceQuestion]],
        base: KnowledgeBase,
        readers: Readers,
        timed: int,
        bar: bool,
    ) -> tuple[list[ArmResult], list[Finding]]:
        study, retriever = self.study, base.retriever(self.study.retriever)
        texts = texts_of(base)
        results = run_arms(
            study.arms,
            readers,
            questions,
            retriever,
            texts,
            k=study.k,
            least_shared=study.least_shared,
            seed=study.seed,
            timed=timed,
            progress=bar,
        )
        asked = [question for some in questions.values() for question in some]
        return results, find(retriever, asked, texts, progress=bar)

    def _update_seconds(self, base: KnowledgeBase) -> float:
        """From a document that changes to the next search, which sees it; all is put back."""
        seconds = []
        for document in self.documents[:_UPDATES]:
            changed = dataclasses.replace(document, text=document.text + " ")
            began = time.perf_counter()
            base.change(changed)
            base.retriever(self.study.retriever).search(document.title, self.study.k)
            seconds.append(time.perf_counter() - began)
            base.change(document)
        return statistics.median(seconds)


def _bytes_on_disk(base: KnowledgeBase) -> int:
    place = Path(tempfile.mkdtemp())
    try:
        base.save(place)
        return sum(path.stat().st_size for path in place.iterdir())
    finally:
        shutil.rmtree(place)
