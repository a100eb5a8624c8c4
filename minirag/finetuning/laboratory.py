"""The laboratory's data for the three ways to fine-tune a reader.

- **pretraining**: documents of the domain, as plain text; the model goes on as it was pretrained.
- **closed-book**: questions with answers and no passage: the facts go into the weights. One wording
  of each fact teaches that sentence; several teach the fact (Ovadia et al. 2024).
- **raft**: questions with passages, of which one to three distract, some without the golden one:
  what is learned is to read the domain's documents (Zhang et al. 2024).
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Sequence

from minirag.corpus.dice import Dice
from minirag.corpus.exercises import closed_book_set, draw_exercise, plain_text
from minirag.corpus.questions import Question, ReadingExercise
from minirag.corpus.raft import RaftMix, domain_reading_set, raft_stream
from minirag.corpus.slices import training_questions
from minirag.corpus.world import Sizes, World, draw_world
from minirag.errors import UsageError
from minirag.finetuning.config import LaboratoryData
from minirag.finetuning.data import EvaluationSet, FineTuneData
from minirag.training.evaluate_reading import ReadingTest, validation_tests
from minirag.training.pretrain import DEVELOPMENT_SEED
from minirag.training.recipes import GPT_BASE
from minirag.training.report import REPORT_SEED

_TEXTS = 100  # of the domain and of general text, for the perplexity

# What the base was trained on in the end, but without plain text: in it nothing is answered.
REHEARSAL = dataclasses.replace(GPT_BASE.stages[-1].mix, text=0.0)


def laboratory_data(
    what: LaboratoryData, world: World | None = None, *, test_seed: int = REPORT_SEED
) -> FineTuneData:
    """Draw a world, and make of it what a way of fine-tuning learns from and is tested by.

    Parameters
    ----------
    world : World, optional
        Learn from this one. Default: :func:`world_of` what is asked for.
    test_seed : int
        Of the questions that the report asks; those of validation are always the same.

    Raises
    ------
    UsageError
        If there is no such domain or language, or the world is too small or kept for tests.
    """
    if world is None and what.world_seed in (DEVELOPMENT_SEED, REPORT_SEED):
        raise UsageError(f"the seed {what.world_seed} is kept for tests: learn from another one.")
    world = world_of(what) if world is None else world
    taken = {record.entity.name.en.text for record in world.records}
    on_the_way = dataclasses.replace(what, questions=what.questions_on_the_way)
    validation = _tests(on_the_way, world, DEVELOPMENT_SEED, taken)
    return FineTuneData(
        f"{what.domain}, {what.way}",
        list(_train(what, world)),
        validation,
        _tests(what, world, test_seed, taken),
        watched="loss" if what.way == "pretraining" else "right",
        general_exercise=general_exercise,
        laboratory=what,
    )


def world_of(what: LaboratoryData) -> World:
    """The world whose stable and updated entities are learned from.

    Its other groups are what the six slices of questions need: nothing of them is learned.
    """
    sizes = Sizes(stable=what.entities, updated=what.changing)
    return draw_world(what.domain, what.world_seed, sizes)


def general_exercise(dice: Dice) -> ReadingExercise:
    """One of the base's own training, with questions: for rehearsal."""
    while True:
        exercise = draw_exercise(dice, REHEARSAL)
        if exercise.questions:
            return exercise


# ---------------------------------------------------------------------------------- what is learned


