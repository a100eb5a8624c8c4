"""The general world: an invented country, its kinds of entity and their attributes.

Some of its entities are well known: they are the same in every world and recur in all general text,
so that a model learns them by heart.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

from minirag.corpus import names, values
from minirag.corpus.dice import Dice
from minirag.corpus.facts import PEOPLE, Domain, Entity
from minirag.corpus.grammar import Bilingual, Phrase
from minirag.corpus.phrasings import load
from minirag.corpus.values import Maker

COUNTRY = Bilingual(Phrase("Lumeria", "f"), Phrase("Lumeria", "f"))


def of_kind(kind: str) -> Maker:
    """A maker of values that are entities of a kind, without facts of their own."""
    return lambda dice, _: new_name(dice, kind)


# For each kind its attributes, for each attribute the maker of its values.
KINDS: dict[str, dict[str, Maker]] = {
    "person": {
        "birth_place": values.place, "birth_date": values.full_date,
        "profession": values.profession, "spouse": values.person, "teacher": values.person,
        "employer": values.brand, "favourite_food": of_kind("food"), "pet": values.pet_name,
        "address": values.address,
    },
    "town": {
        "mayor": values.person, "population": values.count(200, 900_000),
        "founded": values.year, "region": values.place,
        "altitude": values.measure(2, 2500, "metres", "metros"), "twin_town": values.place,
        "speciality": of_kind("food"), "postal_code": values.code, "founder": values.person,
    },
    "company": {
        "founder": values.person, "founded": values.year, "seat": values.place,
        "product": values.goods, "employees": values.count(12, 40_000),
        "director": values.person, "revenue": values.crowns(5000, 900_000),
    },
    "animal": {
        "habitat": values.place, "diet": of_kind("plant"),
        "weight": values.measure(2, 900, "kilos", "kilos"),
        "lifespan": values.measure(2, 90, "years", "años"), "colour": values.colour,
        "predator": of_kind("animal"), "discoverer": values.person,
        "discovered": values.year,
    },
    "novel": {
        "author": values.person, "published": values.year, "hero": values.person,
        "pages": values.count(40, 990), "publisher": values.brand, "setting": values.place,
        "price": values.crowns(3, 90),
    },
    "event": {
        "place": values.place, "day": values.day_of_year, "winner": values.person,
        "prize": values.crowns(20, 90_000), "visitors": values.count(50, 90_000),
        "organiser": values.person,
    },
    "river": {
        "source": of_kind("mountain"), "mouth": of_kind("river"),
        "length": values.measure(12, 990, "kilometres", "kilómetros"),
        "width": values.measure(3, 400, "metres", "metros"), "region": values.place,
        "discoverer": values.person,
    },
    "mountain": {
        "height": values.measure(300, 7900, "metres", "metros"),
        "first_climber": values.person, "region": values.place, "discovered": values.year,
    },
    "food": {
        "ingredient": of_kind("plant"), "origin": values.place, "inventor": values.person,
        "cooking_time": values.measure(5, 240, "minutes", "minutos"),
        "price": values.crowns(2, 80),
    },
    "club": {
        "president": values.person, "founded": values.year,
        "members": values.count(20, 90_000), "ground": values.ground,
        "colours": values.two_colours, "founder": values.person, "location": values.place,
    },
    "ship": {
        "captain": values.person, "length": values.measure(8, 320, "metres", "metros"),
        "built": values.year, "home_port": values.place, "cargo": values.goods,
        "owner": values.brand, "speed": values.measure(5, 45, "knots", "nudos"),
    },
    "machine": {
        "inventor": values.person, "weight": values.measure(2, 9000, "kilos", "kilos"),
        "price": values.crowns(40, 90_000), "serial": values.code, "maker": values.brand,
        "speed": values.measure(5, 300, "kilometres an hour", "kilómetros por hora"),
    },
    "museum": {
        "architect": values.person, "founded": values.year, "ticket": values.crowns(2, 60),
        "treasure": of_kind("novel"), "location": values.place, "director": values.person,
        "visitors": values.count(300, 900_000),
    },
    "plant": {
        "colour": values.colour, "bloom": values.month, "discoverer": values.person,
        "height": values.decimal_measure(3, 90, "metres", "metros"), "region": values.place,
        "price": values.crowns(2, 90),
    },
    "star": {
        "discoverer": values.person, "discovered": values.year, "serial": values.code,
        "distance": values.measure(4, 9000, "light years", "años luz"),
        "colour": values.colour,
    },
    "school": {
        "head": values.person, "students": values.count(30, 4000), "motto": values.motto,
        "location": values.place, "founded": values.year,
    },
    "bridge": {
        "length": values.measure(12, 2400, "metres", "metros"), "builder": values.person,
        "built": values.year, "crosses": of_kind("river"), "location": values.place,
        "width": values.measure(3, 40, "metres", "metros"),
    },
    "traveller": {  # people in stories: what they do on the way
        "met": values.person, "went_to": values.place, "bought": values.thing,
        "lost": values.thing, "wrote_to": values.person, "slept": values.inn,
        "promised": values.day_of_year,
    },
}  # fmt: skip


def new_name(dice: Dice, kind: str) -> Bilingual:
    """Draw a name for an entity of a kind, as it is mentioned in each language."""
    gender = None
    if kind in PEOPLE:
        gender = "mf"[dice.below(2)]
        return values.same(names.person(dice, gender), gender)
    if kind == "company":
        core = names.brand(dice)
    elif kind == "machine":
        core = names.code(dice)
    elif kind in ("animal", "plant", "food"):
        gender = "mf"[dice.below(2)]
        core = names.noun(dice, gender)
    else:
        core = names.place(dice)
    titles = len(load("general", "en").kinds[kind].titles)
    return GENERAL.mention(kind, core, title=dice.below(titles) if titles else 0, gender=gender)


GENERAL = Domain(
    "general",
    KINDS,
    new_name,
    closed=frozenset({"profession", "colour", "bloom"}),
    entry_kinds=tuple(kind for kind in KINDS if kind != "traveller"),
)


@functools.cache
def well_known() -> tuple[Entity, ...]:
    """The entities that everybody in the country knows: the same in every world, whatever its seed.

    They recur in all general text, so that a model learns their facts by heart: what it answers
    about them without a passage is its general knowledge.
    """
    dice = Dice("the well-known entities of", COUNTRY.en.text)
    return tuple(
        GENERAL.new_entity(dice, kind, 5) for _ in range(3) for kind in GENERAL.entry_kinds
    )


@functools.cache
def _by_name() -> Mapping[str, Entity]:
    return {entity.name.en.text: entity for entity in well_known()}


def well_known_facts(english_name: str) -> Mapping[str, Bilingual] | None:
    """All the facts of a well-known entity; None if the name is not one's."""
    entity = _by_name().get(english_name)
    return entity.facts if entity else None
