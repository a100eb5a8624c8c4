"""The five arms on the six slices: what each is given, what counts, how it is summed up."""

import statistics
from types import SimpleNamespace

import pytest
from fake_encoder import HashEncoder

from minirag.combination import compare
from minirag.combination.arms import ARMS, DIAGNOSTICS, Arm
from minirag.combination.compare import ArmResult, Outcome, Readers, run_arms, summarize
from minirag.combination.evidence import evidence_for, found_documents
from minirag.corpus.slices import SLICES, general_documents, slice_questions
from minirag.corpus.world import Sizes, draw_world
from minirag.errors import UsageError
from minirag.intervals import clustered_bootstrap, wilson_interval
from minirag.metrics import token_f1
from minirag.retrieval.knowledge_base import KnowledgeBase
from minirag.text.documents import Document
from minirag.text.reading_format import reading_prompt
from minirag.training.evaluate_reading import Answered

SIZES = Sizes(stable=8, unseen=8, updated=8, new=8, unanswerable=8)


@pytest.fixture(scope="module", params=["en", "es"])
def lab(request):
    world = draw_world("medicine", 5, SIZES)
    documents = [*world.documents(request.param), *general_documents(request.param)]
    base = KnowledgeBase(HashEncoder())
    base.add([Document(d.id, d.text, d.title) for d in documents])
    questions = slice_questions(world, request.param, 6)
    return questions, base.lexical(), {d.id: d.text for d in documents}


class Words:
    """A tokenizer as far as lengths go: words."""

    def encode_batch(self, texts, special):
        return [text.split() for text in texts]


def reads_what_is_there(model, tokenizer, exercises):
    """The perfect reader: the answer if a passage holds it, else a refusal; wrong from memory."""
    out = []
    for exercise in exercises:
        gold = exercise.questions[0].answer
        there = gold is not None and any(gold in passage for passage in exercise.passages)
        answer = gold if there else None if exercise.passages else "from memory"
        out.append(Answered(exercise, answer))
    return out


@pytest.fixture
def perfect(monkeypatch):
    monkeypatch.setattr(compare, "answer_exercises", reads_what_is_there)
    return Readers(Words(), dict.fromkeys(("base", "closed-book", "raft"), roomy(100_000)))


def roomy(max_length, name=""):
    """A model as far as its context goes."""
    return SimpleNamespace(name=name, config=SimpleNamespace(max_length=max_length))


def test_arms_differ_in_reader_or_evidence_and_have_names_of_their_own():
    arms = (*ARMS, *DIAGNOSTICS)
    assert len({arm.name for arm in arms}) == len({(a.reader, a.evidence) for a in arms}) == 9
    assert [arm.evidence for arm in ARMS] == ["none", "none", *["retrieved"] * 3]


def test_a_perfect_reader_is_right_where_the_passage_is(lab, perfect):
    questions, retriever, texts = lab
    results = run_arms(
        (*ARMS, *DIAGNOSTICS), perfect, questions, retriever, texts, k=3, least_shared=0.0, seed=3
    )
    by_name = {result.arm.name: result for result in results}
    for result in results:
        assert {o.slice for o in result.outcomes} == set(SLICES)
        assert len(result.outcomes) == 36
        assert result.seconds >= 0
    assert all(len(o.given) == 0 for o in by_name["base"].outcomes)
    assert not any(o.right for o in by_name["fine-tuned"].outcomes)
    golden = by_name["RAFT, right passage given"]
    assert all(o.right for o in golden.outcomes)
    assert all(o.golden_given for o in golden.outcomes if o.expected is not None)
    assert all(len(o.given) <= 3 for o in golden.outcomes)  # BM25 may find fewer
    assert statistics.fmean(len(o.given) for o in golden.outcomes) > 2.5
    assert {o.given.index(_document(o, questions)) for o in golden.of("stable")} > {0}
    chance = by_name["RAFT, random passages"]
    assert not any(o.golden_given for o in chance.outcomes)
    assert all(o.answer is None for o in chance.outcomes if not o.right)
    found = by_name["RAG"]
    for o in found.outcomes:
        if o.golden_given:
            assert o.right
    share = statistics.fmean(o.golden_given for o in found.outcomes if o.expected is not None)
    assert share > 0.8  # BM25 finds names
    assert by_name["base"].tokens < by_name["RAG"].tokens


