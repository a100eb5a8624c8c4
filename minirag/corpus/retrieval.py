"""What a retriever learns from and is tested by: pages, and questions that find one of them.

A reader is given its passages; a retriever has to find them among all others. So every page says
which facts it states and every question which fact it asks for: that tells, of any two of them,
whether the page answers the question.

Pages come in families: several about things of one kind, which have the same attributes, and now
and then two about the same thing with different facts. Names alone don't tell these apart, and
neither do the words for the attributes: whoever finds the right one has matched both.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from minirag.corpus import passages
from minirag.corpus.dice import Dice
from minirag.corpus.everyday import everyday_topic
from minirag.corpus.exercises import (
    KINDS_OF_TEXT,
    ExerciseMix,
    general_passage,
    passage_entities,
    with_facts,
)
from minirag.corpus.facts import Domain, Entity
from minirag.corpus.general import GENERAL
from minirag.corpus.grammar import LANGUAGES, Bilingual, capitalised
from minirag.corpus.invented import exercise_about
from minirag.corpus.nonce import nonce_topic
from minirag.corpus.phrasings import Phrasings, load
from minirag.corpus.world import CUTOFF, DOMAINS, Record, World
from minirag.errors import UsageError


@dataclass(frozen=True)
class Page:
    """A passage that can be found."""

    text: str
    language: str
    states: frozenset[str]  # the facts in it: "the river Tor/length"


@dataclass(frozen=True)
class PageQuestion:
    """A question that pages answer if they state what it asks for."""

    text: str
    language: str
    asks: str  # a fact
    answers: tuple[str, ...]  # word for word, in every language that the fact is known in

    def answered_by(self, page: Page) -> bool:
        """Whether the page states the fact."""
        return self.asks in page.states


@dataclass(frozen=True)
class Family:
    """Pages that distract from each other, and the questions that each of them answers."""

    pages: tuple[Page, ...]
    questions: tuple[tuple[PageQuestion, ...], ...]  # a tuple for each page; some may be empty


@dataclass(frozen=True)
class RetrievalMix:
    """What families are made of."""

    english: float = 0.5  # share of families in English, the others in Spanish
    crossed: float = 0.3  # share of questions in the other language than their page
    nonce: float = 0.1  # share of families about made-up attributes; in one language only
    everyday: float = 0.2  # share about attributes from all walks of life; in one language only
    pages: tuple[float, ...] = (0.0, 0.3, 0.7)  # weights of 1, 2, 3, ... pages
    facts: tuple[int, int] = (2, 5)  # how many facts a page states
    questions: int = 3  # about one page, at most
    split: float = 0.25  # share of families in which one thing has two pages
    titled: float = 0.2  # share of pages with their title before the text, as indexes have them
    well_known: float = 0.05  # share of pages about well-known entities

    def __post_init__(self) -> None:
        for name in ("english", "crossed", "nonce", "everyday", "split", "titled", "well_known"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} is {getattr(self, name)}: give a share from 0 to 1.")
        if self.nonce + self.everyday > 1:
            raise UsageError("nonce and everyday are shares of one stream: at most 1 together.")
        if not self.pages or min(self.pages) < 0 or sum(self.pages) <= 0:
            raise UsageError(f"pages is {self.pages}: give weights of 1, 2, 3, ... pages.")
        if not 1 <= self.facts[0] <= self.facts[1]:
            raise UsageError(f"facts is {self.facts}: give (low, high) with 1 <= low <= high.")
        if self.questions < 1:
            raise UsageError(f"questions is {self.questions}: give at least 1.")


# A function that writes about entities in the words of one language.
Writer = Callable[[Dice, Sequence[Entity], Phrasings], str]


def draw_family(dice: Dice, mix: RetrievalMix, name: str) -> Family:
    """Draw a family of the general stream; ``name`` tells its invented facts from all others."""
    about = dice.unit()
    if about < mix.nonce + mix.everyday:
        return _invented_family(dice, mix, name, nonce=about < mix.nonce)
    kind = dice.pick(KINDS_OF_TEXT)
    drawn = ExerciseMix(facts=mix.facts, well_known=mix.well_known)
    groups = [passage_entities(dice, kind, drawn) for _ in range(_n_pages(dice, mix))]
    if len(groups) > 1 and kind != "traveller" and dice.chance(mix.split):
        n_facts = dice.between(*mix.facts) + dice.between(*mix.facts)
        groups[:2] = _split(GENERAL.new_entity(dice, kind, n_facts))
    return _bilingual_family(dice, mix, GENERAL, groups, _write_general)


def draw_domain_family(dice: Dice, mix: RetrievalMix, world: World) -> Family:
    """Draw a family about the entities of a world that a fine-tuning may see, as they were then.

    Raises
    ------
    UsageError
        If the world has none.
    """
    records = world.group("stable", "updated")
    if not records:
        raise UsageError("this world has no entities to train on: draw it with Sizes(stable=...).")
    kind = dice.pick(records).entity.kind
    chosen = dice.sample([r for r in records if r.entity.kind == kind], _n_pages(dice, mix))
    days: Mapping[str, Record] = {record.entity.name.en.text: record for record in chosen}
    groups = [[record.entity] for record in chosen]
    if len(groups) > 1 and len(groups[0][0].facts) > 1 and dice.chance(mix.split):
        groups[:2] = _split(groups[0][0])

    def write(dice: Dice, group: Sequence[Entity], phrasings: Phrasings) -> str:
        day = days[group[0].name.en.text].published
        return passages.document(dice, group[0], phrasings, day)

    return _bilingual_family(dice, mix, world.domain, groups, write)


def _n_pages(dice: Dice, mix: RetrievalMix) -> int:
    return 1 + dice.weighted(mix.pages)


def _split(entity: Entity) -> list[list[Entity]]:
    """One entity as two that share its name and none of its facts."""
    keys = tuple(entity.facts)
    half = len(keys) // 2
    return [[with_facts(entity, keys[:half])], [with_facts(entity, keys[half:])]]


def _write_general(dice: Dice, group: Sequence[Entity], phrasings: Phrasings) -> str:
    return general_passage(dice, group, phrasings, held_out=False)


def _bilingual_family(
    dice: Dice,
    mix: RetrievalMix,
    domain: Domain,
    groups: Sequence[Sequence[Entity]],
    write: Writer,
) -> Family:
    """Pages about groups of entities, and questions in the pages' language or in the other one."""
    language = "en" if dice.chance(mix.english) else "es"
    (other,) = (each for each in LANGUAGES if each != language)
    pages, questions = [], []
    for group in groups:
        text = write(dice, group, load(domain.name, language))
        if len(group) == 1 and dice.chance(mix.titled):
            text = f"{capitalised(_in(group[0].name, language))}\n{text}"
        stated = [(entity, key) for entity in group for key in entity.facts]
        pages.append(Page(text, language, frozenset(_fact(*fact) for fact in stated)))
        asked = []
        for entity, key in dice.sample(stated, mix.questions):
            tongue = other if dice.chance(mix.crossed) else language
            asked.append(_question(dice, domain, entity, key, tongue))
        questions.append(tuple(asked))
    return Family(tuple(pages), tuple(questions))


