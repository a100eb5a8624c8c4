"""A world of a domain: its entities, their documents with dates, what changes and what is new.

A calendar runs through it. Until :data:`CUTOFF` documents appear that a fine-tuning may have seen;
after it, some are revised and new ones come. Five groups of entities, disjoint by construction,
serve the five slices of questions about the domain:

============  =============================  =====================================================
group         in the fine-tuning data        in the knowledge base
============  =============================  =====================================================
stable        yes                            yes, unchanged
unseen        no                             yes, unchanged
updated       yes, as they were              revised after the cut-off
new           no                             added after the cut-off
unanswerable  no                             yes, but the questions ask for what they don't say
============  =============================  =====================================================

Every text is drawn from a seed of its own (world, entity, version, language): asking for documents
in another order, or for one of them only, gives the same words.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass, fields, replace

from minirag.corpus import passages
from minirag.corpus.dice import Dice
from minirag.corpus.facts import Domain, Entity
from minirag.corpus.general import GENERAL
from minirag.corpus.grammar import Bilingual, capitalised, check_language
from minirag.corpus.law import LAW
from minirag.corpus.medicine import MEDICINE
from minirag.corpus.phrasings import Phrasings, phrasings_of
from minirag.errors import UsageError

CUTOFF = datetime.date(2040, 1, 1)
_YEARS_BEFORE, _YEARS_AFTER = 6, 2
DOMAINS: dict[str, Domain] = {d.name: d for d in (GENERAL, MEDICINE, LAW)}


@dataclass(frozen=True)
class Sizes:
    """How many entities each group has."""

    stable: int = 280
    unseen: int = 130
    updated: int = 200
    new: int = 130
    unanswerable: int = 130

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) < 0:
                raise UsageError(f"{field.name} is {getattr(self, field.name)}: give 0 or more.")


GROUPS = tuple(field.name for field in fields(Sizes))


@dataclass(frozen=True)
class Record:
    """An entity of a world, with its history."""

    id: str  # "medicine-drug-17": also the id of its current document
    group: str  # one of GROUPS
    entity: Entity  # as first published
    published: datetime.date
    revision: Entity | None = None  # the same entity with some facts changed
    revised: datetime.date | None = None

    @property
    def current(self) -> Entity:
        """The entity as it stands in the end."""
        return self.revision or self.entity

    @property
    def changed(self) -> tuple[str, ...]:
        """The attributes that the revision changed."""
        if self.revision is None:
            return ()
        now = self.revision.facts
        return tuple(key for key, value in self.entity.facts.items() if now[key] != value)


@dataclass(frozen=True)
class WorldDocument:
    """A document of a world, in one language."""

    id: str  # the record's id; a superseded version has "-v1" behind it
    title: str
    text: str
    date: datetime.date
    kind: str  # kind of entity: "drug", "statute", ...
    language: str


@dataclass(frozen=True)
class World:
    """A domain's entities, drawn from a seed."""

    domain: Domain
    seed: int
    wording: str  # "domain"; "plain" for the frames that the base knows; "half" of the attributes
    records: tuple[Record, ...]

    def group(self, *names: str) -> tuple[Record, ...]:
        """Return the records of one or more groups."""
        return tuple(record for record in self.records if record.group in names)

    def new_name(self, dice: Dice, kind: str) -> Bilingual:
        """Draw a name that nothing in this world has, in either language."""
        taken = {text for record in self.records for text in _texts(record.entity.name)}
        while True:
            name = self.domain.new_name(dice, kind)
            if taken.isdisjoint(_texts(name)):
                return name

    def phrasings(self, language: str) -> Phrasings:
        """Return how this world is put into words."""
        return phrasings_of(self.domain.name, language, self.wording)

    def revised_so_far(self, share: float) -> World:
        """Return the world of an earlier day: only a share of its revisions have come yet.

        The entities whose revision has not come are stable. The revisions of a smaller share are
        among those of a larger one.

        Parameters
        ----------
        share : float
            Of the entities that are to be revised, from 0 to 1.
        """
        if not 0 <= share <= 1:
            raise UsageError(f"the share of revisions is {share}: give a number from 0 to 1.")
        changing = [record.id for record in self.group("updated")]
        order = Dice(self.seed, "order of revisions", self.domain.name).shuffled(changing)
        to_come = set(order[round(share * len(order)) :])
        records = tuple(
            replace(record, group="stable", revision=None, revised=None)
            if record.id in to_come
            else record
            for record in self.records
        )
        return replace(self, records=records)

    def text(
        self,
        record: Record,
        language: str,
        *,
        old: bool = False,
        draw: int = 0,
        held_out: bool = False,
    ) -> str:
        """Write a record's document; another ``draw`` says the same in other words."""
        entity, day = record.current, record.revised or record.published
        if old:
            entity, day = record.entity, record.published
        dice = Dice(
            self.seed, "document", record.id, language, day.isoformat(), draw, int(held_out)
        )
        return passages.document(dice, entity, self.phrasings(language), day, held_out=held_out)

    def documents(
        self,
        language: str,
        *,
        moment: str = "after",
        both_versions: bool = False,
        held_out: bool = False,
    ) -> list[WorldDocument]:
        """Return the knowledge base's documents, oldest first.

        Parameters
        ----------
        moment : {"before", "after"}
            Before the cut-off (nothing revised, nothing new) or after it.
        both_versions : bool
            After the cut-off, keep the superseded version beside its revision; both say their date.
        held_out : bool
            Use held-out phrasings only.
        """
        if moment not in ("before", "after"):
            raise UsageError(f"moment is {moment!r}: give 'before' or 'after'.")
        check_language(language)
        out = []
        for record in self.records:
            if moment == "before" and record.published >= CUTOFF:
                continue
            revised = moment == "after" and record.revised is not None
            if revised and both_versions:
                out.append(self._document(record, language, True, f"{record.id}-v1", held_out))
            out.append(self._document(record, language, not revised, record.id, held_out))
        return sorted(out, key=lambda document: (document.date, document.id))

    def _document(
        self, record: Record, language: str, old: bool, id: str, held_out: bool
    ) -> WorldDocument:
        return WorldDocument(
            id,
            capitalised(getattr(record.entity.name, language).text),
            self.text(record, language, old=old, held_out=held_out),
            record.published if old else record.revised or record.published,
            record.entity.kind,
            language,
        )

    def training_texts(self, language: str, paraphrases: int = 1) -> list[str]:
        """Return the documents that a fine-tuning may see, each in several wordings."""
        return [
            self.text(record, language, old=True, draw=draw)
            for record in self.group("stable", "updated")
            for draw in range(paraphrases)
        ]


