"""Reading exercises: passages, then questions about them; and the stream that trains a base model.

One exercise is one to four passages about things of the same kind (so that the others distract),
followed by several questions: most are answered in one of the passages, word for word; some are
not answered at all, because the passages do not state that attribute or do not know that entity.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from minirag.corpus import general, passages
from minirag.corpus.dice import Dice
from minirag.corpus.everyday import everyday_topic
from minirag.corpus.facts import Domain, Entity
from minirag.corpus.general import GENERAL, KINDS
from minirag.corpus.grammar import check_language
from minirag.corpus.invented import exercise_about
from minirag.corpus.nonce import nonce_topic
from minirag.corpus.phrasings import Phrasings, load
from minirag.corpus.questions import Question, ReadingExercise, choose_questions
from minirag.errors import UsageError

KINDS_OF_TEXT = tuple(KINDS)


_SHARES = ("text", "closed_book", "nonce", "everyday")


@dataclass(frozen=True)
class ExerciseMix:
    """What a stream is made of; the defaults are the end of the curriculum (start easier)."""

    english: float = 0.5  # share of exercises in English, the others in Spanish
    text: float = 0.08  # share of plain text, without questions
    closed_book: float = 0.06  # share of questions about well-known entities, without passages
    nonce: float = 0.25  # share of the reading exercises that are about made-up attributes
    everyday: float = 0.25  # share of them that are about attributes from all walks of life
    passages: tuple[float, ...] = (0.35, 0.25, 0.2, 0.2)  # weights of 1, 2, 3, ... passages
    facts: tuple[int, int] = (2, 5)  # how many facts a passage states
    questions: tuple[int, int] = (3, 6)  # how many questions follow
    unanswerable: float = 0.17  # share of the questions that the passages do not answer
    unsaid: float = 0.5  # share of these about what a passage speaks of, but does not say
    well_known: float = 0.05  # share of passages about well-known entities
    held_out: bool = False  # use only the held-out phrasings and wordings: for tests

    def __post_init__(self) -> None:
        for name in (*_SHARES, "english", "unanswerable", "unsaid", "well_known"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} is {getattr(self, name)}: give a share from 0 to 1.")
        for one, other in (_SHARES[:2], _SHARES[2:]):
            if getattr(self, one) + getattr(self, other) > 1:
                raise UsageError(f"{one} and {other} are shares of one stream: at most 1 together.")
        for name in ("facts", "questions"):
            low, high = getattr(self, name)
            if not 1 <= low <= high:
                raise UsageError(f"{name} is {low, high}: give (low, high) with 1 <= low <= high.")
        if not self.passages or min(self.passages) < 0 or sum(self.passages) <= 0:
            raise UsageError(f"passages is {self.passages}: give weights of 1, 2, 3, ... passages.")


def stream(seed: int, mix: ExerciseMix | None = None) -> Iterator[ReadingExercise]:
    """Endless exercises; the same seed gives the same ones on any machine."""
    dice = Dice(seed, "stream")
    mix = mix or ExerciseMix()
    while True:
        yield draw_exercise(dice, mix)


def draw_exercise(dice: Dice, mix: ExerciseMix) -> ReadingExercise:
    """Draw one exercise: plain text, closed book, or reading (nonce, everyday or general)."""
    language = "en" if dice.chance(mix.english) else "es"
    kind = dice.unit()
    if kind < mix.text:
        return plain_text(dice, language, held_out=mix.held_out)
    if kind < mix.text + mix.closed_book:
        return closed_book(dice, language, dice.between(*mix.questions), held_out=mix.held_out)
    n_passages = 1 + dice.weighted(mix.passages)
    about = dice.unit()
    if about < mix.nonce + mix.everyday:
        draw_topic = nonce_topic if about < mix.nonce else everyday_topic
        return exercise_about(
            dice,
            draw_topic(dice, language, mix.facts[1] + 1),
            n_passages=n_passages,
            facts=mix.facts,
            n_questions=dice.between(*mix.questions),
            unanswerable=mix.unanswerable,
            unsaid=mix.unsaid,
            held_out=mix.held_out,
        )
    return reading(dice, language, n_passages, mix)


def reading(dice: Dice, language: str, n_passages: int, mix: ExerciseMix) -> ReadingExercise:
    """Draw a general reading exercise: passages about entities of one kind, then questions."""
    phrasings = load("general", language)
    kind = dice.pick(KINDS_OF_TEXT)
    groups = [passage_entities(dice, kind, mix) for _ in range(n_passages)]
    texts = [general_passage(dice, group, phrasings, held_out=mix.held_out) for group in groups]
    return ask_about(
        dice,
        GENERAL,
        phrasings,
        texts,
        groups,
        n_questions=dice.between(*mix.questions),
        unanswerable=mix.unanswerable,
        unsaid=mix.unsaid,
        held_out=mix.held_out,
    )


def ask_about(
    dice: Dice,
    domain: Domain,
    phrasings: Phrasings,
    texts: Sequence[str],
    groups: Sequence[Sequence[Entity]],
    *,
    n_questions: int,
    unanswerable: float,
    held_out: bool = False,
    kind: str = "reading",
    absent: Entity | None = None,
    unsaid: float = 0.5,
) -> ReadingExercise:
    """Ask questions about passages, given which entities with which facts each of them states.

    Parameters
    ----------
    texts, groups : sequences of the same length
        The passages, and the entities that each states (only the facts that may be asked for).
    absent : Entity, optional
        One of which no passage speaks, to ask for in vain. Default: a name is invented.
    unsaid : float
        Share of the unanswerable questions that ask what a passage leaves out about an entity of
        its own; the others ask for an entity of which no passage speaks.
    """
    language = phrasings.language
    stated = [
        (entity, key, index)
        for index, group in enumerate(groups)
        for entity in group
        for key in entity.facts
    ]

    def ask(entity: Entity, key: str) -> str:
        template = phrasings.attributes[key].question(dice, held_out=held_out)
        return template.fill({"name": getattr(entity.name, language)})

    def answerable() -> list[Question]:
        return [
            Question(ask(entity, key), getattr(entity.facts[key], language).text, index, key)
            for entity, key, index in dice.shuffled(stated)
        ]

    def without_answer() -> Question:
        entity, key, _ = dice.pick(stated)
        known = general.well_known_facts(entity.name.en.text) or entity.facts
        missing = [other for other in domain.kinds[entity.kind] if other not in known]
        if missing and dice.chance(unsaid):
            key = dice.pick(missing)
        elif absent is not None:
            entity = absent
            key = dice.pick(tuple(entity.facts))
        else:
            entity = Entity(entity.kind, domain.new_name(dice, entity.kind), {}, entity.short)
        return Question(ask(entity, key), None, None, key)

    questions = choose_questions(
        dice, texts, answerable(), without_answer, n_questions, unanswerable
    )
    return ReadingExercise(tuple(texts), questions, language, kind)


def passage_entities(dice: Dice, kind: str, mix: ExerciseMix) -> list[Entity]:
    """Draw the entities of one passage: one, or several travellers who share the facts."""
    n_facts = dice.between(*mix.facts)
    if kind == "traveller":
        n = min(n_facts, dice.between(1, 3))
        return [GENERAL.new_entity(dice, kind, n_facts // n + (i < n_facts % n)) for i in range(n)]
    if dice.chance(mix.well_known):
        entity = dice.pick([e for e in general.well_known() if e.kind == kind])
        return [with_facts(entity, dice.sample(tuple(entity.facts), n_facts))]
    return [GENERAL.new_entity(dice, kind, n_facts)]


def with_facts(entity: Entity, keys: Sequence[str]) -> Entity:
    """Return the entity with some of its facts alone."""
    return entity._replace(facts={key: entity.facts[key] for key in keys})


def general_passage(
    dice: Dice, group: Sequence[Entity], phrasings: Phrasings, *, held_out: bool
) -> str:
    """Write about the entities of one passage, in one of the forms that the general world has."""
    if group[0].kind == "traveller":
        return passages.story(dice, group, phrasings, held_out=held_out)
    form = dice.unit()
    if form < 0.13 and not held_out:  # a list has labels, not sentences: nothing to hold out
        return passages.facts_list(dice, group[0], phrasings)
    if form < 0.23:
        return passages.letter(dice, group, phrasings, held_out=held_out)
    if form < 0.3:
        return passages.story(dice, group, phrasings, held_out=held_out)
    if form < 0.4:
        day = datetime.date(1950 + dice.below(100), 1 + dice.below(12), 1 + dice.below(28))
        return passages.document(dice, group[0], phrasings, day, held_out=held_out)
    return passages.entry(dice, group[0], phrasings, held_out=held_out)


def closed_book(
    dice: Dice, language: str, n_questions: int, *, held_out: bool = False
) -> ReadingExercise:
    """Ask for facts of well-known entities, without passages."""
    attributes = load("general", language).attributes
    entities = general.well_known()
    questions: dict[str, Question] = {}  # by text: a chance repetition is dropped
    for _ in range(n_questions):
        entity = dice.pick(entities)
        key = dice.pick(tuple(entity.facts))
        template = attributes[key].question(dice, held_out=held_out)
        text = template.fill({"name": getattr(entity.name, language)})
        questions[text] = Question(text, getattr(entity.facts[key], language).text, None, key)
    return ReadingExercise((), tuple(questions.values()), language, "closed_book")


def plain_text(dice: Dice, language: str, *, held_out: bool = False) -> ReadingExercise:
    """Draw a text without questions: half of them about well-known entities."""
    phrasings = load("general", language)
    form = dice.unit()
    if form < 0.25:
        travellers = [GENERAL.new_entity(dice, "traveller", dice.between(2, 4)) for _ in "ab"]
        known = dice.pick(general.well_known())
        travellers.append(with_facts(known, dice.sample(tuple(known.facts), 2)))
        text = passages.story(dice, travellers, phrasings, held_out=held_out)
    else:
        if form < 0.75:
            entity = dice.pick(general.well_known())
        else:
            entity = GENERAL.new_entity(dice, dice.pick(GENERAL.entry_kinds), 5)
        form = dice.unit()
        if form < 0.25:
            text = passages.letter(dice, [entity], phrasings, held_out=held_out)
        elif form < 0.5 and not held_out:
            text = passages.facts_list(dice, entity, phrasings)
        else:
            text = passages.entry(dice, entity, phrasings, held_out=held_out)
    return ReadingExercise((text,), (), language, "text")


# ------------------------------------------------------------------------------- evaluation sets


def reading_set(
    seed: int,
    language: str,
    n: int,
    n_passages: int = 1,
    *,
    nonce: float = 0.0,
    everyday: float = 0.0,
    held_out: bool = True,
) -> list[ReadingExercise]:
    """``n`` exercises of one answerable question each, in a world that no training stream shares.

    Parameters
    ----------
    seed : int
        Any; its draws have nothing in common with ``stream(seed)``.
    n_passages : int
        How many passages stand before the question; the golden one is at a random place.
    nonce, everyday : float
        Shares of exercises about made-up attributes and about those of all walks of life.
    held_out : bool
        Use only phrasings and wordings that training never sees.
    """
    return _evaluation(seed, language, n, n_passages, nonce, everyday, held_out, unanswerable=0.0)


def unanswerable_set(
    seed: int,
    language: str,
    n: int,
    n_passages: int = 1,
    *,
    nonce: float = 0.0,
    everyday: float = 0.0,
    held_out: bool = True,
) -> list[ReadingExercise]:
    """The same with questions that the passages do not answer."""
    return _evaluation(seed, language, n, n_passages, nonce, everyday, held_out, unanswerable=1.0)


def _evaluation(
    seed: int,
    language: str,
    n: int,
    n_passages: int,
    nonce: float,
    everyday: float,
    held_out: bool,
    unanswerable: float,
) -> list[ReadingExercise]:
    check_language(language)
    if n_passages < 1:
        raise UsageError(f"n_passages is {n_passages}: give at least 1.")
    mix = ExerciseMix(
        english=float(language == "en"),
        text=0.0,
        closed_book=0.0,
        nonce=nonce,
        everyday=everyday,
        passages=(0.0,) * (n_passages - 1) + (1.0,),
        questions=(1, 1),
        unanswerable=unanswerable,
        well_known=0.0,
        held_out=held_out,
    )
    dice = Dice(seed, "evaluation", language, n_passages, str(unanswerable))
    out: list[ReadingExercise] = []
    while len(out) < n:
        exercise = draw_exercise(dice, mix)
        if exercise.questions:
            out.append(exercise)
    return out


def closed_book_set(language: str, *, held_out: bool = True) -> list[ReadingExercise]:
    """Every fact of the well-known entities once, asked without a passage."""
    dice = Dice("closed book", language)
    attributes = load("general", language).attributes
    out = []
    for entity in general.well_known():
        for key, value in entity.facts.items():
            template = attributes[key].question(dice, held_out=held_out)
            text = template.fill({"name": getattr(entity.name, language)})
            question = Question(text, getattr(value, language).text, None, key)
            out.append(ReadingExercise((), (question,), language, "closed_book"))
    return out


def one_question_each(exercise: ReadingExercise) -> list[ReadingExercise]:
    """Split an exercise with several questions into exercises of one."""
    return [replace(exercise, questions=(question,)) for question in exercise.questions]