def test_arms_without_passages_search_nothing(lab, perfect):
    questions, _, texts = lab
    some = run_arms(ARMS[:2], perfect, questions, None, texts, timed=0)
    assert [len(result.outcomes) for result in some] == [36, 36]


def test_what_a_reader_has_answered_it_is_not_asked_again(lab, monkeypatch):
    asked = []

    def answer(model, tokenizer, exercises):
        asked.append((model, list(exercises)))
        return [Answered(e, f"{model} {e.questions[0].text}") for e in exercises]

    monkeypatch.setattr(compare, "answer_exercises", answer)
    questions = [q for some in lab[0].values() for q in some]
    one, two, three = (compare._exercise(q, ["a passage"]) for q in questions[:3])
    other = compare._exercise(questions[0], ["another passage"])
    readers = Readers(Words(), {"base": "B", "raft": "R"})
    assert [a.exercise for a in readers.answer("base", [two, one, two])] == [two, one, two]
    said = [a.answer for a in readers.answer("base", [one, other, three, two])]
    assert said == [f"B {e.questions[0].text}" for e in (one, other, three, two)]
    assert readers.answer("raft", [one])[0].answer == f"R {one.questions[0].text}"
    assert asked == [("B", [two, one]), ("B", [other, three]), ("R", [one])]


def test_every_arm_is_answered_and_timed_with_its_own_reader(lab, monkeypatch):
    questions, retriever, texts = lab
    asked = []

    def signs(model, tokenizer, exercises):
        asked.append(model.name)
        return [Answered(e, f"{model.name}: {e.questions[0].text}") for e in exercises]

    monkeypatch.setattr(compare, "answer_exercises", signs)
    models = {name: roomy(100_000, name) for name in ("base", "closed-book", "raft")}
    arms = (*ARMS, *DIAGNOSTICS)
    results = run_arms(
        arms, Readers(Words(), models), questions, retriever, texts, least_shared=0.0, timed=1
    )
    for arm, result in zip(arms, results, strict=True):
        assert result.arm == arm
        assert [o.answer for o in result.outcomes] == [
            f"{arm.reader}: {o.question}" for o in result.outcomes
        ]
    assert asked == [arm.reader for arm in arms for _ in ("all together", "one alone")]


def _document(outcome, questions):
    (question,) = (q for q in questions[outcome.slice] if q.text == outcome.question)
    return question.document


@pytest.mark.parametrize("arm", [ARMS[2], ARMS[4], DIAGNOSTICS[0]])
def test_what_a_reader_has_no_room_for_is_left_out_whole(lab, perfect, arm):
    questions, retriever, texts = lab
    (whole,) = run_arms([arm], perfect, questions, retriever, texts, least_shared=0.0, seed=3)

    def length(outcome, ids):
        prompt = reading_prompt([texts[id] for id in ids], outcome.question)
        return len(prompt.split())

    room = int(statistics.median(length(o, o.given) for o in whole.outcomes))
    perfect.models[arm.reader] = roomy(room)
    (narrow,) = run_arms([arm], perfect, questions, retriever, texts, least_shared=0.0, seed=3)
    for before, after in zip(whole.outcomes, narrow.outcomes, strict=True):
        golden = [id for id in [_document(before, questions)] if arm.evidence == "golden"]
        fits = list(before.given)
        while length(before, fits) > room:
            fits.remove([id for id in fits if id not in golden][-1])
        assert after.given == tuple(fits)
        assert after.golden_given == (_document(before, questions) in fits)
    assert 10 < sum(
        len(before.given) > len(after.given)
        for before, after in zip(whole.outcomes, narrow.outcomes, strict=True)
    ) < 26  # fmt: skip