def draw_world(
    domain: str, seed: int, sizes: Sizes | None = None, *, wording: str = "domain"
) -> World:
    """Draw a world of a domain.

    Parameters
    ----------
    domain : {"general", "medicine", "law"}
    seed : int
        Different seeds share hardly a name, and no entity.
    sizes : Sizes
        The number of entities of each group; the share of ``updated`` is the world's volatility.
    wording : {"domain", "half", "plain"}
        "plain" says the domain's facts in frames that the base knows, "half" every other attribute.
    """
    if domain not in DOMAINS:
        raise UsageError(f"the domain is {domain!r}: give one of {', '.join(DOMAINS)}.")
    phrasings_of(domain, "en", wording)  # a wrong name is told now
    field, sizes = DOMAINS[domain], sizes or Sizes()
    records: list[Record] = []
    seen: set[str] = set()
    for group in GROUPS:
        dice = Dice(seed, "world", domain, group)
        for index in range(getattr(sizes, group)):
            kind = field.documented()[index % len(field.documented())]
            entity = _new_entity(dice, field, kind, seen)
            start = CUTOFF if group == "new" else _before(CUTOFF, 365 * _YEARS_BEFORE)
            days = 365 * (_YEARS_AFTER if group == "new" else _YEARS_BEFORE)
            published = start + datetime.timedelta(days=dice.below(days))
            revision = revised = None
            if group == "updated":
                revision = _revise(dice, field, entity)
                revised = CUTOFF + datetime.timedelta(days=dice.below(365 * _YEARS_AFTER))
            record_id = f"{domain}-{kind}-{len(records) + 1}"
            records.append(Record(record_id, group, entity, published, revision, revised))
    return World(field, seed, wording, tuple(records))


def _texts(name: Bilingual) -> tuple[str, str]:
    return name.en.text, name.es.text


def _before(day: datetime.date, days: int) -> datetime.date:
    return day - datetime.timedelta(days=days)


def _new_entity(dice: Dice, domain: Domain, kind: str, seen: set[str]) -> Entity:
    """Draw an entity whose name is not taken; one attribute at least stays unsaid."""
    most = len(domain.kinds[kind]) - 1
    while True:
        entity = domain.new_entity(dice, kind, dice.between(min(3, most), min(6, most)))
        if entity.name.en.text not in seen:
            seen.add(entity.name.en.text)
            return entity


def _revise(dice: Dice, domain: Domain, entity: Entity) -> Entity:
    """Change most of an entity's facts: two thirds of those that can't be guessed."""
    open_keys = [key for key in entity.facts if key not in domain.closed]
    changed = dice.sample(open_keys, max(1, 2 * len(open_keys) // 3))
    facts: dict[str, Bilingual] = dict(entity.facts)
    for key in changed:
        while facts[key] == entity.facts[key]:
            facts[key] = domain.kinds[entity.kind][key](dice, entity.name.es.gender)
    return entity._replace(facts=facts)
