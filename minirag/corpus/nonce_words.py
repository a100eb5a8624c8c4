"""The words of nonce exercises: nouns, verbs and units, made up or real, values of every shape.

The real nouns and verbs come from ``phrasings/nonce.LANGUAGE.json``; everything else is made up
anew for each exercise.
"""

from __future__ import annotations

import functools

from minirag.corpus import names, values
from minirag.corpus.dice import Dice
from minirag.corpus.grammar import MONTHS, Phrase, Verb, and_then, date, decimal, number, with_s
from minirag.corpus.phrasings import load

NAME_SHAPES = ("word", "word", "two", "code", "noun", "noun", "hyphen", "of_kind", "word_code")


class NonceWords:
    """Draws words in one language."""

    def __init__(self, language: str) -> None:
        raw = load("nonce", language).raw
        self.language = language
        self._of = "of" if language == "en" else "de"
        self._verbs = [Verb(stem) for stem in raw["verbs"]]
        self._preps = [Phrase(prep) for prep in raw["preps"]]
        self._units: list[str] = raw["units"]
        self._often: list[str] = raw["often"]
        self._people = [self.parse(entry) for entry in raw["people"]]
        self._nouns = [self.parse(entry) for entry in raw["nouns"]]
        self._heads = [self.parse(entry) for entry in raw["heads"]]
        self._kinds = [self.parse(entry) for entry in raw["sorts"]]
        self._things = [self.parse(entry) for entry in raw["things"]]
        self._adjectives: list[str] = raw["adjectives"]
        self._shades: list[str] = raw["shades"]

    def parse(self, entry: str) -> Phrase:
        """Read a list's entry; Spanish ones carry their article."""
        if self.language == "en":
            return Phrase(entry)
        article, _, text = entry.partition(" ")
        if article in ("los", "las"):  # groups of people keep it
            return Phrase(entry, "f" if article == "las" else "m")
        return Phrase(text, "f" if article == "la" else "m")

    def _described(self, noun: Phrase, adjective: str) -> Phrase:
        """Put an adjective to a noun: "dry torvin", "torvina seca"."""
        if self.language == "en":
            return Phrase(f"{adjective} {noun.text}")
        masculine, _, feminine = adjective.partition("/")
        form = feminine if noun.gender == "f" else masculine
        return Phrase(f"{noun.text} {form}", noun.gender)

    def noun(self, dice: Dice, *, long: bool = False) -> Phrase:
        """A made-up common noun."""
        short = not long and dice.chance(0.7)
        if self.language == "en":
            return Phrase(names.noun(dice, short=short))
        gender = "mf"[dice.below(2)]
        return Phrase(names.noun(dice, gender, short=short), gender)

    def kind(self, dice: Dice) -> Phrase:
        """What the things of an exercise are: made up, "vorp", or real, "device"."""
        return self.noun(dice) if dice.chance(0.7) else dice.pick(self._kinds)

    def attribute(self, dice: Dice) -> Phrase:
        """An attribute: "plim", "usual plim", "plim rate", "tail", "usual tail"."""
        shape = dice.unit()
        if shape < 0.3:
            return self.noun(dice)
        if shape < 0.4:
            return self._described(self.noun(dice), dice.pick(self._adjectives))
        if shape < 0.55:
            head, plim = dice.pick(self._heads), self.noun(dice)
            if self.language == "en":
                return Phrase(f"{plim.text} {head.text}")
            return Phrase(f"{head.text} de {plim.text}", head.gender)
        if shape < 0.8:
            return dice.pick(self._nouns)
        return self._described(dice.pick(self._nouns), dice.pick(self._adjectives))

    def verb(self, dice: Dice) -> Verb:
        """A regular verb, real or made up."""
        return dice.pick(self._verbs) if dice.chance(0.5) else Verb(names.short_word(dice))

    def preposition(self, dice: Dice) -> Phrase:
        """A preposition."""
        return dice.pick(self._preps)

    def group(self, dice: Dice) -> Phrase:
        """A group of people or of things: "beginners", "tarls"."""
        if dice.chance(0.5):
            return dice.pick(self._people)
        word = names.short_word(dice)
        return Phrase(with_s(word)) if self.language == "en" else Phrase(f"los {word}os", "m")

    def unit(self, dice: Dice) -> str:
        """A unit of measure in the plural, real or made up."""
        if dice.chance(0.55):
            return dice.pick(self._units)
        word = names.short_word(dice)
        return with_s(word) if self.language == "en" else word + "os"

    def name(self, dice: Dice, shape: str, kind: Phrase) -> Phrase:
        """A name for a thing; in Spanish its gender is its kind's, or a common noun's own."""
        match shape:
            case "noun":
                gender = "mf"[dice.below(2)]
                text = names.noun(dice, gender)
                return Phrase(text) if self.language == "en" else Phrase(text, gender, True)
            case "of_kind":
                return Phrase(f"{kind.text} {names.place(dice)}", kind.gender, True)
            case "code":
                text = names.code(dice)
            case "two":
                text = f"{names.place(dice)} {names.surname(dice)}"
            case "hyphen":
                text = f"{names.place(dice)}-{names.surname(dice)}"
            case "word_code":
                text = f"{names.place(dice)} {dice.between(2, 99)}"
            case _:
                text = names.place(dice)
        return Phrase(text, kind.gender)

    def value(self, dice: Dice, shape: str, unit: str) -> Phrase:
        """A value of a shape; its ``text`` is the answer, word for word."""
        language = self.language
        match shape:
            case "date":
                year = dice.between(1800, 2030) if dice.chance(0.7) else None
                text = date(dice.between(1, 28), dice.between(1, 12), year, language)
                return Phrase(text, "m" if language == "es" else "n", language == "es")
            case "phrase_of":
                noun = dice.pick(self._nouns)
                return Phrase(f"{noun.text} {self._of} {names.place(dice)}", noun.gender, True)
            case "quoted":
                phrase: Phrase = getattr(values.motto(dice, ""), language)
                return phrase
            case _:
                return Phrase(self._plain_value(dice, shape, unit))

    def _plain_value(self, dice: Dice, shape: str, unit: str) -> str:
        language = self.language
        match shape:
            case "person":
                return names.person(dice, "mf"[dice.below(2)])
            case "place":
                return names.place(dice)
            case "brand":
                return names.brand(dice)
            case "code":
                return names.code(dice)
            case "noun":
                return self.noun(dice, long=True).text
            case "thing":
                return self._described(dice.pick(self._things), dice.pick(self._shades)).text
            case "phrase":
                noun = self.noun(dice)
                if dice.chance(0.4):
                    return f"{noun.text} {self._of} {names.place(dice)}"
                return self._described(noun, dice.pick(self._shades)).text
            case "two":
                first, second = self.noun(dice, long=True).text, self.noun(dice, long=True).text
                return and_then(first, second, language)
            case "number":
                return number(_some_number(dice), language)
            case "measure":
                return f"{number(_some_number(dice), language)} {unit}"
            case "decimal":
                tenths = 10 * dice.between(1, 99) + dice.between(1, 9)
                return f"{decimal(tenths, language)} {unit}"
            case "percent":
                return f"{dice.between(2, 99)}{'%' if language == 'en' else ' %'}"
            case "range":
                low = dice.between(2, 60)
                high = low + dice.between(1, 40)
                span = f"{low} to {high}" if language == "en" else f"entre {low} y {high}"
                return f"{span} {unit}"
            case "year":
                return str(dice.between(1400, 2030))
            case "month":
                return dice.pick(MONTHS[language])
            case "time":
                return f"{dice.between(1, 23)}:{dice.between(0, 59):02d}"
            case "often":
                text = dice.pick(self._often).replace("{n}", str(dice.between(3, 24)))
                return text.replace("{noun}", self.noun(dice).text)
        raise AssertionError(f"no value has the shape {shape!r}")


def _some_number(dice: Dice) -> int:
    return dice.between(2, 10 ** dice.pick((1, 2, 2, 3, 3, 4, 5)) - 1)


@functools.cache
def nonce_words(language: str) -> NonceWords:
    """Return the words of a language, read once."""
    return NonceWords(language)
