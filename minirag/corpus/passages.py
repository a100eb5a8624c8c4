"""From facts to text: encyclopaedia entries, lists, letters and stories.

Every writer takes the entities with the facts it has to state and states each of them exactly once;
what nobody asks about (introductions, asides) comes in between, and an entity that has been named
may be called by a pronoun, by its kind ("the river") or by a family name afterwards.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from minirag.corpus.dice import Dice
from minirag.corpus.facts import Entity
from minirag.corpus.general import COUNTRY
from minirag.corpus.grammar import Phrase, Verb, and_then, capitalised, contract, date
from minirag.corpus.phrasings import Phrasings, Statement
from minirag.corpus.values import person, place

Slots = dict[str, "Phrase | Verb"]


def sentences_about(
    dice: Dice,
    statements: Sequence[tuple[Statement, Slots]],
    name: Phrase,
    short: Phrase,
    *,
    phrasings: Phrasings,
    named: bool,
) -> list[str]:
    """State facts of one subject, one after the other, as running text.

    Parameters
    ----------
    statements : sequence of (statement, slots without "name")
    name, short : Phrase
        The full mention, and the one for when the subject has been named.
    phrasings : Phrasings
        Where openers ("According to the almanac,") come from.
    named : bool
        Has the subject been named already (by an introduction or a heading)?
    """
    language, openers = phrasings.language, phrasings.texts["openers"]
    out: list[str] = []
    i = 0
    while i < len(statements):
        statement, slots = statements[i]
        mention = dice.unit()
        slots["name"] = short if named and mention > 0.72 else name
        joined = i + 1 < len(statements) and statement.predicate and dice.chance(0.18)
        second = statements[i + 1][0].predicate if joined else None
        if statement.predicate and second:
            statements[i + 1][1]["name"] = slots["name"]
            predicates = and_then(
                statement.predicate.inside(slots), second.inside(statements[i + 1][1]), language
            )
            out.append(_subject(slots["name"], language) + " " + predicates + ".")
            i += 1
        elif named and statement.pronoun and 0.4 < mention <= 0.72:
            slots["name"] = name
            out.append(statement.pronoun.fill(slots))
        elif statement.predicate and dice.chance(0.08):
            opener = dice.pick(openers).fill(slots)
            subject = _subject(slots["name"], language, capital=False)
            out.append(f"{opener} {subject} {statement.predicate.inside(slots)}.")
        else:
            out.append(statement.template.fill(slots))
        named = True
        i += 1
    return out


def _subject(name: Phrase | Verb, language: str, *, capital: bool = True) -> str:
    assert isinstance(name, Phrase)
    article = "the " if language == "en" else ("la " if name.gender == "f" else "el ")
    text = article + name.text if name.article else name.text
    return capitalised(text) if capital else text


def entry(
    dice: Dice,
    entity: Entity,
    phrasings: Phrasings,
    *,
    held_out: bool = False,
    heading: bool | None = None,
) -> str:
    """Write an encyclopaedia entry about one entity (``heading`` None: now and then with one)."""
    language = phrasings.language
    name: Phrase = getattr(entity.name, language)
    slots: Slots = {"name": name, "country": getattr(COUNTRY, language)}
    heading = dice.chance(0.12) if heading is None else heading
    intro = dice.chance(0.45)
    parts = []
    if intro:
        parts.append(dice.pick(phrasings.kinds[entity.kind].intros).fill(slots))
    statements = _statements(dice, entity, phrasings, held_out)
    parts += sentences_about(
        dice,
        statements,
        name,
        getattr(entity.short, language),
        phrasings=phrasings,
        named=heading or intro,
    )
    return with_asides(dice, parts, slots, phrasings, heading=name if heading else None)


def _statements(
    dice: Dice, entity: Entity, phrasings: Phrasings, held_out: bool
) -> list[tuple[Statement, Slots]]:
    language, attributes = phrasings.language, phrasings.attributes
    return [
        (
            attributes[key].statement(dice, held_out=held_out),
            {"value": getattr(entity.facts[key], language)},
        )
        for key in dice.shuffled(tuple(entity.facts))
    ]


def with_asides(
    dice: Dice,
    parts: list[str],
    slots: Slots,
    phrasings: Phrasings,
    *,
    heading: Phrase | None = None,
) -> str:
    """Join sentences, with now and then one that states nothing, and perhaps a heading."""
    if dice.chance(0.3):
        aside = dice.pick(phrasings.texts["fillers"]).fill(slots)
        parts.insert(dice.between(1, len(parts)), aside)
    text = " ".join(parts)
    return f"{capitalised(heading.text)}\n{text}" if heading else text


_BULLETS = ("- ", "* ", "• ", "", "– ")


def layout(dice: Dice, title: str, pairs: Sequence[tuple[str, str]]) -> str:
    """Lay (label, value) pairs out as a list of lines, or on one line."""
    form = dice.unit()
    if form < 0.6:
        bullet = dice.pick(_BULLETS)
        return "\n".join([title, *(f"{bullet}{capitalised(k)}: {v}" for k, v in pairs)])
    if form < 0.8:
        return f"{title} ({'; '.join(f'{k}: {v}' for k, v in pairs)})"
    return f"{title}. " + " ".join(f"{capitalised(k)}: {v}." for k, v in pairs)


def facts_list(dice: Dice, entity: Entity, phrasings: Phrasings) -> str:
    """List the facts of one entity, without sentences."""
    language = phrasings.language
    title = dice.pick(phrasings.texts["list.openers"]).fill(
        {"name": getattr(entity.name, language)}
    )
    pairs = []
    for key in dice.shuffled(tuple(entity.facts)):
        value: Phrase = getattr(entity.facts[key], language)
        pairs.append((phrasings.attributes[key].label_for(value), value.text))
    return layout(dice, title, pairs)


def document(
    dice: Dice, entity: Entity, phrasings: Phrasings, day: datetime.date, *, held_out: bool = False
) -> str:
    """Write a dated document of a domain: the line with its date, then an entry or a list."""
    version = dateline(dice, day, phrasings)
    if dice.chance(0.15) and not held_out:
        return f"{version}\n{facts_list(dice, entity, phrasings)}"
    return f"{version} {entry(dice, entity, phrasings, held_out=held_out, heading=False)}"


def dateline(dice: Dice, day: datetime.date, phrasings: Phrasings) -> str:
    """Say of when a document is: "Revised on 3 May 2038."."""
    when = Phrase(date(day.day, day.month, day.year, phrasings.language))
    return dice.pick(phrasings.texts["versions"]).fill({"date": when})


def letter(
    dice: Dice, entities: Sequence[Entity], phrasings: Phrasings, *, held_out: bool = False
) -> str:
    """Write a letter that mentions one or more entities."""
    language, texts = phrasings.language, phrasings.texts
    friend, writer = getattr(person(dice, ""), language), getattr(person(dice, ""), language)
    slots: Slots = {
        "friend": Phrase(friend.text.partition(" ")[0], friend.gender),
        "writer": Phrase(writer.text.partition(" ")[0], writer.gender),
        "town": getattr(place(dice, ""), language),
    }
    parts = [dice.pick(texts["letter.beginnings"]).fill(slots)]
    for entity in entities:
        parts += sentences_about(
            dice,
            _statements(dice, entity, phrasings, held_out),
            getattr(entity.name, language),
            getattr(entity.short, language),
            phrasings=phrasings,
            named=False,
        )
    if dice.chance(0.6):
        parts.append(dice.pick(texts["letter.middles"]).fill(slots))
    greeting = dice.pick(texts["letter.greetings"]).fill(slots)
    ending = dice.pick(texts["letter.endings"]).fill(slots)
    return f"{greeting}\n{' '.join(parts)}\n{ending}"


def story(
    dice: Dice, entities: Sequence[Entity], phrasings: Phrasings, *, held_out: bool = False
) -> str:
    """Tell what several entities did; their facts come interleaved, each with its subject."""
    language, texts = phrasings.language, phrasings.texts
    slots: Slots = {"town": getattr(place(dice, ""), language)}
    parts = [dice.pick(texts["story.beginnings"]).fill(slots)] if dice.chance(0.7) else []
    queues = [(entity, _statements(dice, entity, phrasings, held_out)) for entity in entities]
    met: set[str] = set()
    while queues:
        turn = dice.below(len(queues))
        entity, left = queues[turn]
        statement, slots_of_fact = left.pop()
        name: Phrase = getattr(entity.name, language)
        known = name.text in met
        called = getattr(entity.short, language) if known and dice.chance(0.4) else name
        slots_of_fact["name"] = called
        met.add(name.text)
        if statement.predicate and dice.chance(0.3):
            link = dice.pick(texts["story.links"]).fill(slots)
            subject = _subject(called, language, capital=False)
            sentence = f"{link} {subject} {statement.predicate.inside(slots_of_fact)}."
            parts.append(contract(sentence) if language == "es" else sentence)
        else:
            parts.append(statement.template.fill(slots_of_fact))
        if dice.chance(0.15):
            parts.append(dice.pick(texts["story.middles"]).fill(slots))
        if not left:
            queues.pop(turn)
    if dice.chance(0.5):
        parts.append(dice.pick(texts["story.endings"]).fill(slots))
    return " ".join(parts)