def test_the_time_of_an_answer_is_that_of_one_question_alone(lab, perfect, monkeypatch):
    questions, retriever, texts = lab
    asked, searched = [], []

    def counts(model, tokenizer, exercises):
        asked.append(len(exercises))
        return reads_what_is_there(model, tokenizer, exercises)

    def search(self, question, k):
        searched.append(question)
        return []

    monkeypatch.setattr(compare, "answer_exercises", counts)
    (untimed,) = run_arms(
        ARMS[2:3], perfect, questions, retriever, texts, least_shared=0.0, timed=0
    )
    assert asked == [36]
    assert untimed.seconds == 0
    clock = iter([0.0, 9.0, 10.0, 12.0, 20.0, 25.0])
    monkeypatch.setattr(compare.time, "perf_counter", clock.__next__)
    monkeypatch.setattr(type(retriever), "search", search)
    perfect._kept.clear()
    (timed,) = run_arms(ARMS[2:3], perfect, questions, retriever, texts, least_shared=0.0, timed=3)
    assert asked == [36, 36, 1, 1, 1]
    assert timed.seconds == 5.0  # the median of 9, 2 and 5
    every = [question.text for some in questions.values() for question in some]
    assert searched == every[::12]  # to find the passages is part of an answer


def test_what_shares_too_few_rare_words_is_not_read(lab, perfect, monkeypatch):
    questions, retriever, texts = lab
    every = [question for some in questions.values() for question in some]
    shared: dict[tuple[str, str], float] = {}
    for question in every:
        for hit in retriever.search(question.text, 6):  # of a document's passages, the best counts
            place = (question.text, hit.passage.document_id)
            shared[place] = max(hit.shared, shared.get(place, 0.0))
    asked = []

    def counts(model, tokenizer, exercises):
        asked.extend(exercises)
        return reads_what_is_there(model, tokenizer, exercises)

    monkeypatch.setattr(compare, "answer_exercises", counts)
    found = found_documents(retriever, every, 3)
    few = statistics.median(shared[q.text, ids[0]] for q, ids in zip(every, found, strict=True))
    arms = [ARMS[0], ARMS[2], DIAGNOSTICS[0], DIAGNOSTICS[2]]
    memory, read, golden, chance = run_arms(
        arms, perfect, questions, retriever, texts, k=3, least_shared=few, timed=0
    )
    for question, ids, outcome in zip(every, found, read.outcomes, strict=True):
        assert outcome.given == tuple(id for id in ids if shared[question.text, id] >= few)
        if not outcome.given:
            assert outcome.answer is None  # it refuses,
            assert outcome.right == (question.answer is None)
    left = sum(not outcome.given for outcome in read.outcomes)
    assert 0 < left < len(every)
    # and its reader, who would answer from memory, is asked only if there is something to read
    n_golden = sum(bool(outcome.given) for outcome in golden.outcomes)
    assert sum(not exercise.passages for exercise in asked) == len(memory.outcomes)
    assert n_golden >= sum(q.document is not None for q in every)  # what answers is always given
    assert all(len(outcome.given) == 3 for outcome in chance.outcomes)
    with_all = run_arms(
        arms[1:2], perfect, questions, retriever, texts, k=3, least_shared=0.0, timed=0
    )
    assert read.tokens < with_all[0].tokens


def test_other_slices_stand_behind_the_six():
    results = [
        ArmResult(
            ARMS[0],
            1,
            tuple(o for slice in ("mixed", "new") for o in _result("a", 1, [True], slice).outcomes),
            0.1,
            1.0,
        )
    ]
    assert [cell.slice for cell in summarize(results)] == ["new", "mixed"]
    assert compare.as_table(summarize(results), "f1").startswith("| | new | mixed |")


def test_found_documents_are_different_ones_best_first(lab):
    questions, retriever, texts = lab
    asked = questions["unseen"]
    found = found_documents(retriever, asked, 3)
    for question, ids in zip(asked, found, strict=True):
        assert len(set(ids)) == len(ids) <= 3
        assert set(ids) <= set(texts)
        assert ids[0] == retriever.search(question.text, 1)[0].passage.document_id


def test_evidence_needs_a_list_for_each_question(lab):
    questions, _, texts = lab
    with pytest.raises(UsageError, match="6 questions, 1 lists"):
        evidence_for("none", questions["new"], [[]], texts, 3, 0)


