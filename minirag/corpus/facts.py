"""Entities and facts: what is true in the invented world, before anything is put into words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from minirag.corpus.dice import Dice
from minirag.corpus.grammar import Bilingual
from minirag.corpus.phrasings import load
from minirag.corpus.values import Maker, same

PEOPLE = ("person", "traveller")  # kinds whose later mention is the family name


class Entity(NamedTuple):
    """Something of which facts are known."""

    kind: str
    name: Bilingual  # how it is mentioned: "the river Tor", "el río Tor"
    facts: Mapping[str, Bilingual]  # attribute -> value
    short: Bilingual  # a later mention: "the river", "el río"; of a person the family name


@dataclass(frozen=True)
class Domain:
    """A field of knowledge: its kinds of entity, their attributes, and how they are named."""

    name: str  # also the name of its phrasings: "medicine" for medicine.en.json
    kinds: Mapping[str, Mapping[str, Maker]]  # kind -> attribute -> maker of values
    new_name: Callable[[Dice, str], Bilingual]
    closed: frozenset[str] = frozenset()  # attributes with so few values that one could guess
    entry_kinds: tuple[str, ...] = ()  # the kinds that have entries (all of them if empty)

    def documented(self) -> tuple[str, ...]:
        """Return the kinds of entity about which there are documents."""
        return self.entry_kinds or tuple(self.kinds)

    def new_entity(self, dice: Dice, kind: str, n_facts: int | None = None) -> Entity:
        """Draw an entity with ``n_facts`` of its kind's attributes (all of them if None)."""
        makers = self.kinds[kind]
        chosen = dice.sample(tuple(makers), len(makers) if n_facts is None else n_facts)
        name = self.new_name(dice, kind)
        gender = name.es.gender
        facts = {attribute: makers[attribute](dice, gender) for attribute in chosen}
        return Entity(kind, name, facts, self.short_mention(kind, name))

    def short_mention(self, kind: str, name: Bilingual) -> Bilingual:
        """Return what an entity is called once it has been named."""
        if kind in PEOPLE:
            return same(name.en.text.rpartition(" ")[2], name.es.gender)
        return Bilingual(
            load(self.name, "en").kinds[kind].noun, load(self.name, "es").kinds[kind].noun
        )

    def mention(self, kind: str, core: str, *, title: int = 0, gender: str | None = None,
                spanish: str | None = None) -> Bilingual:  # fmt: skip
        """Return the phrases that name an entity, from its bare invented name.

        ``spanish`` is given where the bare name differs ("lopinage", "lopinaje").
        """
        english = load(self.name, "en").kinds[kind].mention(core, title)
        return Bilingual(
            english, load(self.name, "es").kinds[kind].mention(spanish or core, title, gender)
        )
