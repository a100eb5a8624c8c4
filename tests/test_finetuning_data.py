"""The laboratory's splits: nothing in common that could be learned by heart."""

from __future__ import annotations

import json

import pytest

from minirag.corpus.grammar import LANGUAGES
from minirag.corpus.questions import ReadingExercise
from minirag.corpus.raft import domain_reading_set
from minirag.corpus.world import Sizes, draw_world
from minirag.errors import UsageError
from minirag.finetuning.config import LaboratoryData
from minirag.finetuning.data import EvaluationSet
from minirag.finetuning.laboratory import laboratory_data, world_of
from minirag.training.pretrain import DEVELOPMENT_SEED
from minirag.training.report import REPORT_SEED

N = 6


def _data(way: str, **options: object):
    options = {
        "entities": 24,
        "changing": 0,
        "exercises": 30,
        "questions": N,
        "questions_on_the_way": N,
        **options,
    }
    return laboratory_data(LaboratoryData(way=way, **options))  # type: ignore[arg-type]


def _names(language: str, domain: str = "medicine") -> list[str]:
    world = draw_world(domain, 0, Sizes(24, 0, 0, 0, 0))
    return [getattr(record.entity.name, language).text for record in world.records]


def _asked(tests: EvaluationSet) -> list[ReadingExercise]:
    return [exercise for test in tests.domain for exercise in test.exercises]


def test_reading_is_tested_on_entities_that_training_never_saw() -> None:
    data = _data("raft")
    trained = "\n".join(p for e in data.train for p in e.passages).lower()
    for language in LANGUAGES:
        assert (
            sum(name.lower() in trained for name in _names(language)) > 15
        )  # most occur somewhere
        for tests in (data.validation, data.test):
            shown = [p for e in _asked(tests) if e.language == language for p in e.passages]
            shown += [p for e in tests.domain_text if e.language == language for p in e.passages]
            assert len(shown) > 3 * 3 * N
            assert not any(
                name.lower() in passage.lower() for name in _names(language) for passage in shown
            )
    validation, test = (
        {q.text for e in _asked(tests) for q in e.questions}
        for tests in (data.validation, data.test)
    )
    assert not validation & test
    names = [test.name for test in data.test.domain]
    assert names[:3] == [
        "en/medicine, 3 passages",
        "en/medicine, unanswerable, 3 passages",
        "en/medicine, 3 passages, other phrasings",
    ]
    for test in data.test.domain:
        assert len(test.exercises) == N
        for e in test.exercises:
            assert len(e.passages) == 3
            assert (e.questions[0].answer is None) == ("unanswerable" in test.name)


def test_sets_that_share_a_record_of_names_have_no_entity_in_common() -> None:
    first: set[str] = set()
    one = domain_reading_set("medicine", 5, "en", 12, 2, taken=first)
    assert one == domain_reading_set("medicine", 5, "en", 12, 2)  # nothing was in the way
    lower = {name.lower() for name in first}
    assert all(any(name in p.lower() for name in lower) for e in one for p in e.passages)
    taken = set(first)
    other = domain_reading_set("medicine", 5, "en", 12, 2, taken=taken)  # the same draws again
    assert len(other) == 12
    assert len(taken) >= len(first) + 12
    asked = [e.questions[0].text.lower() for e in other]
    assert not any(name in question for name in lower for question in asked)
    assert not {e.passages for e in one} & {e.passages for e in other}


def test_raft_has_distractors_and_refusals() -> None:
    data = _data("raft", exercises=200, distractors=(0.0, 1.0, 1.0, 1.0), unanswerable=0.3)
    assert {len(e.passages) for e in data.train} == {2, 3, 4}
    questions = [q for e in data.train for q in e.questions]
    refused = sum(q.answer is None for q in questions) / len(questions)
    assert refused == pytest.approx(0.3, abs=0.06)
    assert sum(e.language == "es" for e in data.train) == 100


@pytest.mark.parametrize("way", ["closed-book", "pretraining"])
def test_facts_are_tested_in_wordings_that_were_held_out(way: str) -> None:
    data = _data(way)
    sentences = {q.text for e in data.train for q in e.questions}
    sentences |= {p for e in data.train for p in e.passages}
    for tests in (data.validation, data.test):
        for e in _asked(tests):
            (question,) = e.questions
            assert not e.passages
            assert question.text not in sentences
    validation, test = (
        {name for name in _names("en") if any(name in e.questions[0].text for e in _asked(tests))}
        for tests in (data.validation, data.test)
    )
    assert validation
    assert test
    assert not validation & test  # entities, each half of those that were learned
    assert data.watched == ("right" if way == "closed-book" else "loss")


def test_the_facts_that_are_asked_for_were_taught() -> None:
    data = _data("closed-book")
    taught = {(e.language, q.attribute, q.answer) for e in data.train for q in e.questions}
    for tests in (data.validation, data.test):
        for e in _asked(tests):
            (q,) = e.questions
            assert (e.language, q.attribute, q.answer) in taught


def test_a_report_names_the_world_that_was_learned_from() -> None:
    what = LaboratoryData("law", "closed-book", world_seed=3, entities=9, changing=5, questions=2)
    again = LaboratoryData.from_json(json.loads(json.dumps(what.as_json())))
    assert again == what
    world = world_of(again)
    data = laboratory_data(what)
    assert data.laboratory == what
    sizes = {group: len(world.group(group)) for group in ("stable", "updated", "unseen", "new")}
    assert sizes == {"stable": 9, "updated": 5, "unseen": Sizes().unseen, "new": Sizes().new}
    learned = "\n".join(q.text for e in data.train if e.language == "es" for q in e.questions)
    for record in world.records:
        name = record.entity.name.es.text
        assert (name in learned) == (record.group in ("stable", "updated")), record.id
    before = {(r.entity.facts[k].en.text) for r in world.group("updated") for k in r.changed}
    assert before <= {q.answer for e in data.train if e.language == "en" for q in e.questions}
    with pytest.raises(UsageError, match="laboratory data"):
        LaboratoryData.from_json({"domain": "law", "colour": "red"})
    with pytest.raises(UsageError, match="changing is -1"):
        LaboratoryData(changing=-1)


def test_paraphrases_are_wordings_of_the_same_facts() -> None:
    one, four = (_data("closed-book", paraphrases=k, languages=("en",)) for k in (1, 4))
    assert len(four.train) == 4 * len(one.train)
    assert len({e.questions[0].text for e in four.train}) == len(four.train)
    documents = _data("pretraining", paraphrases=3, languages=("es",)).train
    assert len({e.passages for e in documents}) == len(documents) == 3 * 24


@pytest.mark.parametrize("seed", [DEVELOPMENT_SEED, REPORT_SEED])
def test_worlds_that_tests_are_about_are_not_learned(seed: int) -> None:
    with pytest.raises(UsageError, match=f"the seed {seed} is kept for tests"):
        laboratory_data(LaboratoryData(world_seed=seed))


def test_only_the_languages_asked_for() -> None:
    data = _data("raft", languages=("es",))
    tests = data.test
    everything = [*data.train, *_asked(tests), *tests.held_out, *tests.domain_text]
    everything += [*tests.general_text, *(e for t in tests.general for e in t.exercises)]
    assert {e.language for e in everything} == {"es"}
    with pytest.raises(UsageError):
        _data("raft", languages=("fr",))
    with pytest.raises(UsageError, match="has 2 entities to train on"):
        _data("raft", entities=2)
