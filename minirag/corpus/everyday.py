"""Exercises about everyday attributes of invented things: opening hours, habits, smells, rivals.

Hundreds of attributes from all walks of life, each in several wordings that are no mirrors of each
other ("gives work to 40 people" answers "How many employees ...?"). The general world is a list of
attributes that a model could learn by heart; these make the list too long for that, in words that
mean something, which the made-up ones (:mod:`minirag.corpus.nonce`) don't.
"""

from __future__ import annotations

import functools
from typing import Any

from minirag.corpus import names
from minirag.corpus.dice import Dice
from minirag.corpus.grammar import Phrase
from minirag.corpus.invented import Item, Topic
from minirag.corpus.nonce_words import NAME_SHAPES, NonceWords, nonce_words
from minirag.corpus.passages import Slots
from minirag.corpus.phrasings import Phrasings, load


def everyday_topic(dice: Dice, language: str, n_items: int) -> Topic:
    """Draw what an exercise is about: things of a real sort, attributes that suit them."""
    words, phrasings = nonce_words(language), load("everyday", language)
    sort = dice.pick(SORTS)
    kind = dice.pick(_kinds(sort, language))
    keys = dice.sample(_keys(sort, language), n_items)
    pool = [_item(words, phrasings, key) for key in keys]
    if sort == "person":
        gender = kind.gender if kind.gender != "n" else "mf"[dice.below(2)]

        def new_name(dice: Dice) -> Phrase:
            return Phrase(names.person(dice, gender), gender)

    else:
        shape = dice.pick(NAME_SHAPES)

        def new_name(dice: Dice) -> Phrase:
            return words.name(dice, shape, kind)

    return Topic("everyday", kind, new_name, pool, phrasings)


SORTS = ("person", "place", "thing", "group", "event", "creature", "work")


@functools.cache
def _keys(sort: str, language: str) -> tuple[str, ...]:
    attributes = load("everyday", language).raw["attributes"]
    return tuple(key for key, entry in attributes.items() if entry["of"] == sort)


@functools.cache
def _kinds(sort: str, language: str) -> tuple[Phrase, ...]:
    sorts = load("everyday", language).raw["sorts"]
    return tuple(nonce_words(language).parse(entry) for entry in sorts[sort])


def _item(words: NonceWords, phrasings: Phrasings, key: str) -> Item:
    entry: dict[str, Any] = phrasings.raw["attributes"][key]

    def fill(dice: Dice) -> Slots:
        if "values" in entry:
            return {"value": Phrase(dice.pick(entry["values"]))}
        unit = dice.pick(entry["units"]) if "units" in entry else ""
        return {"value": words.value(dice, entry["shape"], unit)}

    attribute = phrasings.attributes[key]
    return Item(key, attribute, {}, fill, attribute.label)
