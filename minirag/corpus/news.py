"""A dated news feed of the invented country: mayors change, ships get new captains.

The subjects are entities of the general world that are not well known; each item supersedes the
one before it about the same attribute, so that only the newest is true.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from minirag.corpus.dice import Dice
from minirag.corpus.general import GENERAL, KINDS
from minirag.corpus.grammar import Bilingual, Phrase, date
from minirag.corpus.passages import Slots
from minirag.corpus.phrasings import load
from minirag.errors import UsageError

# What changes in this country, and may be asked for again.
_CHANGES = [
    ("town", "mayor"), ("town", "population"), ("company", "director"), ("company", "employees"),
    ("club", "president"), ("club", "members"), ("ship", "captain"), ("ship", "owner"),
    ("museum", "director"), ("museum", "ticket"), ("school", "head"), ("school", "students"),
    ("event", "winner"), ("event", "prize"),
]  # fmt: skip


@dataclass(frozen=True)
class NewsItem:
    """One piece of news; ``question`` and ``answer`` hold once it has appeared."""

    id: str
    date: datetime.date
    headline: str
    text: str
    question: str
    answer: str
    supersedes: str | None  # id of the item that it makes out of date
    language: str


def news(seed: int, language: str, n: int) -> list[NewsItem]:
    """Draw ``n`` items, oldest first; about half of them supersede an earlier one.

    The same seed tells the same news in both languages, under the same ids.
    """
    if n < 0:
        raise UsageError(f"n is {n}: give 0 or more.")
    events, words = Dice(seed, "news"), Dice(seed, "news", language)
    phrasings = load("general", language)
    day = datetime.date(2040, 1, 1)
    running: list[tuple[Bilingual, str, str, str, Bilingual]] = []  # name, kind, key, id, value
    out = []
    for number in range(1, n + 1):
        day += datetime.timedelta(days=events.between(1, 4))
        id, before, supersedes = f"news-{number}", None, None
        if running and events.chance(0.5):
            name, kind, key, supersedes, before = running.pop(events.below(len(running)))
        else:
            kind, key = events.pick(_CHANGES)
            name = GENERAL.new_name(events, kind)
        value = KINDS[kind][key](events, name.es.gender)
        while value == before:
            value = KINDS[kind][key](events, name.es.gender)
        running.append((name, kind, key, id, value))
        slots: Slots = {"name": getattr(name, language), "value": getattr(value, language)}
        attribute, texts = phrasings.attributes[key], phrasings.texts
        sentences = [attribute.statement(words).template.fill(slots)]
        if before is not None and words.chance(0.5):
            old: Slots = {"value": getattr(before, language)}
            sentences.append(words.pick(texts["news.befores"]).fill(old))
        if words.chance(0.5):
            sentences.append(words.pick(texts["news.asides"]).fill(slots))
        when = Phrase(date(day.day, day.month, day.year, language))
        out.append(
            NewsItem(
                id,
                day,
                words.pick(texts["news.headlines"]).fill(slots),
                f"{when.text}. {' '.join(sentences)}",
                attribute.question(words).fill(slots),
                getattr(value, language).text,
                supersedes,
                language,
            )
        )
    return out
