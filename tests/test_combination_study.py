"""A study: what is asked of which collection, and that nothing is done twice."""

import dataclasses
import itertools
import json
import re

import pytest
import small_bases
import tiny_retriever

from minirag.combination import compare
from minirag.combination import fine_tuned as making
from minirag.combination import study as studying
from minirag.combination.arms import ARMS, DIAGNOSTICS
from minirag.combination.collection import collection_documents
from minirag.combination.compare import ArmResult, pooled
from minirag.combination.fine_tuned import FineTuned, fine_tuned
from minirag.combination.lost import lost_in
from minirag.combination.study import Asked, Study, reduced, run_study
from minirag.corpus.mixed import BOTH_VERSIONS, MIXED
from minirag.corpus.slices import SLICES, slice_questions, training_questions
from minirag.corpus.world import Sizes
from minirag.errors import CheckpointError, UsageError
from minirag.finetuning.base import fingerprint
from minirag.finetuning.config import FineTuneConfig, LaboratoryData
from minirag.finetuning.finetune import finetune
from minirag.finetuning.laboratory import laboratory_data, world_of
from minirag.finetuning.run import CHECKPOINT, RESULT
from minirag.finetuning.writer_run import FineTuning
from minirag.training.evaluate_reading import Answered
from minirag.transformer import checkpoints


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    place = tmp_path_factory.mktemp("models")
    checkpoints.save(small_bases.decoder(n_layers=1), place / "small")
    small_bases.tokenizer().save(place / "small")
    tiny_retriever.save_base(place / "finder", n_layers=1)
    return place


def _study(models, **changes):
    study = Study(base=str(models / "small"), encoder=str(models / "finder"), seed=302)
    return dataclasses.replace(reduced(study), **{"questions": 4, "timed": 1, **changes})


def reads_what_is_there(model, tokenizer, exercises):
    """The perfect reader: the answer if a passage holds it, else a refusal."""
    out = []
    for exercise in exercises:
        gold = exercise.questions[0].answer
        there = gold is not None and any(gold in passage for passage in exercise.passages)
        out.append(Answered(exercise, gold if there else None))
    return out


@pytest.fixture
def made(monkeypatch):
    """Nothing is fine-tuned, and a perfect reader answers; what was to be learned is kept."""
    asked_for = []

    def no_fine_tuning(base, data, config, cache, machine, **how):
        asked_for.append((data, config))
        way = data.laboratory.way
        report = {"seconds": 60.0, "tokens": 9, "steps": 4, "stopped": "done."}
        return FineTuned(base.model, report, f"sum of {way}, seed {config.seed}")

    monkeypatch.setattr(studying, "fine_tuned", no_fine_tuning)
    monkeypatch.setattr(compare, "answer_exercises", reads_what_is_there)
    return asked_for


def test_a_whole_study_with_a_perfect_reader(models, made, tmp_path, monkeypatch):
    study = _study(models)
    result = run_study(study, tmp_path, machine=small_bases.CPU)

    (facts, by_heart), (reading, to_read) = made
    assert (facts.laboratory.way, reading.laboratory.way) == ("closed-book", "raft")
    assert by_heart == study.recipe("closed-book")
    assert (by_heart.seed, to_read.seed) == (302, 302)
    world = study.world()
    taught = {
        q.text
        for language in ("en", "es")
        for q in training_questions(world, language, study.paraphrases)
    }
    assert {q.text for e in facts.train for q in e.questions} == taught
    assert result.fingerprints["raft"] == "sum of raft, seed 302"

    assert list(result.asked) == ["en", "es"]
    for language, asked in result.asked.items():
        assert [arm.arm for arm in asked.arms] == [*ARMS, *DIAGNOSTICS]
        by_name = {arm.arm.name: arm for arm in asked.arms}
        six = slice_questions(world, language, 4)
        for arm in asked.arms:
            assert [slice for slice, _ in itertools.groupby(o.slice for o in arm.outcomes)] == [
                *SLICES, BOTH_VERSIONS, MIXED,
            ]  # fmt: skip
            assert len(arm.outcomes) == 4 * 8
            assert [o.question for o in arm.of("new")] == [q.text for q in six["new"]]
        golden = by_name["RAFT, right passage given"]
        assert all(o.right for o in golden.outcomes if o.slice != MIXED)
        # half of the answer stands nowhere: whoever reads well refuses, but for a rare chance
        assert [lost_in(o, "golden") for o in golden.of(MIXED)].count("refusing") >= 3
        assert all(o.golden_given for o in golden.of(MIXED))
        random = by_name["RAFT, random passages"]
        assert not any(o.golden_given for o in random.outcomes)
        for o in by_name["RAG"].outcomes:
            assert lost_in(o, "retrieved") in (None, "retrieval") or o.slice == MIXED
        # superseded documents stand only where both versions do
        given = [(o.slice, id) for arm in asked.arms for o in arm.outcomes for id in o.given]
        assert {slice for slice, id in given if id.endswith("-v1")} == {BOTH_VERSIONS}
        assert {slice for slice, id in given if id.startswith("mixed-")} == {MIXED}
        assert not any(id.startswith("known-") for slice, id in given if slice == MIXED)
        assert asked.collection.documents == len(collection_documents(world, language))
        assert asked.collection.bytes > 0
        answerable = 4 * 5 + 4 + 4
        assert len(asked.findings) == answerable

    # again: nothing is asked, and the same comes out
    def nobody(*_):
        raise AssertionError("this has been asked before")

    monkeypatch.setattr(compare, "answer_exercises", nobody)
    again = run_study(study, tmp_path, machine=small_bases.CPU)
    assert again == result
    with pytest.raises(AssertionError, match="asked before"):  # with one passage it has not
        run_study(dataclasses.replace(study, k=1), tmp_path, machine=small_bases.CPU)

    # what was cut short is asked again
    (kept, _) = sorted((tmp_path / "answers").iterdir())
    text = kept.read_text("utf-8")
    kept.write_text(text[:1000], "utf-8")
    monkeypatch.setattr(compare, "answer_exercises", reads_what_is_there)
    once_more = run_study(study, tmp_path, machine=small_bases.CPU)
    for language, asked in once_more.asked.items():
        ours = [arm.outcomes for arm in asked.arms]
        assert ours == [arm.outcomes for arm in result.asked[language].arms]


