"""The tour: in which order it tells, what is right before and after the change, both languages."""

import dataclasses
import re
import string
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import small_bases
from fake_encoder import HashEncoder

import minirag
from minirag.combination import compare, tour_texts
from minirag.combination.arms import ARMS
from minirag.combination.collection import collection, collection_documents, texts_of
from minirag.combination.compare import PASSAGES
from minirag.combination.live import Training
from minirag.combination.tour import (
    Asked,
    Begun,
    Cast,
    Changed,
    Noticed,
    Reply,
    Table,
    _left_out,
    tour,
)
from minirag.combination.tour_texts import Chapter, Texts, texts_in
from minirag.corpus.slices import SLICES, slice_questions
from minirag.corpus.world import Sizes, draw_world
from minirag.errors import UsageError
from minirag.intervals import wilson_interval
from minirag.rag import reading
from minirag.rag.reading import TrainedReader
from minirag.text.reading_format import QUESTION, UNKNOWN
from minirag.training.evaluate_reading import Answered
from minirag.transformer.generation import Generation

WORLD = draw_world("medicine", 5, Sizes(stable=8, unseen=8, updated=24, new=8, unanswerable=8))


class RareWords(HashEncoder):
    """A word counts the less the more documents have it, so that names decide."""

    def __init__(self, texts) -> None:
        super().__init__(dim=64, max_tokens=256)
        self.spread = Counter(word for text in texts for word in set(self.words(text)))
        self.known: dict[str, np.ndarray] = {}

    @staticmethod
    def words(text: str) -> list[str]:
        return re.findall(r"\w+", text.lower())

    def vector(self, text):
        words = self.words(text)
        for word in set(words) - self.known.keys():
            self.known[word] = super().vector(word)
        total = np.sum([self.known[word] / self.spread.get(word, 1) for word in words], axis=0)
        return (total / np.linalg.norm(total)).astype(np.float32)


class Stage:
    """A cast whose readers know exactly what they should, and what was opened when."""

    def __init__(self, monkeypatch, language: str = "en", seed: int = 0) -> None:
        self.language, self.opened = language, 0
        self.base = None
        names = ("base", "closed-book", "raft")
        self.readers = {
            name: TrainedReader(small_bases.decoder(), small_bases.tokenizer(), name, name)
            for name in names
        }
        self.questions = slice_questions(WORLD, language, 20, draw=seed)
        self.truth = {}  # question -> answers, as they are and as they were
        for question in (q for some in self.questions.values() for q in some):
            known = [question.answer, question.stale]
            self.truth[question.text] = [a for a in known if a is not None]
        monkeypatch.setattr(reading, "write_answers", self.write)
        monkeypatch.setattr(compare, "answer_exercises", self.answer_exercises)

    def cast(self, training=None) -> Cast:
        return Cast(WORLD, self.language, self.readers, self.open_collection, training)

    def open_collection(self):
        self.opened += 1
        documents = collection_documents(WORLD, self.language)
        encoder = RareWords([f"{d.title} {d.text}" for d in documents])
        self.base = collection(WORLD, self.language, encoder)
        return self.base

    def say(self, model, passages: str, question: str) -> str | None:
        """What passages hold, else a refusal; without any the closed-book model says what was."""
        answers = self.truth[question]
        if passages:
            return next((a for a in answers if a in passages), None)
        return answers[-1] if model is self.readers["closed-book"].model and answers else "Zubirol"

    def write(self, model, prompts, sampling):
        tokenizer = small_bases.tokenizer()
        out = []
        for (ids,) in prompts:
            text = tokenizer.decode(ids, skip_special=False)
            passages, _, question = text.partition(QUESTION)
            answer = self.say(model, passages, question.removesuffix("<|answer|>").strip())
            said = UNKNOWN if answer is None else f" {answer}"
            out.append(Generation(tokenizer.encode(said, special=False), [], "end"))
        return out

    def answer_exercises(self, model, tokenizer, exercises):
        return [
            Answered(e, self.say(model, "".join(e.passages), e.questions[0].text))
            for e in exercises
        ]


