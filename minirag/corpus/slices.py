"""The questions of a world: what a fine-tuning learns from, and the six slices that test it.

The slices are disjoint by construction, since each asks about another group of entities; no test
wording stands in training, since tests use the held-out ones.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from dataclasses import dataclass

from minirag.corpus import passages
from minirag.corpus.dice import Dice
from minirag.corpus.facts import Entity
from minirag.corpus.general import well_known
from minirag.corpus.grammar import capitalised
from minirag.corpus.phrasings import Phrasings, load
from minirag.corpus.world import CUTOFF, Record, World, WorldDocument
from minirag.errors import UsageError

SLICES = ("stable", "unseen", "updated", "new", "general", "unanswerable")
SAME_IN_ALL_WORLDS = ("general",)  # slices that ask the same in every world of every domain


@dataclass(frozen=True)
class SliceQuestion:
    """A question of a slice, with its true answer at the time of asking (after the cut-off)."""

    slice: str  # one of SLICES, "training", or the name of a diagnostic
    text: str
    answer: str | None  # None: no document says it
    language: str
    attribute: str
    document: str | None  # id of the document that answers; None without one
    stale: str | None = None  # updated slice: the answer as it was before the revision

    @property
    def about(self) -> str:
        """The fact that is asked for, whatever the language; without one, the question."""
        return self.text if self.document is None else f"{self.document}, {self.attribute}"


def _ask(phrasings: Phrasings, entity: Entity, key: str, dice: Dice, held_out: bool) -> str:
    template = phrasings.attributes[key].question(dice, held_out=held_out)
    return template.fill({"name": getattr(entity.name, phrasings.language)})


def slice_questions(
    world: World,
    language: str,
    n: int,
    *,
    held_out: bool = True,
    slices: Iterable[str] = SLICES,
    draw: int = 0,
) -> dict[str, list[SliceQuestion]]:
    """Draw ``n`` questions for each of the six slices.

    Parameters
    ----------
    n : int
        Questions per slice; the general slice has at most as many as there are well-known facts.
    held_out : bool
        Ask in wordings that training never sees.
    slices : names of slices
        Draw these alone; each has the same questions as when all are drawn.
    draw : int
        Another draw, other questions.

    Raises
    ------
    UsageError
        If the world is too small for ``n``.
    """
    phrasings = world.phrasings(language)
    questions: dict[str, list[SliceQuestion]] = {}
    for name in slices:
        other = (draw,) if draw else ()
        dice = Dice(world.seed, "slice", name, world.domain.name, language, *other)
        if name == "general":
            questions[name] = _general(language, n, held_out, other)
        elif name == "unanswerable":
            questions[name] = _unanswerable(dice, world, phrasings, n, held_out)
        else:
            questions[name] = _answerable(dice, world, phrasings, name, n, held_out)
    return questions


def askable_facts(world: World, group: str) -> list[tuple[Record, str]]:
    """The facts that a slice can ask for: of ``updated``, those that the revisions change."""
    return [
        (record, key)
        for record in world.group(group)
        for key in (record.changed if group == "updated" else record.current.facts)
        if key not in world.domain.closed
    ]


def _answerable(
    dice: Dice, world: World, phrasings: Phrasings, group: str, n: int, held_out: bool
) -> list[SliceQuestion]:
    language = phrasings.language
    facts = askable_facts(world, group)
    if len(facts) < n:
        raise UsageError(
            f"the slice {group!r} was to have {n} questions, this world's {group} entities have "
            f"{len(facts)} facts to ask for: draw it with larger Sizes({group}=...)."
        )
    out = []
    for record, key in dice.sample(facts, n):
        old = getattr(record.entity.facts[key], language).text
        new = getattr(record.current.facts[key], language).text
        text = _ask(phrasings, record.entity, key, dice, held_out)
        stale = old if group == "updated" else None
        out.append(SliceQuestion(group, text, new, language, key, record.id, stale))
    return out


def _unanswerable(
    dice: Dice, world: World, phrasings: Phrasings, n: int, held_out: bool
) -> list[SliceQuestion]:
    """Half of them about an entity that is not in the documents, half about what they leave out."""
    records = world.group("unanswerable")
    unsaid = [
        (record.entity, key)
        for record in records
        for key in world.domain.kinds[record.entity.kind]
        if key not in record.entity.facts
    ]
    if len(unsaid) < n // 2 or not records:
        raise UsageError(
            f"the slice 'unanswerable' was to have {n} questions, this world allows "
            f"{2 * len(unsaid)}: draw it with larger Sizes(unanswerable=...)."
        )
    asked = dice.sample(unsaid, n // 2)
    for _ in range(n - n // 2):
        like = dice.pick(records).entity
        name = world.new_name(dice, like.kind)
        asked.append((like._replace(name=name), dice.pick(tuple(like.facts))))
    return [
        SliceQuestion(
            "unanswerable",
            _ask(phrasings, entity, key, dice, held_out),
            None,
            phrasings.language,
            key,
            None,
        )
        for entity, key in dice.shuffled(asked)
    ]


def _general(language: str, n: int, held_out: bool, draw: tuple[int, ...]) -> list[SliceQuestion]:
    """The same facts in the same wordings, whichever world is asked about: they are of none."""
    phrasings, dice = load("general", language), Dice("slice", "general", language, *draw)
    facts = [
        (index, entity, key)
        for index, entity in enumerate(well_known(), start=1)
        for key in entity.facts
    ]
    return [
        SliceQuestion(
            "general",
            _ask(phrasings, entity, key, dice, held_out),
            getattr(entity.facts[key], language).text,
            language,
            key,
            f"known-{index}",
        )
        for index, entity, key in Dice("slice", "general facts", *draw).sample(facts, n)
    ]


def general_documents(language: str) -> list[WorldDocument]:
    """Return an entry about each well-known entity: the knowledge base of the general slice.

    Their ids are those that the general slice's questions name as their documents.
    """
    phrasings, dice = load("general", language), Dice("general documents", language)
    out = []
    for index, entity in enumerate(well_known(), start=1):
        day = CUTOFF - datetime.timedelta(days=dice.between(1, 2000))
        text = passages.document(dice, entity, phrasings, day)
        title = capitalised(getattr(entity.name, language).text)
        out.append(WorldDocument(f"known-{index}", title, text, day, entity.kind, language))
    return out


def training_questions(
    world: World, language: str, paraphrases: int = 4, *, held_out: bool = False
) -> list[SliceQuestion]:
    """Return closed-book questions for the facts that a fine-tuning may see, as they were then.

    Parameters
    ----------
    paraphrases : int
        In how many different wordings each fact is asked for, at most; held-out ones never.
    held_out : bool
        Ask for each fact once, in the wording that is held out: what tests whether it is known.
    """
    if paraphrases < 1:
        raise UsageError(f"paraphrases is {paraphrases}: give at least 1.")
    dice = Dice(world.seed, "training questions", world.domain.name, language)
    phrasings = world.phrasings(language)
    return [
        SliceQuestion(
            "training",
            template.fill({"name": getattr(record.entity.name, language)}),
            getattr(value, language).text,
            language,
            key,
            record.id,
        )
        for record in world.group("stable", "updated")
        for key, value in record.entity.facts.items()
        for template in (
            phrasings.attributes[key].questions[-1:]
            if held_out
            else dice.sample(phrasings.attributes[key].questions[:-1], paraphrases)
        )
    ]