def test_what_shares_too_little_is_not_read_in_a_study_either(models, made, tmp_path):
    study = _study(models, arms=(ARMS[2], DIAGNOSTICS[2]), slices=("new",), languages=("en",))

    def given(least_shared):
        asking = dataclasses.replace(study, least_shared=least_shared)
        (asked,) = run_study(asking, tmp_path, machine=small_bases.CPU).asked.values()
        return [[len(outcome.given) for outcome in arm.outcomes] for arm in asked.arms]

    assert given(0.0) == [[2] * 4] * 2
    assert given(9.0) == [[0] * 4, [2] * 4]  # asked anew; chance is not found


def test_every_arm_is_answered_by_the_reader_that_was_made_for_it(models, tmp_path, monkeypatch):
    def learned(base, data, config, cache, machine, **how):
        model = small_bases.decoder(n_layers=1)
        model.name = data.laboratory.way
        return FineTuned(model, {}, f"sum of {model.name}")

    def signs(model, tokenizer, exercises):
        name = getattr(model, "name", "base")
        return [Answered(e, f"{name}: {e.questions[0].text}") for e in exercises]

    monkeypatch.setattr(studying, "fine_tuned", learned)
    monkeypatch.setattr(compare, "answer_exercises", signs)
    study = _study(models, languages=("en",), least_shared=0.0)
    (asked,) = run_study(study, tmp_path, machine=small_bases.CPU).asked.values()
    assert [arm.arm for arm in asked.arms] == [*ARMS, *DIAGNOSTICS]
    for arm in asked.arms:
        assert [o.answer for o in arm.outcomes] == [
            f"{arm.arm.reader}: {o.question}" for o in arm.outcomes
        ]


def test_only_the_readers_that_are_asked_are_made(models, made, tmp_path):
    study = _study(models, arms=(ARMS[2], ARMS[4]), slices=("unseen", MIXED), languages=("es",))
    result = run_study(study, tmp_path, machine=small_bases.CPU)
    assert [data.laboratory.way for data, _ in made] == ["raft"]
    assert {e.language for e in made[0][0].train} == {"es"}
    (asked,) = result.asked.values()
    assert {o.slice for arm in asked.arms for o in arm.outcomes} == {"unseen", MIXED}
    assert set(result.reports) == {"raft"}
    made.clear()
    nobody = run_study(
        dataclasses.replace(study, arms=(), slices=("unseen",)), tmp_path, machine=small_bases.CPU
    )
    assert made == []
    (asked,) = nobody.asked.values()
    assert asked.arms == ()
    assert [f.slice for f in asked.findings] == ["unseen"] * 4


def test_a_world_of_other_sizes_and_wording_is_learned_from(models):
    sizes = Sizes(stable=9, unseen=2, updated=3, new=2, unanswerable=2)
    study = _study(models, sizes=sizes, wording="plain")
    data = laboratory_data(study.laboratory("closed-book"), study.world())
    asked = {q.text for q in training_questions(study.world(), "en", study.paraphrases)}
    assert asked <= {q.text for e in data.train for q in e.questions}
    # without a world it is the one that the values describe
    what = LaboratoryData(way="closed-book", entities=9, changing=3, questions=2)
    mine, given = laboratory_data(what), laboratory_data(what, world_of(what))
    assert mine.train == given.train
    plain = {e.questions[0].text for t in data.test.domain for e in t.exercises}
    usual = {e.questions[0].text for t in mine.test.domain for e in t.exercises}
    assert plain
    assert not plain & usual


