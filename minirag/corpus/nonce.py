"""Exercises about nonce attributes: what makes reading a general skill.

A model that reads only about a fixed list of attributes learns the list. Here the attribute itself
is made up for each exercise ("The plim of the vorp Kaldrin is 40 drams", "Kaldrin is never merped
before torvin"), in many frames, with values of every shape, so that the only way to answer is to
read. Nothing in it is taken from the domains that come later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from minirag.corpus.dice import Dice
from minirag.corpus.grammar import Phrase, Verb, capitalised
from minirag.corpus.nonce_words import NAME_SHAPES, NonceWords, nonce_words
from minirag.corpus.passages import Slots, layout, sentences_about, with_asides
from minirag.corpus.phrasings import Phrasings, Statement, load
from minirag.corpus.questions import Question, ReadingExercise, choose_questions

# How often each family of frames is drawn, and what its values may be.
_FAMILIES = {
    "noun": 9.0, "object": 2.0, "agent": 1.5, "when": 1.0, "where": 1.0, "amount": 2.0,
    "often": 1.0, "prep": 3.0, "never": 2.0, "role": 1.0, "grouped": 1.5,
}  # fmt: skip
_SHAPES = {
    "noun": ("person", "place", "noun", "noun", "phrase", "measure", "measure", "measure",
             "percent", "number", "decimal", "date", "year", "month", "code", "two", "often",
             "range", "time", "quoted", "brand"),
    "object": ("noun", "phrase", "two", "phrase", "thing"),
    "agent": ("person", "person", "brand"),
    "when": ("date",),
    "where": ("place", "place", "phrase_of"),
    "amount": ("measure", "measure", "decimal", "percent"),
    "often": ("often",),
    "prep": ("noun", "phrase", "phrase", "two", "thing", "place"),
    "never": ("noun", "phrase", "phrase", "two", "thing"),
    "role": ("noun", "place", "phrase_of"),
    "grouped": ("measure", "measure", "decimal", "percent", "number", "often"),
}  # fmt: skip


@dataclass(frozen=True)
class _Item:
    """An attribute of this exercise: its family, its made-up words, the shape of its values."""

    family: str
    slots: Slots
    shape: str
    unit: str


@dataclass
class _Subject:
    """One thing of this exercise, with what its passage states."""

    name: Phrase
    facts: dict[int, Slots] = field(default_factory=dict)  # index of the item -> filled slots


def _item(dice: Dice, words: NonceWords, family: str) -> _Item:
    slots: Slots = {}
    if family in ("noun", "role", "grouped"):
        slots["attr"] = words.attribute(dice)
    else:
        slots["verb"] = words.verb(dice)
    if family in ("prep", "never"):
        slots["prep"] = words.preposition(dice)
    if family == "grouped":
        slots["group"], slots["group2"] = words.group(dice), words.group(dice)
    return _Item(family, slots, dice.pick(_SHAPES[family]), words.unit(dice))


def draw_nonce(
    dice: Dice,
    language: str,
    *,
    n_passages: int,
    facts: tuple[int, int],
    n_questions: int,
    unanswerable: float,
    held_out: bool = False,
) -> ReadingExercise:
    """Draw an exercise about made-up attributes of made-up things.

    The passages are about things of one kind, whose attributes come from one pool, so that each
    passage distracts from the others.
    """
    words, phrasings = nonce_words(language), load("nonce", language)
    only_nouns = dice.chance(0.3)
    weights = list(_FAMILIES.values())
    pool = [
        _item(dice, words, "noun" if only_nouns else tuple(_FAMILIES)[dice.weighted(weights)])
        for _ in range(facts[1] + 1)
    ]
    kind = words.kind(dice)
    shape = dice.pick(NAME_SHAPES)
    subjects = [
        _subject(dice, words, pool, words.name(dice, shape, kind), dice.between(*facts))
        for _ in range(n_passages)
    ]
    texts = [
        _passage(dice, subject, pool, kind, phrasings, held_out=held_out) for subject in subjects
    ]

    def fill(subject: _Subject, index: int, slots: Slots, *, reverse: bool = False) -> str:
        attribute = phrasings.attributes[pool[index].family]
        if reverse:
            template = attribute.reverse[-1] if held_out else dice.pick(attribute.reverse[:-1])
        else:
            template = attribute.question(dice, held_out=held_out)
        return template.fill({**slots, "name": subject.name, "kind": kind})

    def answerable() -> list[Question]:
        out = []
        stated = [(s, i, place) for place, s in enumerate(subjects) for i in s.facts]
        for subject, index, place in dice.shuffled(stated):
            slots, family = subject.facts[index], pool[index].family
            reverse = dice.chance(0.1) and bool(phrasings.attributes[family].reverse)
            answer = subject.name if reverse else slots["value"]
            assert isinstance(answer, Phrase)
            text = fill(subject, index, slots, reverse=reverse)
            out.append(Question(text, answer.text, place, family))
        return out

    def without_answer() -> Question:
        subject = dice.pick(subjects)
        missing = [i for i in range(len(pool)) if i not in subject.facts]
        if missing and dice.chance(0.5):
            index = dice.pick(missing)
        else:
            index = dice.pick(tuple(subject.facts))
            subject = _Subject(words.name(dice, shape, kind))
        return Question(fill(subject, index, pool[index].slots), None, None, pool[index].family)

    questions = choose_questions(
        dice, texts, answerable(), without_answer, n_questions, unanswerable
    )
    return ReadingExercise(tuple(texts), questions, language, "nonce")


def _subject(
    dice: Dice, words: NonceWords, pool: Sequence[_Item], name: Phrase, n_facts: int
) -> _Subject:
    subject = _Subject(name)
    for index in dice.sample(range(len(pool)), n_facts):
        item = pool[index]
        slots = dict(item.slots)
        slots["value"] = value = words.value(dice, item.shape, item.unit)
        if item.family == "grouped":
            slots["value2"] = words.value(dice, item.shape, item.unit)
            if slots["value2"] == value:
                continue
            if dice.chance(0.5):
                slots["group"], slots["group2"] = slots["group2"], slots["group"]
        subject.facts[index] = slots
    return subject


def _passage(
    dice: Dice,
    subject: _Subject,
    pool: Sequence[_Item],
    kind: Phrase,
    phrasings: Phrasings,
    *,
    held_out: bool,
) -> str:
    name, order = subject.name, dice.shuffled(tuple(subject.facts))
    if all(pool[i].family == "noun" for i in order) and dice.chance(0.35) and not held_out:
        pairs = [(_text(subject.facts[i]["attr"]), _text(subject.facts[i]["value"])) for i in order]
        return layout(dice, capitalised(name.text), pairs)
    statements: list[tuple[Statement, Slots]] = [
        (
            phrasings.attributes[pool[i].family].statement(dice, held_out=held_out),
            dict(subject.facts[i]),
        )
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


def _text(phrase: Phrase | Verb) -> str:
    assert isinstance(phrase, Phrase)
    return phrase.text
