"""What people ask in practice: frequent questions, follow-ups, questions with two sources."""

from __future__ import annotations

from dataclasses import dataclass

from minirag.corpus.dice import Dice
from minirag.corpus.facts import Entity
from minirag.corpus.general import well_known
from minirag.corpus.grammar import Phrase, compile_template
from minirag.corpus.phrasings import load
from minirag.corpus.world import DOMAINS, Record, World
from minirag.errors import UsageError


@dataclass(frozen=True)
class FaqEntry:
    """A stored question with its answer, a full sentence that holds ``value`` word for word."""

    id: str
    question: str
    answer: str
    value: str


@dataclass(frozen=True)
class FaqQuery:
    """What a user asks, and the entry that answers it (None: there is none)."""

    text: str
    entry: str | None


@dataclass(frozen=True)
class FollowUp:
    """A question within a conversation, and the question that it stands for.

    ``kind`` is "attribute" ("And in children?"), "entity" ("And brolanol?") or "standalone": a
    question that can be understood without the conversation and must be left as it is.
    """

    history: tuple[tuple[str, str], ...]  # (question, answer), oldest first
    question: str
    standalone: str
    answer: str
    document: str
    kind: str


@dataclass(frozen=True)
class MixedQuestion:
    """A question whose answer needs one passage and one fact of general knowledge."""

    passage: str  # names a well-known entity, without saying what is asked
    question: str
    answer: str  # a fact of the well-known entity; not in the passage
    known: str  # the well-known entity
    subject: str  # what the passage is about
    attribute: str  # of the well-known entity: what is asked for


def _text(entity: Entity, key: str, language: str) -> str:
    text: str = getattr(entity.facts[key], language).text
    return text


def faq(world: World, language: str, n: int) -> tuple[list[FaqEntry], list[FaqQuery]]:
    """Draw ``n`` FAQ entries and as many queries again in other words, half as many in vain.

    Queries ask an entry's question in another wording; those in vain ask, of entities that have an
    entry, for something that no entry answers.
    """
    dice, phrasings = (
        Dice(world.seed, "faq", world.domain.name, language),
        world.phrasings(language),
    )
    facts = [(r, key) for r in world.group("stable", "unseen") for key in r.current.facts]
    facts = dice.shuffled(facts)
    stored, others = facts[:n], facts[n:]
    known = {record.id for record, _ in stored}
    in_vain = [(record, key) for record, key in others if record.id in known][: n // 2]
    if len(stored) + len(in_vain) < n + n // 2:
        raise UsageError(
            f"{n} FAQ entries and half as many other facts of the same entities are more than "
            f"the {len(facts)} facts of this world: draw it with larger Sizes(stable=...)."
        )
    entries, queries = [], []
    for index, (record, key) in enumerate(stored + in_vain):
        attribute = phrasings.attributes[key]
        name: Phrase = getattr(record.entity.name, language)
        question, *reworded = attribute.questions
        asked = dice.pick(reworded).fill({"name": name})
        if index >= n:
            queries.append(FaqQuery(asked, None))
            continue
        value: Phrase = getattr(record.current.facts[key], language)
        statement = attribute.statement(dice).template.fill({"name": name, "value": value})
        entry = FaqEntry(f"faq-{index + 1}", question.fill({"name": name}), statement, value.text)
        entries.append(entry)
        queries.append(FaqQuery(asked, entry.id))
    return entries, dice.shuffled(queries)


def follow_ups(world: World, seed: int, language: str, n: int) -> list[FollowUp]:
    """Draw ``n`` follow-ups: about another attribute, about another entity, or a new question."""
    if "followups" not in load(world.domain.name, language).raw:
        raise UsageError(
            f"there are no follow-up questions for the domain {world.domain.name!r}: "
            "take medicine or law."
        )
    dice = Dice(world.seed, "follow-ups", seed, world.domain.name, language)
    phrasings, records = world.phrasings(language), world.group("stable", "unseen", "new")

    def ask(record: Record, key: str, *, first: bool = False) -> str:
        questions = phrasings.attributes[key].questions
        template = questions[0] if first else dice.pick(questions[:-1])
        return template.fill({"name": getattr(record.entity.name, language)})

    out: list[FollowUp] = []
    while len(out) < n:
        record = dice.pick(records)
        *asked, key = dice.sample(tuple(record.current.facts), dice.between(2, 3))
        history = tuple((ask(record, k), _text(record.current, k, language)) for k in asked)
        kind = dice.pick(("attribute", "attribute", "entity", "entity", "standalone"))
        if kind == "attribute":  # the same entity, something else about it
            slots = {"name": getattr(record.entity.name, language)}
            question = dice.pick(phrasings.texts[f"followups.attribute.{key}"]).fill(slots)
            standalone = ask(record, key, first=True)
        elif kind == "entity":  # the last question again, about another entity
            key = asked[-1]
            others = [
                other
                for other in records
                if other.entity.kind == record.entity.kind
                and other is not record
                and key in other.current.facts
            ]
            if not others:
                continue
            record = dice.pick(others)
            slots = {"name": getattr(record.entity.name, language)}
            question = dice.pick(phrasings.texts["followups.entity"]).fill(slots)
            standalone = ask(record, key, first=True)
        else:
            record = dice.pick(records)
            key = dice.pick(tuple(record.current.facts))
            question = standalone = ask(record, key)
        answer = _text(record.current, key, language)
        out.append(FollowUp(history, question, standalone, answer, record.id, kind))
    return out


def mixed_questions(domain: str, seed: int, language: str, n: int) -> list[MixedQuestion]:
    """Draw ``n`` questions that need a passage of the domain and a well-known general fact.

    The passage says, say, in which town a drug is manufactured; the question asks for the mayor of
    the town where it is manufactured, and who is mayor there is general knowledge.
    """
    general, own = load("general", language), load(domain, language)
    links = own.raw.get("mixed")
    if links is None:
        raise UsageError(f"there are no mixed questions for the domain {domain!r}.")
    dice, field = Dice(seed, "mixed", domain, language), DOMAINS[domain]
    out = []
    for _ in range(n):
        kind = dice.pick(tuple(links))
        known = dice.pick([entity for entity in well_known() if entity.kind == kind])
        key = dice.pick(tuple(known.facts))
        name = getattr(field.new_name(dice, next(iter(field.kinds))), language)
        slots = {"name": name, "value": getattr(known.name, language)}
        link = links[kind]
        passage = compile_template(link["statement"], language).fill(slots)
        description = compile_template(link["description"], language).inside(slots)
        subject = Phrase(description, link.get("gender", "n"), True)
        question = general.attributes[key].questions[0].fill({"name": subject})
        answer, entity = _text(known, key, language), getattr(known.name, language).text
        out.append(MixedQuestion(passage, question, answer, entity, name.text, key))
    return out
