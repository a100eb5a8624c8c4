"""Exercises about nonce attributes: what makes reading a general skill.

A model that reads only about a fixed list of attributes learns the list. Here the attribute itself
is made up for each exercise ("The plim of the vorp Kaldrin is 40 drams", "Kaldrin is never merped
before torvin"), in many frames, with values of every shape, so that the only way to answer is to
read. Nothing in it is taken from the domains that come later.
"""

from __future__ import annotations

from minirag.corpus.dice import Dice
from minirag.corpus.grammar import Phrase
from minirag.corpus.invented import Item, Topic
from minirag.corpus.nonce_words import NAME_SHAPES, NonceWords, nonce_words
from minirag.corpus.passages import Slots
from minirag.corpus.phrasings import Phrasings, load

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


def nonce_topic(dice: Dice, language: str, n_items: int) -> Topic:
    """Draw what an exercise is about: things of a made-up kind with made-up attributes."""
    words, phrasings = nonce_words(language), load("nonce", language)
    only_nouns = dice.chance(0.3)
    weights = list(_FAMILIES.values())
    pool = [
        _item(
            dice,
            words,
            phrasings,
            "noun" if only_nouns else tuple(_FAMILIES)[dice.weighted(weights)],
        )
        for _ in range(n_items)
    ]
    kind, shape = words.kind(dice), dice.pick(NAME_SHAPES)
    return Topic("nonce", kind, lambda dice: words.name(dice, shape, kind), pool, phrasings)


def _item(dice: Dice, words: NonceWords, phrasings: Phrasings, family: str) -> Item:
    slots: Slots = {}
    if family in ("noun", "role", "grouped"):
        slots["attr"] = words.attribute(dice)
    else:
        slots["verb"] = words.verb(dice)
    if family in ("prep", "never"):
        slots["prep"] = words.preposition(dice)
    if family == "grouped":
        slots["group"], slots["group2"] = words.group(dice), words.group(dice)
    shape, unit = dice.pick(_SHAPES[family]), words.unit(dice)

    def fill(dice: Dice) -> Slots | None:
        filled = {**slots, "value": words.value(dice, shape, unit)}
        if family == "grouped":
            filled["value2"] = words.value(dice, shape, unit)
            if filled["value2"] == filled["value"]:
                return None
            if dice.chance(0.5):
                filled["group"], filled["group2"] = filled["group2"], filled["group"]
        return filled

    attr = slots.get("attr")
    label = attr.text if family == "noun" and isinstance(attr, Phrase) else None
    return Item(family, phrasings.attributes[family], slots, fill, label)
