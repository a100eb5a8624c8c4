"""Your own questions, from a file, for a reader to learn: with passages, or by heart.

The file has one JSON object a line::

    {"question": "How long is a card valid?", "answer": "two years", "passages": ["...", "..."]}

``answer`` is ``null`` where the passages don't tell. Optional: ``language`` (``"en"``, ``"es"``),
and ``fact``, a name for what is asked for.

- **raft** needs passages. Questions that share a passage, however indirectly, go to the same side
  of the split: what is tested is reading, of passages that were never seen.
- **closed-book** needs none. The facts have to be the same on all sides, so wordings are held out:
  of each fact that is asked for in two wordings or more, the last. Questions with the same answer
  are taken for the same fact, unless ``fact`` says otherwise.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minirag.corpus.dice import Dice
from minirag.corpus.grammar import LANGUAGES
from minirag.corpus.questions import Question, ReadingExercise
from minirag.errors import DataError, UsageError
from minirag.finetuning.base import Base
from minirag.finetuning.batches import those_that_fit
from minirag.finetuning.config import LaboratoryData, Way
from minirag.finetuning.data import EvaluationSet, FineTuneData
from minirag.finetuning.labelled import HELD_OUT
from minirag.finetuning.laboratory import general_exercise, general_tests, general_texts
from minirag.text.jsonl import read_json_lines
from minirag.training.evaluate_reading import ReadingTest
from minirag.training.pretrain import DEVELOPMENT_SEED
from minirag.training.report import REPORT_SEED


@dataclass(frozen=True)
class OwnQuestion:
    """A line of the file."""

    question: str
    answer: str | None
    passages: tuple[str, ...]
    language: str
    fact: str

    def exercise(self, way: Way) -> ReadingExercise:
        """As a reader meets it."""
        if way == "closed-book":
            asked = Question(self.question, self.answer, None, self.fact)
            return ReadingExercise((), (asked,), self.language, "closed_book")
        golden = [i for i, text in enumerate(self.passages) if (self.answer or "\0") in text]
        asked = Question(self.question, self.answer, golden[0] if golden else None, self.fact)
        return ReadingExercise(self.passages, (asked,), self.language, "reading")


def read_own_questions(path: Path, language: str = "en") -> list[OwnQuestion]:
    """Read such a file; ``language`` is that of the lines which name none.

    Raises
    ------
    DataError
        If it can't be read, or a line is not as described; its number is named.
    """
    found = []
    for line in read_json_lines(path):
        where = f"{path}, line {line.number}"
        if line.value is None or line.problem:
            raise DataError(f"{where}, {line.problem}.")
        found.append(_question(line.value, where, language))
    if not found:
        raise DataError(f"{path} holds no question: give one JSON object a line.")
    return found


def _question(value: dict[str, Any], where: str, language: str) -> OwnQuestion:
    question, answer = value.get("question"), value.get("answer")
    passages = value.get("passages", [])
    if not isinstance(question, str) or not question.strip():
        raise DataError(f"{where}: question should be a text, and is {question!r:.40}.")
    if "answer" not in value or not (answer is None or (isinstance(answer, str) and answer)):
        raise DataError(
            f"{where}: answer should be a text, or null where the passages don't tell, and is "
            f"{value.get('answer', 'missing')!r:.40}."
        )
    if not isinstance(passages, list) or not all(isinstance(p, str) and p for p in passages):
        raise DataError(f"{where}: passages should be a list of texts, and is {passages!r:.40}.")
    language = value.get("language", language)
    if language not in LANGUAGES:
        raise DataError(f"{where}: the language is {language!r}: give en or es.")
    fact = str(value.get("fact") or (answer or question).casefold())
    return OwnQuestion(question, answer, tuple(passages), language, fact)


def own_data(
    path: Path,
    way: Way,
    language: str = "en",
    *,
    base: Base | None = None,
    questions: int = 100,
    questions_on_the_way: int = 30,
    seed: int = 0,
) -> FineTuneData:
    """The file's questions, split; beside them the general tests of the laboratory.

    Parameters
    ----------
    base : Base, optional
        Who is to learn them: what it can't read whole is left out.
    questions, questions_on_the_way : int
        Of the test and of the validation, at most.
    seed : int
        Of the split.

    Raises
    ------
    DataError
        If the file is not as described, the base can read nothing of it, or nothing can be held
        out.
    UsageError
        If the way is neither raft nor closed-book.
    """
    asked, notes = read_own_questions(path, language), []
    if base is not None:
        whole = [q for q in asked if those_that_fit(base.model, base.tokenizer, [q.exercise(way)])]
        if not whole:
            raise DataError(
                f"{path}: none of its {len(asked)} questions fits into the "
                f"{base.model.config.max_length} tokens that {base.name} reads: give shorter or "
                "fewer passages."
            )
        if left_out := len(asked) - len(whole):
            notes.append(f"{left_out} questions are too long for {base.name}: left out.")
        asked = whole
    if way == "raft":
        train, validation, test = _by_passage(path, asked, seed)
    elif way == "closed-book":
        train, validation, test = _by_wording(path, asked, seed)
    else:
        raise UsageError(
            f"the way {way} learns from plain text: give --task generate with your documents, or "
            "--way raft or closed-book."
        )
    languages = tuple(sorted({question.language for question in asked}))

    def tests(held_out: Sequence[OwnQuestion], n: int, general_seed: int) -> EvaluationSet:
        some = Dice(seed, "asked").sample(held_out, n)
        what = LaboratoryData(way=way, languages=languages, questions=n)
        exercises = {
            code: [q.exercise(way) for q in some if q.language == code] for code in languages
        }
        return EvaluationSet(
            [ReadingTest(f"{code}/{path.name}", e) for code, e in exercises.items() if e],
            general_tests(what, general_seed),
            [q.exercise(way) for q in some],
            _texts(some),
            general_texts(languages, general_seed),
        )  # fmt: skip

    return FineTuneData(
        f"{path.name}, {way}",
        [question.exercise(way) for question in train],
        tests(validation, questions_on_the_way, DEVELOPMENT_SEED),
        tests(test, questions, REPORT_SEED),
        general_exercise=general_exercise,
        notes=tuple(notes),
    )


def _texts(questions: Sequence[OwnQuestion]) -> list[ReadingExercise]:
    """The passages as plain text, each once; without passages what is asked and answered."""
    texts = dict.fromkeys(
        (text, question.language)
        for question in questions
        for text in question.passages or (f"{question.question} {question.answer or ''}",)
    )
    return [ReadingExercise((text,), (), language, "text") for text, language in texts]


Split = tuple[list[OwnQuestion], list[OwnQuestion], list[OwnQuestion]]


def _by_passage(path: Path, asked: Sequence[OwnQuestion], seed: int) -> Split:
    """Training, validation and test without a passage in common; large groups are for training."""
    if bare := [q for q in asked if not q.passages]:
        raise DataError(
            f"{path}: the question {bare[0].question!r:.60} has no passages, which the way raft "
            "reads: give some, or take --way closed-book."
        )
    groups = _connected([question.passages for question in asked])
    order = Dice(seed, "split").shuffled(groups)
    wanted = max(1, round(HELD_OUT * len(asked)))
    parts: list[list[OwnQuestion]] = [[], []]
    for part in parts:
        while order and (missing := wanted - len(part)) > 0:
            fitting = [group for group in order if len(group) <= missing]
            group = fitting[-1] if fitting else min(order, key=len)
            order.remove(group)
            part += [asked[place] for place in group]
    if not order:
        raise DataError(
            f"{path}: its {len(asked)} questions share so many passages that they fall into "
            f"{len(groups)} groups only, too few to hold a test and a validation out of: give "
            "questions about more passages."
        )
    test, validation = parts
    return [asked[place] for group in order for place in group], validation, test


def _connected(names: Sequence[Sequence[Hashable]]) -> list[list[int]]:
    """Places in groups: those that share a name, directly or through others, are together."""
    leader: dict[Hashable, Hashable] = {}

    def find(name: Hashable) -> Hashable:
        while leader[name] != name:
            leader[name] = leader[leader[name]]  # halve the way for those who come later
            name = leader[name]
        return name

    for some in names:
        for name in some:
            leader.setdefault(name, name)
            leader[find(name)] = find(some[0])
    groups: dict[Hashable, list[int]] = {}
    for place, some in enumerate(names):
        groups.setdefault(find(some[0]), []).append(place)
    return list(groups.values())


def _by_wording(path: Path, asked: Sequence[OwnQuestion], seed: int) -> Split:
    """All facts to learn; of those with several wordings one is held out."""
    facts: dict[tuple[str, str], dict[str, OwnQuestion]] = {}
    for question in asked:
        wordings = facts.setdefault((question.language, question.fact), {})
        wordings.setdefault(" ".join(question.question.casefold().split()), question)
    several = [list(wordings.values()) for wordings in facts.values() if len(wordings) > 1]
    if len(several) < 2:
        raise DataError(
            f"{path}: {len(several)} of its {len(facts)} facts are asked for in two wordings or "
            "more: to test what was learned, and not the sentence, give two facts at least several "
            "questions each."
        )
    held_out = [wordings[-1] for wordings in Dice(seed, "split").shuffled(several)]
    test, validation = held_out[::2], held_out[1::2]
    kept_back = set(held_out)
    learned = [q for wordings in facts.values() for q in wordings.values() if q not in kept_back]
    return learned, validation, test