def chapters(parts) -> list[dict[str, list]]:
    """The parts of each chapter, replies by question."""
    out = []
    for part in parts:
        if isinstance(part, Begun):
            out.append({"asked": [], "replies": [], "other": []})
        elif isinstance(part, Asked):
            out[-1]["asked"].append(part)
            out[-1]["replies"].append([])
        elif isinstance(part, Reply):
            out[-1]["replies"][-1].append(part)
        else:
            out[-1]["other"].append(part)
    return out


@pytest.mark.parametrize("language", ["en", "es"])
def test_the_whole_tour(monkeypatch, language) -> None:
    stage = Stage(monkeypatch, language)
    training = Training("mine", 1234.4, None)
    told = []
    for part in tour(stage.cast(training)):
        told.append((part, stage.opened))
    # the first arms answer before the documents are opened; these are opened once
    replies = [(part, opened) for part, opened in told if isinstance(part, Reply)]
    assert [opened for _, opened in replies[:3]] == [0, 0, 1]
    assert stage.opened == 1
    one, two, three, four = chapters(part for part, _ in told)
    said = texts_in(language)
    stable, unseen = (stage.questions[name][0] for name in ("stable", "unseen"))
    assert [a.question for a in one["asked"][:2]] == [stable.text, unseen.text]
    assert [a.right for a in one["asked"][:2]] == [stable.answer, unseen.answer]

    # before: five arms a question, in order; the documents answer, the learned facts are known
    for some in (*one["replies"], *two["replies"], *three["replies"]):
        assert [reply.arm for reply in some] == [said.arms[arm.name] for arm in ARMS]
    rights = [[reply.right for reply in some] for some in one["replies"]]
    assert rights[0] == rights[2] == [False, True, True, True, True]
    assert rights[1][2:] == [True] * 3
    assert not rights[1][0]
    assert all(r.sources and set(r.sources) <= set(r.given) for s in one["replies"] for r in s[2:])
    assert all(r.given == r.sources == () for s in one["replies"] for r in s[:2])

    # the change: the same question has another answer, which only retrieval knows
    changed, noticed = two["other"]
    guideline = next(
        q for q in slice_questions(WORLD, language, 20)["updated"] if "-guideline-" in q.document
    )
    assert one["asked"][2].question == two["asked"][0].question == guideline.text
    assert (one["asked"][2].right, two["asked"][0].right) == (guideline.stale, guideline.answer)
    then = {d.id: d.text for d in collection_documents(WORLD, language, moment="before")}
    now = {d.id: d.text for d in collection_documents(WORLD, language)}
    assert (changed.document, changed.before, changed.after, changed.training_seconds) == (
        guideline.document,
        then[guideline.document],
        now[guideline.document],
        1234.4,
    )
    assert [r.right for r in two["replies"][0]] == [False, False, True, True, True]
    assert [r.stale for r in two["replies"][0]] == [False, True, False, False, False]
    assert [[r.answer for r in some] for some in two["replies"][1:]] == [
        [r.answer for r in some] for some in one["replies"][:2]
    ]
    assert f"{changed.milliseconds:.0f} ms" in noticed.text
    assert "mine" in noticed.text
    assert "1,234 s" in noticed.text

    # nothing answers: who reads refuses
    assert three["asked"][0].right is None
    assert [r.right for r in three["replies"][0]] == [False, False, True, True, True]
    assert [r.answer for r in three["replies"][0][2:]] == [None] * 3

    # the collection is left as it was found
    assert texts_of(stage.base) == now
    check_table(stage, four["other"][0], now)
    assert all(isinstance(c["other"][-1], Noticed) for c in (one, two, three, four))


def check_table(stage: Stage, table: Table, texts: dict[str, str]) -> None:
    assert len(table.cells) == len(ARMS) * len(SLICES)
    retriever = stage.base.hybrid()
    by_place = {(cell.arm, cell.slice): cell for cell in table.cells}
    rag = texts_in(stage.language).arms["RAG"]
    for slice, questions in stage.questions.items():
        right = 0
        for question in questions:
            hits = retriever.search(question.text, 2 * PASSAGES)
            ids = list(dict.fromkeys(hit.passage.document_id for hit in hits))[:PASSAGES]
            passages = "".join(texts[id] for id in ids)
            right += stage.say(None, passages, question.text) == question.answer
        cell = by_place[rag, slice]
        assert (cell.n, cell.right) == (20, wilson_interval(right, 20))
        assert right >= 15