def test_the_updated_slice_tells_the_stale_answer(lab, perfect, monkeypatch):
    questions, retriever, texts = lab
    stale = {q.text: q.stale for q in questions["updated"]}

    def remembers(model, tokenizer, exercises):
        return [Answered(e, stale.get(e.questions[0].text, "x")) for e in exercises]

    monkeypatch.setattr(compare, "answer_exercises", remembers)
    (result,) = run_arms(ARMS[1:2], perfect, questions, retriever, texts)
    cells = {cell.slice: cell for cell in summarize([result])}
    assert cells["updated"].stale == 1.0
    assert cells["updated"].right.value == 0.0
    assert cells["stable"].stale == 0.0


# ---------------------------------------------------------------------------------------- summaries


def _result(name, seed, rights, slice="stable"):
    outcomes = tuple(
        Outcome(
            slice,
            f"q{i}",
            f"d{i}, dose",
            "gold",
            "gold" if right else None,
            right,
            float(right),
            False,
            (),
            False,
        )
        for i, right in enumerate(rights)
    )
    return ArmResult(Arm(name, "base", "none"), seed, outcomes, 0.1, 10.0)


def test_summaries_by_hand():
    runs = [[True, True, False, True], [False, True, False, False]]
    results = [_result("a", seed, run) for seed, run in enumerate(runs)]
    (cell,) = summarize(results, bootstrap_seed=4)
    assert (cell.arm, cell.slice, cell.n) == ("a", "stable", 4)
    assert cell.by_seed == (0.75, 0.25)
    assert cell.right == clustered_bootstrap([list(map(float, run)) for run in runs], 4)
    assert cell.f1 == cell.right  # no answer is half right here
    assert cell.f1_by_seed == (0.75, 0.25)
    assert cell.refused == pytest.approx(0.5)
    table = compare.as_table([cell])
    assert table.splitlines()[0] == "| | stable |"
    assert table.splitlines()[2].startswith("| a | 0.50 [")
    assert cell.as_json()["by_seed"] == [0.75, 0.25]


def test_differences_are_paired_within_a_seed():
    results = [
        _result("a", 0, [True, True, False]),
        _result("b", 1, [True, False, False]),
        _result("b", 0, [True, False, False]),
        _result("a", 1, [True, True, True]),
    ]
    interval = compare.paired_scores(results, "a", "b", "stable").interval(7)
    assert interval == clustered_bootstrap([[0.0, 1.0, 0.0], [0.0, 1.0, 1.0]], 7)
    assert interval.value == pytest.approx(0.5)


def test_the_general_slice_is_the_same_in_every_world_and_its_interval_knows():
    runs = [[True, True, False, True], [True, True, False, False]]
    results = [_result("a", seed, run, "general") for seed, run in enumerate(runs)]
    (cell,) = summarize(results, n_resamples=500)
    floats = [list(map(float, run)) for run in runs]
    assert cell.right == clustered_bootstrap(floats, 0, 500, same_questions=True)
    with pytest.raises(UsageError, match="same questions"):
        summarize([results[0], _result("a", 1, runs[1][:3], "general")], n_resamples=500)


def test_all_wrong_is_no_certainty():
    (cell,) = summarize([_result("a", seed, [False] * 50) for seed in range(2)])
    assert cell.right == wilson_interval(0, 100)
    assert cell.f1.high == 0.0  # no share: nothing is known of its spread


def test_f1_gives_credit_for_half_an_answer(lab, perfect, monkeypatch):
    questions, retriever, texts = lab

    def half(model, tokenizer, exercises):
        return [
            Answered(e, None if (gold := e.questions[0].answer) is None else gold + " and more")
            for e in exercises
        ]

    monkeypatch.setattr(compare, "answer_exercises", half)
    (result,) = run_arms(ARMS[:1], perfect, questions, retriever, texts)
    for outcome in result.outcomes:
        if outcome.expected is None:
            assert (outcome.right, outcome.f1) == (True, 1.0)
        else:
            assert not outcome.right
            language = questions[outcome.slice][0].language
            assert outcome.f1 == token_f1(outcome.answer, [outcome.expected], language)
            assert 0 < outcome.f1 < 1
