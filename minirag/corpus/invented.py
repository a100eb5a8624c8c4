"""Exercises about invented things, whose attributes come from a pool.

The passages of an exercise are about things of one kind that share a pool of attributes, so that
each passage distracts from the others. Where the pool comes from is for others to say:
:mod:`minirag.corpus.nonce` makes its attributes up, :mod:`minirag.corpus.everyday` takes them from
all walks of life.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from minirag.corpus.dice import Dice
from minirag.corpus.grammar import Phrase, capitalised
from minirag.corpus.passages import Slots, layout, sentences_about, with_asides
from minirag.corpus.phrasings import Attribute, Phrasings, Statement, load
from minirag.corpus.questions import Question, ReadingExercise, choose_questions


@dataclass(frozen=True)
class Item:
    """An attribute of an exercise."""

    key: str  # what the question is about: an attribute of the phrasings, or a family of frames
    attribute: Attribute
    slots: Slots  # what its frames hold besides name and value
    fill: Callable[[Dice], Slots | None]  # these with a value for one thing; None: leave it out
    label: str | None = None  # how a list calls it; None: a list can't hold it


@dataclass(frozen=True)
class Topic:
    """What the passages of an exercise are about."""

    exercise: str  # the kind of the exercise, "nonce" or "everyday"
    kind: Phrase  # what its things are
    new_name: Callable[[Dice], Phrase]
    pool: Sequence[Item]
    phrasings: Phrasings  # where introductions and asides come from


@dataclass
class _Subject:
    """One thing of the exercise, with what its passage states."""

    name: Phrase
    facts: dict[int, Slots] = field(default_factory=dict)  # index in the pool -> filled slots


def exercise_about(
    dice: Dice,
    topic: Topic,
    *,
    n_passages: int,
    facts: tuple[int, int],
    n_questions: int,
    unanswerable: float,
    unsaid: float = 0.5,
    held_out: bool = False,
) -> ReadingExercise:
    """Draw things with facts, write a passage about each, and ask."""
    pool = topic.pool
    subjects = [_subject(dice, topic, dice.between(*facts)) for _ in range(n_passages)]
    texts = [_passage(dice, subject, topic, held_out=held_out) for subject in subjects]

    def ask(subject: _Subject, index: int, slots: Slots, *, reverse: bool = False) -> str:
        attribute = pool[index].attribute
        if reverse:
            template = attribute.reverse[-1] if held_out else dice.pick(attribute.reverse[:-1])
        else:
            template = attribute.question(dice, held_out=held_out)
        return template.fill({**slots, "name": subject.name, "kind": topic.kind})

    def answerable() -> list[Question]:
        out = []
        stated = [(s, i, place) for place, s in enumerate(subjects) for i in s.facts]
        for subject, index, place in dice.shuffled(stated):
            slots = subject.facts[index]
            reverse = dice.chance(0.1) and bool(pool[index].attribute.reverse)
            answer = subject.name if reverse else slots["value"]
            assert isinstance(answer, Phrase)
            text = ask(subject, index, slots, reverse=reverse)
            out.append(Question(text, answer.text, place, pool[index].key))
        return out

    def without_answer() -> Question:
        subject = dice.pick(subjects)
        missing = [i for i in range(len(pool)) if i not in subject.facts]
        if missing and dice.chance(unsaid):
            index = dice.pick(missing)
        else:
            index = dice.pick(tuple(subject.facts))
            subject = _Subject(topic.new_name(dice))
        return Question(ask(subject, index, pool[index].slots), None, None, pool[index].key)

    questions = choose_questions(
        dice, texts, answerable(), without_answer, n_questions, unanswerable
    )
    return ReadingExercise(tuple(texts), questions, topic.phrasings.language, topic.exercise)


def _subject(dice: Dice, topic: Topic, n_facts: int) -> _Subject:
    subject = _Subject(topic.new_name(dice))
    while not subject.facts:  # some can't always be filled
        for index in dice.sample(range(len(topic.pool)), n_facts):
            slots = topic.pool[index].fill(dice)
            if slots is not None:
                subject.facts[index] = slots
    return subject


def _passage(dice: Dice, subject: _Subject, topic: Topic, *, held_out: bool) -> str:
    name, kind, phrasings = subject.name, topic.kind, topic.phrasings
    order = dice.shuffled(tuple(subject.facts))
    labels = [topic.pool[i].label for i in order]
    if all(labels) and dice.chance(0.35) and not held_out:
        pairs = [
            (label, _text(subject.facts[i]))
            for i, label in zip(order, labels, strict=True)
            if label
        ]
        return layout(dice, capitalised(name.text), pairs)
    statements: list[tuple[Statement, Slots]] = [
        (topic.pool[i].attribute.statement(dice, held_out=held_out), dict(subject.facts[i]))
        for i in order
    ]
    slots: Slots = {"name": name, "kind": kind}
    heading, told = dice.chance(0.15), name.text.startswith(kind.text + " ")
    intro = dice.chance(0.5) and not told
    parts = [dice.pick(phrasings.texts["intros"]).fill(slots)] if intro else []
    parts += sentences_about(
        dice,
        statements,
        name,
        Phrase(kind.text, kind.gender, True) if intro or told else name,
        phrasings=load("general", phrasings.language),
        named=heading or intro,
    )
    return with_asides(dice, parts, slots, phrasings, heading=name if heading else None)


def _text(slots: Slots) -> str:
    value = slots["value"]
    assert isinstance(value, Phrase)
    return value.text
