"""Exercises about nonce attributes: what makes reading a general skill.

A model that reads only about a fixed list of attributes learns the list. Here the attribute itself
is made up for each exercise ("The plim of the vorp Kaldrin is 40 drams", "Kaldrin is never merped
before torvin"), in many frames, with values of every shape, so that the only way to answer is to
read. Nothing in it is taken from the domains that come later.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field

from minirag.corpus import names, values
from minirag.corpus.dice import Dice
from minirag.corpus.grammar import MONTHS, Phrase, Verb, and_then, date, decimal, number, with_s
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


class _Words:
    """The word lists of one language, parsed once."""

    def __init__(self, language: str) -> None:
        raw = load("nonce", language).raw
        self.language = language
        self.verbs = [Verb(stem) for stem in raw["verbs"]]
        self.preps = [Phrase(prep) for prep in raw["preps"]]
        self.units: list[str] = raw["units"]
        self.often: list[str] = raw["often"]
        self.people = [self._noun(entry) for entry in raw["people"]]
        self.nouns = [self._noun(entry) for entry in raw["nouns"]]
        self.heads = [self._noun(entry) for entry in raw["heads"]]
        self.kinds = [self._noun(entry) for entry in raw["sorts"]]
        self.things = [self._noun(entry) for entry in raw["things"]]
        self.adjectives: list[str] = raw["adjectives"]
        self.shades: list[str] = raw["shades"]

    def _noun(self, entry: str) -> Phrase:
        if self.language == "en":
            return Phrase(entry)
        article, _, text = entry.partition(" ")
        if article == "los":
            return Phrase(entry, "m")  # plural groups carry their article in the text
        return Phrase(text, "f" if article == "la" else "m")

    def described(self, noun: Phrase, adjective: str) -> Phrase:
        """Put an adjective to a noun: "dry torvin", "torvina seca"."""
        if self.language == "en":
            return Phrase(f"{adjective} {noun.text}")
        masculine, _, feminine = adjective.partition("/")
        form = feminine if noun.gender == "f" else masculine
        return Phrase(f"{noun.text} {form}", noun.gender)


@functools.cache
def _words(language: str) -> _Words:
    return _Words(language)


def _nonce_noun(dice: Dice, language: str, *, long: bool = False) -> Phrase:
    short = not long and dice.chance(0.7)
    if language == "en":
        return Phrase(names.noun(dice, short=short))
    gender = "mf"[dice.below(2)]
    return Phrase(names.noun(dice, gender, short=short), gender)


def _attribute_noun(dice: Dice, words: _Words) -> Phrase:
    shape = dice.unit()
    if shape < 0.3:
        return _nonce_noun(dice, words.language)
    if shape < 0.4:
        return words.described(_nonce_noun(dice, words.language), dice.pick(words.adjectives))
    if shape < 0.55:
        head, plim = dice.pick(words.heads), _nonce_noun(dice, words.language)
        if words.language == "en":
            return Phrase(f"{plim.text} {head.text}")
        return Phrase(f"{head.text} de {plim.text}", head.gender)
    if shape < 0.8:
        return dice.pick(words.nouns)
    return words.described(dice.pick(words.nouns), dice.pick(words.adjectives))


def _verb(dice: Dice, words: _Words) -> Verb:
    if dice.chance(0.5):
        return dice.pick(words.verbs)
    return Verb(names.short_word(dice))


def _group(dice: Dice, words: _Words) -> Phrase:
    if dice.chance(0.5):
        return dice.pick(words.people)
    plural = names.short_word(dice)
    return Phrase(with_s(plural) if words.language == "en" else f"los {plural}os", "m")


def _unit(dice: Dice, words: _Words) -> str:
    if dice.chance(0.55):
        return dice.pick(words.units)
    word = names.short_word(dice)
    return with_s(word) if words.language == "en" else word + "os"


def _value(dice: Dice, words: _Words, shape: str, unit: str) -> Phrase:
    """Draw a value of a shape; its ``text`` is the answer, word for word."""
    language = words.language
    if shape == "person":
        return Phrase(names.person(dice, "mf"[dice.below(2)]))
    if shape == "place":
        return Phrase(names.place(dice))
    if shape == "brand":
        return Phrase(names.brand(dice))
    if shape == "noun":
        return Phrase(_nonce_noun(dice, language, long=True).text)
    if shape == "thing":
        return Phrase(words.described(dice.pick(words.things), dice.pick(words.shades)).text)
    if shape == "phrase":
        noun = _nonce_noun(dice, language)
        if dice.chance(0.4):
            return Phrase(f"{noun.text} {'of' if language == 'en' else 'de'} {names.place(dice)}")
        return Phrase(words.described(noun, dice.pick(words.shades)).text)
    if shape == "phrase_of":
        noun = dice.pick(words.nouns)
        of = f"{noun.text} {'of' if language == 'en' else 'de'} {names.place(dice)}"
        return Phrase(of, noun.gender, True)
    if shape == "two":
        first, second = (_value(dice, words, "noun", "").text for _ in "ab")
        return Phrase(and_then(first, second, language))
    if shape == "measure":
        return Phrase(f"{number(_some_number(dice), language)} {unit}")
    if shape == "decimal":
        return Phrase(f"{decimal(10 * dice.between(1, 99) + dice.between(1, 9), language)} {unit}")
    if shape == "number":
        return Phrase(number(_some_number(dice), language))
    if shape == "percent":
        return Phrase(f"{dice.between(2, 99)}{'%' if language == 'en' else ' %'}")
    if shape == "range":
        low = dice.between(2, 60)
        high = low + dice.between(1, 40)
        span = f"{low} to {high}" if language == "en" else f"entre {low} y {high}"
        return Phrase(f"{span} {unit}")
    if shape == "date":
        year = dice.between(1800, 2030) if dice.chance(0.7) else None
        text = date(dice.between(1, 28), dice.between(1, 12), year, language)
        return Phrase(text, "n" if language == "en" else "m", language == "es")
    if shape == "year":
        return Phrase(str(dice.between(1400, 2030)))
    if shape == "month":
        return Phrase(dice.pick(MONTHS[language]))
    if shape == "time":
        return Phrase(f"{dice.between(1, 23)}:{dice.between(0, 59):02d}")
    if shape == "code":
        return Phrase(names.code(dice))
    if shape == "quoted":
        return getattr(values.motto(dice, ""), language)  # type: ignore[no-any-return]
    assert shape == "often", shape
    text = dice.pick(words.often)
    text = text.replace("{n}", str(dice.between(3, 24)))
    return Phrase(text.replace("{noun}", _nonce_noun(dice, language).text))


def _some_number(dice: Dice) -> int:
    return dice.between(2, 10 ** dice.pick((1, 2, 2, 3, 3, 4, 5)) - 1)


_NAME_SHAPES = ("word", "word", "two", "code", "noun", "noun", "hyphen", "of_kind", "word_code")


def _name(dice: Dice, language: str, shape: str, kind: Phrase) -> Phrase:
    """A name for a thing; in Spanish its gender is its kind's, or a common noun's own."""
    if shape == "noun":
        gender = "mf"[dice.below(2)]
        text = names.noun(dice, gender)
        return Phrase(text) if language == "en" else Phrase(text, gender, True)
    if shape == "code":
        text = names.code(dice)
    elif shape == "two":
        text = f"{names.place(dice)} {names.surname(dice)}"
    elif shape == "hyphen":
        text = f"{names.place(dice)}-{names.surname(dice)}"
    elif shape == "word_code":
        text = f"{names.place(dice)} {dice.between(2, 99)}"
    else:
        text = names.place(dice)
    if shape == "of_kind":
        return Phrase(f"{kind.text} {text}", kind.gender, True)
    return Phrase(text, kind.gender)


def _item(dice: Dice, words: _Words, family: str) -> _Item:
    slots: Slots = {}
    if family in ("noun", "role", "grouped"):
        slots["attr"] = _attribute_noun(dice, words)
    else:
        slots["verb"] = _verb(dice, words)
    if family in ("prep", "never"):
        slots["prep"] = dice.pick(words.preps)
    if family == "grouped":
        slots["group"], slots["group2"] = _group(dice, words), _group(dice, words)
    return _Item(family, slots, dice.pick(_SHAPES[family]), _unit(dice, words))


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
    words, phrasings = _words(language), load("nonce", language)
    only_nouns = dice.chance(0.3)
    weights = list(_FAMILIES.values())
    pool = [
        _item(dice, words, "noun" if only_nouns else tuple(_FAMILIES)[dice.weighted(weights)])
        for _ in range(facts[1] + 1)
    ]
    kind = _nonce_noun(dice, language) if dice.chance(0.7) else dice.pick(words.kinds)
    shape = dice.pick(_NAME_SHAPES)
    subjects = [
        _subject(dice, words, pool, _name(dice, language, shape, kind), dice.between(*facts))
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
            subject = _Subject(_name(dice, language, shape, kind))
        return Question(fill(subject, index, pool[index].slots), None, None, pool[index].family)

    questions = choose_questions(
        dice, texts, answerable(), without_answer, n_questions, unanswerable
    )
    return ReadingExercise(tuple(texts), questions, language, "nonce")


def _subject(
    dice: Dice, words: _Words, pool: Sequence[_Item], name: Phrase, n_facts: int
) -> _Subject:
    subject = _Subject(name)
    for index in dice.sample(range(len(pool)), n_facts):
        item = pool[index]
        slots = dict(item.slots)
        slots["value"] = value = _value(dice, words, item.shape, item.unit)
        if item.family == "grouped":
            slots["value2"] = _value(dice, words, item.shape, item.unit)
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
        return layout(dice, name.text[:1].upper() + name.text[1:], pairs)
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
