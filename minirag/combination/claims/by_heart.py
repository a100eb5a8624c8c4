"""What X2 and B3 have in common: facts learned by heart, and asked with and without documents.

English alone, and the stable entities of a seed's world: those of a small one are the first of a
larger one. Every fact is met equally often, however many there are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from minirag.combination.arms import Arm
from minirag.combination.claims import adapting, answers
from minirag.combination.claims.adapting import TINY, Choice, Fitting, Training
from minirag.combination.claims.answers import Answering
from minirag.combination.collection import collection_documents, texts_of
from minirag.combination.compare import LEAST_SHARED, PASSAGES, Readers, run_arms
from minirag.combination.fine_tuned import fine_tuned
from minirag.combination.ledger import Planned, checksum, wordings
from minirag.combination.study import RETRIEVER, Study, reduced
from minirag.combination.workbench import Workbench
from minirag.corpus.slices import SliceQuestion, training_questions
from minirag.corpus.world import World
from minirag.finetuning.base import Base
from minirag.finetuning.laboratory import laboratory_data, world_of
from minirag.retrieval.encoder import BiEncoder
from minirag.retrieval.knowledge_base import KnowledgeBase

_LANGUAGE = "en"
TOKENS_A_QUESTION, QUESTIONS_AN_ENTITY = 25, 6  # about; for the plan alone
Right = Mapping[str, Mapping[str, Sequence[float]]]  # arm -> kind of question -> 1 or 0


@dataclass(frozen=True)
class ByHeart(Fitting):
    """How facts are learned by heart here."""

    models: tuple[str, ...] = ("gpt-base", "retriever")
    tokens_per_batch: int = 1024  # small: with few facts there are steps enough
    paraphrases: int = 3  # wordings of each fact
    passes: int = 10  # over all of them
    study: Study = field(default_factory=Study)  # whose reader with passages is asked


TINY_BY_HEART: dict[str, Any] = {**TINY, "passes": 1, "study": reduced(Study())}


def exposures(settings: ByHeart) -> int:
    """How often each fact is met."""
    return settings.passes * settings.paraphrases


def training(settings: ByHeart, seed: int, rate: float, entities: int) -> Training:
    """Learn all facts of so many entities."""
    data = dataclasses.replace(
        settings.data,
        way="closed-book",
        languages=(_LANGUAGE,),
        entities=entities,
        changing=0,
        paraphrases=settings.paraphrases,
    )
    # with the recipe's rehearsal: what is learned is asked with passages, too
    rehearsal = settings.recipes["closed-book"].rehearsal
    how: dict[str, Any] = {"epochs": settings.passes, "max_steps": None, "rehearsal": rehearsal}
    return adapting.training(settings, seed, rate, data=data, **how)


def best_rate(bench: Workbench, settings: ByHeart, entities: int) -> Choice:
    """The rate with which facts are known best in wordings that were not learned."""
    return adapting.best_rate(
        bench, settings, lambda seed, rate: training(settings, seed, rate, entities)
    )


def tokens(settings: ByHeart, entities: int) -> int:
    """Of a training, about."""
    return entities * QUESTIONS_AN_ENTITY * TOKENS_A_QUESTION * exposures(settings)


def planned(what: str, settings: ByHeart, entities: int, n: int) -> Planned:
    """So many trainings with their questions."""
    return adapting.trainings(what, n, settings, tokens(settings, entities))


def questions(world: World, kind: str, *, held_out: bool) -> list[SliceQuestion]:
    """A question for each fact that can't be guessed: as it is learned first, or as it never is."""
    asked = training_questions(world, _LANGUAGE, 1, held_out=held_out)
    return [
        dataclasses.replace(question, slice=kind)
        for question in asked
        if question.attribute not in world.domain.closed
    ]


def learned_world(what: Training) -> World:
    """What was learned, and nothing else."""
    world = world_of(what.data)
    return dataclasses.replace(world, records=world.group("stable"))


def ask(
    bench: Workbench,
    settings: ByHeart,
    what: Training,
    asked: Mapping[str, Sequence[SliceQuestion]],
    arms: Sequence[Arm],
) -> dict[str, dict[str, list[float]]]:
    """Learn by heart, then ask arms about it; the collection holds just what was learned.

    Returns
    -------
    dict
        For each arm and kind of question, 1 or 0 a question.
    """
    base_name, encoder_name = settings.models[0], settings.models[-1]
    taught = any(arm.reader == "raft" for arm in arms)
    study = answers.study_of(
        Answering(models=settings.models, study=settings.study), what.data.world_seed
    )

    def work() -> dict[str, Any]:
        base, place = Base.load(base_name), bench.studies / "readers"
        # it is asked below: the report of the training is not used
        few = dataclasses.replace(what.data, questions=1, questions_on_the_way=1)
        data = laboratory_data(few)
        learned = fine_tuned(base, data, what.config, place, bench.machine, bar=bench.bar)
        readers = Readers(
            base.tokenizer,
            {"base": base.model.to(bench.machine.device), "closed-book": learned.model},
        )
        if taught:
            readers.models["raft"] = answers.reader_of(bench, study, base, "raft").model
        collection = KnowledgeBase(BiEncoder.load(encoder_name))
        collection.add(collection_documents(learned_world(what), _LANGUAGE, general=False))
        results = run_arms(
            arms,
            readers,
            asked,
            collection.retriever(RETRIEVER),
            texts_of(collection),
            seed=what.data.world_seed,
            timed=0,
        )
        return {
            result.arm.name: {
                kind: [float(outcome.right) for outcome in result.of(kind)] for kind in asked
            }
            for result in results
        }

    decides = {
        "version": settings.trainings,
        "models": [checksum(base_name), checksum(encoder_name)],
        "training": {**dataclasses.asdict(what), "base": ""},
        "asked": {kind: [q.text for q in some] for kind, some in asked.items()},
        "arms": [dataclasses.asdict(arm) for arm in arms],
        "study": {**study.as_json(), "base": "", "encoder": ""} if taught else None,
        "retrieval": [RETRIEVER, PASSAGES, LEAST_SHARED],
        "wordings": wordings(),
    }
    return bench.piece(f"by-heart-{what.data.entities}-{what.data.world_seed}", decides, work)


def paired(terms: Sequence[tuple[float, Sequence[float]]]) -> list[float]:
    """The weighted sum of several arms' outcomes, question by question."""
    columns = zip(*(right for _, right in terms), strict=True)
    weights = [weight for weight, _ in terms]
    return [sum(w * x for w, x in zip(weights, column, strict=True)) for column in columns]