def _question(
    dice: Dice, domain: Domain, entity: Entity, key: str, language: str, *, held_out: bool = False
) -> PageQuestion:
    template = load(domain.name, language).attributes[key].question(dice, held_out=held_out)
    text = template.fill({"name": getattr(entity.name, language)})
    answers = tuple(_in(entity.facts[key], each) for each in LANGUAGES)
    return PageQuestion(text, language, _fact(entity, key), answers)


def _fact(entity: Entity, key: str) -> str:
    """The same for an entity in all languages, however often it is drawn."""
    return f"{entity.name.en.text}/{key}"


def _in(phrase: Bilingual, language: str) -> str:
    text: str = getattr(phrase, language).text
    return text


def _invented_family(dice: Dice, mix: RetrievalMix, name: str, *, nonce: bool) -> Family:
    """A reading exercise as a family; the facts of a page are known only together."""
    language, n_pages = "en" if dice.chance(mix.english) else "es", _n_pages(dice, mix)
    draw_topic = nonce_topic if nonce else everyday_topic
    exercise = exercise_about(
        dice,
        draw_topic(dice, language, mix.facts[1] + 1),
        n_passages=n_pages,
        facts=mix.facts,
        n_questions=mix.questions * n_pages,
        unanswerable=0.0,
    )
    facts = [f"{name}/{place}" for place in range(n_pages)]
    pages = tuple(
        Page(text, language, frozenset([fact]))
        for text, fact in zip(exercise.passages, facts, strict=True)
    )
    questions = []
    for place, fact in enumerate(facts):
        asked = [
            PageQuestion(q.text, language, fact, (q.answer,))
            for q in exercise.questions
            if q.passage == place and q.answer is not None
        ]
        questions.append(tuple(asked[: mix.questions]))
    return Family(pages, tuple(questions))


