"""Reviews with sentiment: labels that no single word gives away.

A review is a few sentences and a verdict. Positive sentences may hold negative adjectives ("nothing
about the room was shabby") and the other way round, concessions say the opposite of the verdict,
and half of the reviews have no verdict sentence at all: what decides is what is meant.
"""

from __future__ import annotations

from dataclasses import dataclass

from minirag.corpus import names
from minirag.corpus.dice import Dice
from minirag.corpus.grammar import Phrase
from minirag.corpus.passages import Slots
from minirag.corpus.phrasings import Phrasings, load

LABELS = ("negative", "positive")


@dataclass(frozen=True)
class Review:
    """A review and whether it is "positive" or "negative"."""

    text: str
    label: str
    language: str


def reviews(seed: int, language: str, n: int) -> list[Review]:
    """Draw ``n`` reviews, exactly balanced (one more negative if ``n`` is odd), in random order."""
    dice, phrasings = Dice(seed, "reviews", language), load("reviews", language)
    labels = dice.shuffled([LABELS[i % 2] for i in range(n)])
    return [Review(_review(dice, phrasings, label), label, language) for label in labels]


def _review(dice: Dice, phrasings: Phrasings, label: str) -> str:
    texts, kind = phrasings.texts, dice.pick(tuple(phrasings.raw["subjects"]))
    subject = phrasings.raw["subjects"][kind]
    name = _name(dice, kind, subject["name"], phrasings.language)
    aspects = dice.sample([_noun(entry, phrasings.language) for entry in subject["aspects"]], 4)

    def sentence(key: str, aspect: Phrase) -> str:
        slots: Slots = {"aspect": aspect, "name": name}
        for polarity in ("pos", "neg"):
            slots[polarity] = _adjective(dice.pick(phrasings.raw[polarity]), aspect)
        return dice.pick(texts[key]).fill(slots)

    parts = [sentence("neutral", aspects[0])] if dice.chance(0.5) else []
    if dice.chance(0.5):
        parts.append(sentence(f"concessions.{label}", aspects[0]))
    parts += [sentence(label, aspect) for aspect in aspects[1 : dice.between(2, 3)]]
    if dice.chance(0.5):
        parts.append(sentence(f"verdicts.{label}", aspects[3]))
    return " ".join(parts)


def _name(dice: Dice, kind: str, pattern: str, language: str) -> Phrase:
    core = names.place(dice)
    if kind == "machine":
        core = names.code(dice)
    elif kind == "food":
        core = names.noun(dice, "m")
    article, _, rest = pattern.partition(" ")
    if article in ("the", "el", "la"):
        gender = {"the": "n", "el": "m", "la": "f"}[article]
        return Phrase(rest.format(core), gender, True)
    return Phrase(pattern.format(core), "n" if language == "en" else "f")


def _noun(entry: str, language: str) -> Phrase:
    if language == "en":
        return Phrase(entry)
    article, _, text = entry.partition(" ")
    return Phrase(text, "f" if article == "la" else "m")


def _adjective(entry: str, noun: Phrase) -> Phrase:
    masculine, _, feminine = entry.partition("/")
    return Phrase(feminine if feminine and noun.gender == "f" else masculine)