@pytest.mark.parametrize("language", ["en", "es"])
def test_what_nobody_answers_is_about_something_known(language) -> None:
    names = [
        getattr(record.entity.name, language).text.lower() for record in WORLD.group("unanswerable")
    ]

    def known(question) -> bool:
        return any(name in question.text.lower() for name in names)

    passed_over = 0
    for seed in range(4):
        drawn = slice_questions(WORLD, language, 20, slices=("unanswerable",), draw=seed)
        asked = drawn["unanswerable"]
        chosen = asked.index(_left_out(WORLD, language, seed))
        assert [known(question) for question in asked[: chosen + 1]] == [*[False] * chosen, True]
        passed_over += chosen
    assert passed_over > 0  # the first would not do


def test_a_seed_draws_the_questions(monkeypatch) -> None:
    def asked(seed: int) -> list[str]:
        stage = Stage(monkeypatch, seed=seed)
        parts = tour(stage.cast(), seed=seed, n=4)
        first = (part for part in parts if isinstance(part, Asked))
        return [next(first).question for _ in range(3)]

    assert asked(0) == asked(0)
    assert not set(asked(0)) & set(asked(1))


def test_without_a_report_the_cost_of_learning_is_not_known(monkeypatch) -> None:
    stage = Stage(monkeypatch)
    *_, changed, noticed = (
        part
        for part in [p for _, p in zip(range(48), tour(stage.cast(), n=3), strict=False)]
        if isinstance(part, Changed | Noticed)
    )
    assert changed.training_seconds is None
    assert tour_texts.ENGLISH.relearning_unknown in noticed.text


def test_a_world_without_changing_guidelines_is_refused(monkeypatch) -> None:
    stage = Stage(monkeypatch)
    records = tuple(
        r for r in WORLD.records if r.group != "updated" or r.entity.kind != "guideline"
    )
    cast = dataclasses.replace(stage.cast(), world=dataclasses.replace(WORLD, records=records))
    with pytest.raises(UsageError, match="is about a guideline: take another seed"):
        next(tour(cast))


# -- what it says ----------------------------------------------------------------------------------


def strings(said: Texts) -> dict[str, str]:
    """Every text, by its place."""
    out = {}
    for field in dataclasses.fields(said):
        value = getattr(said, field.name)
        if isinstance(value, Chapter):
            value = dataclasses.asdict(value)
        values = value if isinstance(value, dict) else {"": value}
        out |= {f"{field.name} {key}": text for key, text in values.items()}
    return out


def slots(text: str) -> list[str]:
    return sorted(name for _, name, _, _ in string.Formatter().parse(text) if name)


def test_both_languages_say_everything() -> None:
    english, spanish = strings(texts_in("en")), strings(texts_in("es"))
    assert english.keys() == spanish.keys()
    for place, text in english.items():
        assert text.strip() == text
        assert text
        assert spanish[place]
        assert slots(text) == slots(spanish[place]), place
        if len(text.split()) > 3:
            assert text != spanish[place]
    for said in (texts_in("en"), texts_in("es")):
        assert list(said.arms) == [arm.name for arm in ARMS]
        assert list(said.columns) == list(SLICES)
        assert max(map(len, said.columns.values())) < 10
        for chapter in (said.five_ways, said.change, said.unanswerable, said.table):
            assert len(re.findall(r"[.:;]\s", chapter.notice)) <= 2  # one sentence
            # what is to be read on lies beside the package's directory, wherever that is
            assert (Path(minirag.__file__).parent.parent / chapter.read_on).is_file()
            assert chapter.read_on.startswith("minirag/")
    with pytest.raises(UsageError, match="language"):
        texts_in("fr")