# ------------------------------------------------------------------------------- evaluation set


@dataclass(frozen=True)
class RetrievalSet:
    """Passages about entities that no training drew, one each, in both languages.

    Passages and questions are put into held-out words.
    """

    domain: Domain
    seed: int
    entities: tuple[Entity, ...]
    passages: Mapping[str, tuple[str, ...]]  # language -> a passage for each entity

    def question(self, place: int, language: str) -> str:
        """The question that the passage at this place answers; the same fact in each language."""
        entity = self.entities[place]
        key = Dice(self.seed, "fact", self.domain.name, place).pick(tuple(entity.facts))
        dice = Dice(self.seed, "question", self.domain.name, place, language)
        return _question(dice, self.domain, entity, key, language, held_out=True).text

    def sample(self, n: int, among: Sequence[int] | None = None) -> list[int]:
        """Places of ``n`` entities to ask about; of ``among``, as many as there are.

        Raises
        ------
        UsageError
            If ``n`` is less than 1 or more than there are entities.
        """
        if not 1 <= n <= len(self.entities):
            raise UsageError(
                f"{n} questions, one a passage, were asked for; there are {len(self.entities)} "
                f"passages: give 1 to {len(self.entities)} questions."
            )
        dice = Dice(self.seed, "places", self.domain.name, n)
        return sorted(dice.sample(range(len(self.entities)) if among is None else among, n))


def draw_retrieval_set(domain: str, seed: int, n: int) -> RetrievalSet:
    """Draw ``n`` entities of a domain with different names, and write a passage about each.

    Parameters
    ----------
    domain : {"general", "medicine", "law"}
    seed : int
        Any; its draws have nothing in common with a training's or a world's.
    """
    if domain not in DOMAINS:
        raise UsageError(f"the domain is {domain!r}: give one of {', '.join(DOMAINS)}.")
    if n < 1:
        raise UsageError(f"{n} passages are none to find one among: give at least 1.")
    field = DOMAINS[domain]
    dice = Dice(seed, "retrieval set", domain)
    entities: dict[str, Entity] = {}
    while len(entities) < n:
        kind = field.documented()[len(entities) % len(field.documented())]
        most = len(field.kinds[kind]) - 1
        entity = field.new_entity(dice, kind, dice.between(min(2, most), min(5, most)))
        entities.setdefault(entity.name.en.text, entity)
    written: dict[str, tuple[str, ...]] = {}
    for language in LANGUAGES:
        dice, phrasings = Dice(seed, "retrieval passages", domain, language), load(domain, language)
        written[language] = tuple(
            _held_out_passage(dice, field, entity, phrasings) for entity in entities.values()
        )
    return RetrievalSet(field, seed, tuple(entities.values()), written)


def _held_out_passage(dice: Dice, domain: Domain, entity: Entity, phrasings: Phrasings) -> str:
    if domain is GENERAL:
        return general_passage(dice, [entity], phrasings, held_out=True)
    day = CUTOFF - datetime.timedelta(days=dice.below(2000))
    return passages.document(dice, entity, phrasings, day, held_out=True)