def test_a_world_too_small_is_told_before_anything_is_learned(models, made, tmp_path):
    study = _study(models, questions=90)
    with pytest.raises(UsageError, match=r"'stable' was to have 90 questions, .* larger Sizes"):
        run_study(study, tmp_path, machine=small_bases.CPU)
    assert made == []


def test_outcomes_survive_as_plain_values():
    outcome = compare.Outcome("new", "q", "d, dose", "a", None, False, 0.0, False, ("x", "y"), True)
    result = ArmResult(ARMS[3], 7, (outcome,), 0.25, 11.0)
    finding = studying.Finding("new", "q", "d, dose", 2, False)
    asked = Asked((result,), (finding,), studying.CollectionCosts(3, 0.5, 0.01, 999))
    assert Asked.from_json(json.loads(json.dumps(asked.as_json()))) == asked
    two = pooled([result, dataclasses.replace(result, seconds=0.75, tokens=13.0)])
    assert two == [ArmResult(ARMS[3], 7, (outcome, outcome), 0.5, 12.0)]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"questions": 0}, "questions is 0: give 1 or more"),
        ({"k": 0}, "k is 0: give 1 or more"),
        ({"timed": -1}, "timed is -1: give 0 or more"),
        ({"retriever": "sparse"}, "there is no retriever 'sparse': give one of dense, lexical"),
        ({"slices": ()}, "no slice is asked"),
        ({"slices": ("old",)}, "there is no slice 'old': give some of stable, unseen"),
        ({"slices": (BOTH_VERSIONS,)}, "needs the slice 'updated' beside it"),
    ],
)
def test_what_can_not_be_meant(changes, sentence):
    with pytest.raises(UsageError, match=re.escape(sentence)):
        Study(**changes)


def test_the_reduced_study_differs_in_size_alone():
    small = reduced(Study("law", "some-base", seed=303, k=2))
    assert (small.domain, small.base, small.seed, small.k) == ("law", "some-base", 303, 2)
    assert small.arms == (*ARMS, *DIAGNOSTICS)
    assert small.raft.rate == Study().raft.rate
    assert small.raft.max_steps == 4


# ------------------------------------------------------------------------------- fine-tuned readers

CONFIG = FineTuneConfig(
    max_steps=6,
    tokens_per_batch=600,
    validate_every=0,
    checkpoint_every=2,
    patience=None,
    rate=3e-3,
)


def test_a_reader_is_made_once_and_found_again(tmp_path, monkeypatch):
    base, data = small_bases.base(), small_bases.data()
    told = []
    made = fine_tuned(base, data, CONFIG, tmp_path, small_bases.CPU, tell=told.append)
    assert "closed-book: beginning the fine-tuning" in told[0]
    direct = finetune(base, data, CONFIG, machine=small_bases.CPU)
    assert made.sha256 == fingerprint(made.model) == fingerprint(direct.model)
    assert made.sha256 != fingerprint(base.model)
    assert made.report["steps"] == 6
    assert made.report["before"] == direct.before.as_json()

    def nobody(*_, **__):
        raise AssertionError("this has been made before")

    monkeypatch.setattr(making, "finetune", nobody)
    again = fine_tuned(base, data, CONFIG, tmp_path, small_bases.CPU)
    assert (again.sha256, again.report) == (made.sha256, made.report)
    for other in (
        (small_bases.base(small_bases.decoder(1)), data, CONFIG),
        (base, dataclasses.replace(data, train=data.train[:-1]), CONFIG),
        (base, data, dataclasses.replace(CONFIG, seed=1)),
    ):
        with pytest.raises(AssertionError, match="made before"):
            fine_tuned(*other, tmp_path, small_bases.CPU)

    (place,) = tmp_path.iterdir()
    (place / RESULT).write_text("{", "utf-8")
    with pytest.raises(CheckpointError, match=r"can't be read .* delete .* fine-tuned again"):
        fine_tuned(base, data, CONFIG, tmp_path, small_bases.CPU)


def test_a_killed_fine_tuning_goes_on(tmp_path, monkeypatch):
    base, data = small_bases.base(), small_bases.data()
    whole = fine_tuned(base, data, CONFIG, tmp_path / "whole", small_bases.CPU)

    class Killed(Exception):
        pass

    own = FineTuning.note

    def note(self, step, *seconds):
        own(self, step, *seconds)
        if step.number == 4:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(FineTuning, "note", note)
        with pytest.raises(Killed):
            fine_tuned(base, data, CONFIG, tmp_path / "killed", small_bases.CPU)
    (place,) = (tmp_path / "killed").iterdir()
    assert (place / CHECKPOINT).is_dir()
    assert not (place / RESULT).exists()
    told = []
    resumed = fine_tuned(base, data, CONFIG, tmp_path / "killed", small_bases.CPU, tell=told.append)
    assert "going on with the fine-tuning" in told[0]
    assert resumed.sha256 == whole.sha256
