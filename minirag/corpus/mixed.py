"""Two diagnostics beside the six slices: what reading one passage is not enough for.

- **mixed**: the passage says, say, in which town a drug is made; the question asks for the mayor of
  the town where it is made. Half of the answer stands in the passage, the other half is general
  knowledge, which a base has in its weights and a fine-tuning may have forgotten.
- **updated, both versions**: the superseded document stands beside its revision, both with their
  dates. The passage that answers is the later one.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Sequence

from minirag.corpus import passages
from minirag.corpus.dialogue import mixed_questions
from minirag.corpus.dice import Dice
from minirag.corpus.general import GENERAL
from minirag.corpus.grammar import capitalised
from minirag.corpus.slices import SliceQuestion
from minirag.corpus.world import CUTOFF, World, WorldDocument

MIXED = "mixed"
BOTH_VERSIONS = "updated, both versions"


def mixed_slice(
    world: World, language: str, n: int
) -> tuple[list[WorldDocument], list[SliceQuestion]]:
    """Draw ``n`` mixed questions, and the documents that hold the first half of their answers.

    The documents are about things that are not in the world; their ids are those that the questions
    name. Nothing is asked that one could guess.
    """
    taken = {getattr(record.entity.name, language).text for record in world.records}
    kind = next(iter(world.domain.kinds))  # what mixed questions are about
    dice = Dice(world.seed, "mixed documents", world.domain.name, language)
    documents: list[WorldDocument] = []
    questions: list[SliceQuestion] = []
    draws = n
    while len(questions) < n:
        draws *= 2  # some are left out
        documents, questions, names = [], [], set(taken)
        for item in mixed_questions(world.domain.name, world.seed, language, draws):
            if item.subject in names or item.attribute in GENERAL.closed:
                continue
            names.add(item.subject)
            id = f"mixed-{len(questions) + 1}"
            day = CUTOFF - datetime.timedelta(days=dice.between(1, 2000))
            text = f"{passages.dateline(dice, day, world.phrasings(language))} {item.passage}"
            documents.append(
                WorldDocument(id, capitalised(item.subject), text, day, kind, language)
            )
            questions.append(
                SliceQuestion(MIXED, item.question, item.answer, language, item.attribute, id)
            )
            if len(questions) == n:
                break
    return documents, questions


def with_both_versions(updated: Sequence[SliceQuestion]) -> list[SliceQuestion]:
    """The questions of the slice "updated" again, to be asked where both versions stand."""
    return [dataclasses.replace(question, slice=BOTH_VERSIONS) for question in updated]
