"""Reading exercises in a domain: fine-tuning a reader with distractors (RAFT), and its tests.

RAFT (Zhang et al. 2024, arXiv:2403.10131) fine-tunes on a question with the golden passage among
distractors, and for a share of the questions without it. Here those are answered with a refusal.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from minirag.corpus import passages
from minirag.corpus.dice import Dice
from minirag.corpus.exercises import ask_about
from minirag.corpus.facts import Entity
from minirag.corpus.phrasings import phrasings_of
from minirag.corpus.questions import ReadingExercise
from minirag.corpus.world import CUTOFF, DOMAINS, Record, World
from minirag.errors import UsageError


@dataclass(frozen=True)
class RaftMix:
    """What RAFT exercises are made of."""

    passages: tuple[float, ...] = (0.1, 0.3, 0.3, 0.3)  # weights of 1, 2, 3, ... passages
    questions: tuple[int, int] = (6, 10)  # how many questions follow: answers are what teaches
    unanswerable: float = 0.3  # share of questions without their golden passage
    versions: float = 0.15  # share of exercises with an old and a new version of one document
    same_kind: float = 0.7  # share of exercises whose passages are all about one kind of entity


def raft_stream(
    world: World, seed: int, language: str, mix: RaftMix | None = None
) -> Iterator[ReadingExercise]:
    """Endless exercises about the entities that a fine-tuning may see, in ever other words."""
    dice, mix = Dice(seed, "raft", world.domain.name, language), mix or RaftMix()
    records = world.group("stable", "updated")
    if len(records) < len(mix.passages) + 1:
        raise UsageError(
            f"this world has {len(records)} entities to train on, RAFT with up to "
            f"{len(mix.passages)} passages needs more: draw it with larger Sizes(stable=...)."
        )
    by_kind: dict[str, list[Record]] = {}
    for record in records:
        by_kind.setdefault(record.entity.kind, []).append(record)
    pools = [pool for pool in by_kind.values() if len(pool) > len(mix.passages)]
    while True:
        pool = dice.pick(pools) if pools and dice.chance(mix.same_kind) else records
        yield _raft_exercise(dice, world, language, pool, mix)


def _raft_exercise(
    dice: Dice, world: World, language: str, pool: Sequence[Record], mix: RaftMix
) -> ReadingExercise:
    phrasings = world.phrasings(language)
    n_passages = 1 + dice.weighted(mix.passages)
    *shown, left_out = dice.sample(pool, n_passages + 1)
    pages: list[tuple[Entity, datetime.date, bool]] = [
        (record.entity, record.published, True) for record in shown
    ]
    if n_passages > 1 and dice.chance(mix.versions):
        entity, day, _ = pages[0]
        earlier = day - datetime.timedelta(days=dice.between(30, 1500))
        pages[1] = (_earlier_version(dice, world, entity), earlier, False)
    pages = dice.shuffled(pages)
    texts = [passages.document(dice, entity, phrasings, day) for entity, day, _ in pages]
    groups = [[entity] if current else [] for entity, _, current in pages]
    return ask_about(
        dice,
        world.domain,
        phrasings,
        texts,
        groups,
        n_questions=dice.between(*mix.questions),
        unanswerable=mix.unanswerable,
        kind=world.domain.name,
        absent=left_out.entity,
    )


def _earlier_version(dice: Dice, world: World, entity: Entity) -> Entity:
    """Return what the document may have said before: the same attributes, other values."""
    makers = world.domain.kinds[entity.kind]
    gender = entity.name.es.gender
    return entity._replace(facts={key: makers[key](dice, gender) for key in entity.facts})


def domain_reading_set(
    domain: str,
    seed: int,
    language: str,
    n: int,
    n_passages: int = 1,
    *,
    unanswerable: bool = False,
    held_out: bool = False,
    taken: set[str] | None = None,
    wording: str = "domain",
) -> list[ReadingExercise]:
    """``n`` exercises of one question about fresh entities of a domain: zero-shot or after RAFT.

    Parameters
    ----------
    unanswerable : bool
        Ask only what the passages do not say.
    held_out : bool
        Use only phrasings and wordings that no training ever uses.
    taken : set of str
        English names of entities that must not occur; those that do are added to it. By chance a
        name comes up twice: sets that share this have no entity in common.
    wording : str
        See :func:`minirag.corpus.phrasings.phrasings_of`.
    """
    field, phrasings = DOMAINS[domain], phrasings_of(domain, language, wording)
    dice = Dice(seed, "reading set", domain, language, n_passages, int(unanswerable))
    out: list[ReadingExercise] = []
    while len(out) < n:
        kind = dice.pick(field.documented())
        most = len(field.kinds[kind]) - 1
        entities = [
            field.new_entity(dice, kind, dice.between(min(3, most), min(6, most)))
            for _ in range(n_passages)
        ]
        names = {entity.name.en.text for entity in entities}
        if taken is not None and names & taken:
            continue
        texts = [
            passages.document(
                dice,
                entity,
                phrasings,
                CUTOFF - datetime.timedelta(days=dice.below(2000)),
                held_out=held_out,
            )
            for entity in entities
        ]
        exercise = ask_about(
            dice,
            field,
            phrasings,
            texts,
            [[entity] for entity in entities],
            n_questions=1,
            unanswerable=float(unanswerable),
            held_out=held_out,
            kind=domain,
        )
        if exercise.questions and exercise.questions[0].attribute not in field.closed:
            out.append(exercise)
            if taken is not None:
                taken |= names
    return out