def _train(what: LaboratoryData, world: World) -> Iterable[ReadingExercise]:
    if what.way == "pretraining":
        for language in what.languages:
            yield from _plain(world.training_texts(language, what.paraphrases), language)
    elif what.way == "closed-book":
        for language in what.languages:
            yield from _closed_book(world, language, what.paraphrases)
    else:
        mix = RaftMix(passages=what.distractors, unanswerable=what.unanswerable)
        each = -(-what.exercises // len(what.languages))
        for language in what.languages:
            asking = (e for e in raft_stream(world, what.world_seed, language, mix) if e.questions)
            yield from itertools.islice(asking, each)


def _plain(texts: Iterable[str], language: str) -> list[ReadingExercise]:
    return [ReadingExercise((text,), (), language, "text") for text in texts]


def _closed_book(
    world: World, language: str, paraphrases: int = 1, *, held_out: bool = False
) -> list[ReadingExercise]:
    """One exercise for each question, without a passage; held out, only what can't be guessed."""
    return [
        ReadingExercise(
            (), (Question(q.text, q.answer, None, q.attribute),), language, "closed_book"
        )
        for q in training_questions(world, language, paraphrases, held_out=held_out)
        if not (held_out and q.attribute in world.domain.closed)
    ]


# ----------------------------------------------------------------------------------- what is tested


def _tests(what: LaboratoryData, world: World, seed: int, taken: set[str]) -> EvaluationSet:
    """The tests of one seed; entities that training or other tests have, ``taken``, are left out.

    Whether facts are known is asked about one half of the entities in validation, about the other
    in the report.
    """
    n, domain = what.questions, what.domain
    other = _without(
        draw_world(domain, seed, Sizes(_TEXTS, 0, 0, 0, 0), wording=world.wording), taken
    )
    texts = [
        exercise
        for language in what.languages
        for exercise in _plain(other.training_texts(language), language)[: _TEXTS // 2]
    ]
    if what.way == "raft":
        asked = _reading_tests(what, seed, taken, world.wording)
        held_out = [exercise for test in asked for exercise in test.exercises]
    else:
        first = 0 if seed == DEVELOPMENT_SEED else 1
        half = dataclasses.replace(world, records=world.records[first::2])
        known = {lang: _closed_book(half, lang, held_out=True) for lang in what.languages}
        asked = [
            ReadingTest(f"{language}/{domain}, no passage", _some(known[language], seed, n))
            for language in what.languages
        ]
        held_out = texts
        if what.way == "closed-book":
            held_out = [exercise for test in asked for exercise in test.exercises]
    return EvaluationSet(
        asked, general_tests(what, seed), held_out, texts, general_texts(what.languages, seed)
    )


def _without(world: World, taken: set[str]) -> World:
    """A world without the entities whose names are taken; then the others' are."""
    records = tuple(r for r in world.records if r.entity.name.en.text not in taken)
    taken |= {record.entity.name.en.text for record in records}
    return dataclasses.replace(world, records=records)


def _some(exercises: Sequence[ReadingExercise], seed: int, n: int) -> list[ReadingExercise]:
    return Dice(seed, "some").sample(exercises, n)


def _reading_tests(
    what: LaboratoryData, seed: int, taken: set[str], wording: str
) -> list[ReadingTest]:
    """Unseen entities: the golden passage among three, none of three golden, other phrasings."""
    tests = []
    for language in what.languages:
        name = f"{language}/{what.domain}"
        for label, k, unanswerable, held_out in (
            ("3 passages", 3, False, False),
            ("unanswerable, 3 passages", 3, True, False),
            ("3 passages, other phrasings", 3, False, True),
        ):
            exercises = domain_reading_set(
                what.domain, seed, language, what.questions, k,
                unanswerable=unanswerable, held_out=held_out, taken=taken, wording=wording,
            )  # fmt: skip
            tests.append(ReadingTest(f"{name}, {label}", exercises))
    return tests


def general_tests(what: LaboratoryData, seed: int) -> list[ReadingTest]:
    """What the base could do before: read about its own world, and what it knows by heart."""
    tests = [
        test
        for test in validation_tests(seed, what.questions)
        if test.name.partition("/")[0] in what.languages
    ]
    for language in what.languages:
        known = _some(closed_book_set(language), seed, what.questions)
        tests.append(ReadingTest(f"{language}/well known, no passage", known))
    return tests


def general_texts(languages: Sequence[str], seed: int) -> list[ReadingExercise]:
    """Texts of the base's own world, without questions."""
    dice = Dice(seed, "general text")
    return [plain_text(dice, language) for language in languages for _ in range(_TEXTS // 2)]
