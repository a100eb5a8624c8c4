"""The FAQ: the nearest question's answer word for word or none, and never a state in between."""

from __future__ import annotations

import json
import math
import os

import numpy as np
import pytest
from fake_encoder import HashEncoder
from racing import searching

from minirag.combination.seeds import DEVELOPMENT_SEEDS
from minirag.corpus.dialogue import faq as draw_faq
from minirag.corpus.world import Sizes, draw_world
from minirag.errors import DataError, DiskError, UsageError
from minirag.rag.faq import Faq, FaqEntry, read_entries
from minirag.rag.faq_curve import at_threshold, faq_queries, threshold_for
from minirag.rag.faq_threshold import default_threshold, measurements, rates_at_default
from minirag.retrieval.bm25 import words

HOURS = FaqEntry("hours", "When does the library open?", "At nine,  from Tuesday on.\nReally.")
CARD = FaqEntry("card", "How much does a card cost?", "12 crowns.")
BOOK = FaqEntry("book", "How long may I keep a book?", "Four weeks.")


def _faq(encoder=None, threshold: float = 0.5) -> Faq:
    faq = Faq(encoder, threshold=threshold)
    faq.add([HOURS, CARD, BOOK])
    return faq


@pytest.mark.parametrize("encoder", [None, HashEncoder()])
def test_the_answer_is_given_word_for_word_or_not_at_all(encoder) -> None:
    faq = _faq(encoder)
    same = faq.ask("when does the library OPEN")
    assert same.entry == HOURS
    assert same.text == HOURS.answer
    assert same.likeness == pytest.approx(1.0, abs=1e-6)
    other = faq.ask("Zebras whinny quietly")
    assert other.entry is None
    assert other.nearest is not None
    assert other.likeness < 0.5
    for part in (repr(other.nearest.question), f"{other.likeness:.2f}", "0.50"):
        assert part in other.text
    exactly = Faq(encoder, threshold=same.likeness)
    exactly.add([HOURS])
    assert exactly.ask("when does the library open").entry == HOURS  # at the threshold, too


def test_without_entries_nothing_is_near() -> None:
    for encoder in (None, HashEncoder()):
        reply = Faq(encoder, threshold=0.1).ask("Who?")
        assert (reply.entry, reply.nearest, reply.likeness) == (None, None, 0.0)
        assert "no entries" in reply.text


@pytest.fixture(scope="module")
def drawn():
    return draw_faq(draw_world("medicine", 3, Sizes(60, 40, 5, 5, 5)), "es", 60)


def test_likeness_by_words_is_a_cosine_of_idf_vectors(drawn) -> None:
    """Against dense vectors over the whole vocabulary, numbers written into NumPy one by one."""
    stored, queries = drawn
    faq = Faq(threshold=0.0)
    faq.add(FaqEntry(e.id, e.question, e.answer) for e in stored)
    faq.add([HOURS])
    faq.remove(["hours", stored[7].id])
    kept = [e for e in stored if e.id != stored[7].id]
    asked = [query.text for query in queries] + ["¿", "Zebras and zebras"]
    bags = [set(words(e.question)) for e in kept]
    vocabulary = sorted(set().union(*bags, *(words(q) for q in asked)))
    n = len(kept)

    def vector(bag: set[str]) -> np.ndarray:
        out = np.zeros(len(vocabulary))
        for word in bag:
            df = sum(word in other for other in bags)
            out[vocabulary.index(word)] = math.log(1 + (n - df + 0.5) / (df + 0.5))
        length = np.linalg.norm(out)
        return out / length if length else out

    matrix = np.stack([vector(bag) for bag in bags])  # (n, V)
    for question, reply in zip(asked, faq.ask_many(asked), strict=True):
        cosines = matrix @ vector(set(words(question)))
        assert reply.likeness == pytest.approx(cosines.max(), abs=1e-12)
        assert reply.nearest is not None
        place = [e.id for e in kept].index(reply.nearest.id)
        assert cosines[place] == pytest.approx(cosines.max(), abs=1e-12)


def test_of_equally_likely_ones_the_first_is_meant() -> None:
    """Their sums of floats may differ in the last bit, as their words happen to be put in order."""
    rng = np.random.default_rng(0)
    every = [" ".join(f"w{n}" for n in rng.choice(4000, 9, replace=False)) for _ in range(300)]
    faq = Faq(threshold=0.0)
    for n, text in enumerate(every):
        turned = " ".join(reversed(text.split()))
        faq.add(
            [FaqEntry(f"{n}", f"{text} a{n}", "x"), FaqEntry(f"{n} again", f"{turned} b{n}", "x")]
        )
    found = faq.ask_many(every)
    assert [reply.nearest.id for reply in found if reply.nearest] == [str(n) for n in range(300)]


def test_likeness_by_vectors_is_the_encoders_cosine(drawn) -> None:
    stored, queries = drawn
    encoder = HashEncoder(dim=9)
    faq = Faq(encoder, threshold=0.0)
    faq.add(FaqEntry(e.id, e.question, e.answer) for e in stored)
    faq.remove(stored[3].id)
    faq.change(FaqEntry(stored[9].id, "Is it so?", "It is."))
    now = {e.id: e.question for e in stored if e is not stored[3]} | {stored[9].id: "Is it so?"}
    matrix = np.stack([encoder.vector(question) for question in now.values()])
    for query in queries:
        cosines = matrix @ encoder.vector(query.text)
        reply = faq.ask(query.text)
        assert reply.nearest is not None
        assert reply.nearest.id == list(now)[int(cosines.argmax())]
        assert reply.likeness == pytest.approx(float(cosines.max()), abs=1e-6)


@pytest.mark.parametrize("encoder", [None, HashEncoder()])
def test_entries_are_added_changed_and_removed(encoder) -> None:
    faq = _faq(encoder)
    faq.add([FaqEntry("fine", "What is the fine?", "10 cents.")])
    assert faq.ask("what is the fine").text == "10 cents."
    faq.change(FaqEntry("card", CARD.question, "15 crowns."))  # the answer alone
    assert faq.ask(CARD.question).text == "15 crowns."
    faq.change(FaqEntry("card", "Are guest passes free?", "Yes."))  # the question, too
    assert faq.ask(CARD.question).entry is None
    assert faq.ask("are guest passes free").text == "Yes."
    faq.remove(["fine", "hours"])
    assert faq.ask("what is the fine").entry is None
    assert [entry.id for entry in faq.entries] == ["card", "book"]  # changed, it kept its place
    assert (len(faq), "book" in faq, "fine" in faq) == (2, True, False)


def test_only_new_questions_are_encoded() -> None:
    encoder = HashEncoder()
    faq = _faq(encoder)
    assert encoder.n_encoded == 3
    faq.change(FaqEntry("card", CARD.question, "15 crowns."))
    assert encoder.n_encoded == 3
    faq.update_from([BOOK, HOURS, FaqEntry("new", "Are dogs allowed?", "No.")])
    assert encoder.n_encoded == 4
    assert {entry.id for entry in faq.entries} == {"hours", "book", "new"}


@pytest.mark.parametrize("encoder", [None, HashEncoder()])
@pytest.mark.parametrize(
    ("update", "says"),
    [
        (lambda f: f.add([FaqEntry("new", "New?", "N."), CARD]), "an entry 'card' already"),
        (lambda f: f.add([FaqEntry("a", "A?", "A."), FaqEntry("a", "B?", "B.")]), "the id 'a'"),
        (lambda f: f.add([FaqEntry("x", "how much  does a card COST?", "?")]), "the question"),
        (lambda f: f.change(FaqEntry("gone", "Q?", "A.")), "no entry 'gone'"),
        (lambda f: f.change(FaqEntry("book", CARD.question, "A.")), "the question"),
        (lambda f: f.remove(["card", "gone"]), "no entry 'gone'"),
        (lambda f: f.update_from([CARD, CARD]), "the id 'card'"),
        (lambda f: f.add([FaqEntry("x", " ", "A.")]), "question of a FAQ entry is empty"),
        (lambda f: f.add([FaqEntry("x", "Q?", "")]), "answer of a FAQ entry is empty"),
    ],
)
def test_an_update_that_can_t_be_meant_changes_nothing(encoder, update, says) -> None:
    faq = _faq(encoder)
    before = [faq.ask(entry.question) for entry in (HOURS, CARD, BOOK)]
    with pytest.raises(UsageError, match=says):
        update(faq)
    assert faq.entries == [HOURS, CARD, BOOK]
    assert [faq.ask(entry.question) for entry in (HOURS, CARD, BOOK)] == before


def test_an_empty_question_is_a_sentence() -> None:
    with pytest.raises(UsageError, match="question is empty"):
        _faq().ask(" \n")


def test_a_threshold_that_nobody_measured_must_be_given() -> None:
    assert Faq().threshold == default_threshold("words")
    with pytest.raises(UsageError, match="no FAQ threshold was measured for hash-encoder"):
        Faq(HashEncoder())


@pytest.mark.parametrize("encoder", [None, HashEncoder()])
def test_whoever_asks_meanwhile_sees_before_or_after(encoder) -> None:
    """Two versions of all entries, swapped again and again: no mixture is ever seen."""
    versions = [
        [FaqEntry(f"{n}", f"Question {v} about thing{n}?", f"answer {v}") for n in range(12)]
        for v in ("red", "blue")
    ]
    faq = Faq(encoder, threshold=0.0)
    faq.add(versions[0])
    asked = [entry.question for version in versions for entry in version]

    def fault() -> str | None:
        replies = faq.ask_many(asked)
        answers = {reply.text for reply in replies}
        if len(answers) != 1:
            return f"a mixture: {answers}"
        for reply in replies:
            said = reply.nearest
            if said is None or said.answer.split()[1] not in said.question:
                return f"an answer to another question: {reply}"
        return None

    with searching(fault):
        for n in range(30):
            faq.update_from(versions[(n + 1) % 2])
            if n % 3 == 0:
                with pytest.raises(UsageError):
                    faq.add([FaqEntry("0", "again?", "answer red")])


# -- the default threshold -------------------------------------------------------------------------


@pytest.mark.parametrize("compared_by", ["words", "all-MiniLM-L6-v2"])
def test_the_table_that_comes_along_agrees_with_the_default(compared_by) -> None:
    found = measurements(compared_by)
    assert len({(m.domain, m.language) for m in found}) == len(found) > 1
    for measured in found:
        assert measured.threshold == default_threshold(compared_by) >= measured.chosen
        assert measured.seeds == DEVELOPMENT_SEEDS
        assert measured.n == 3 * 450
        assert measured.command.startswith(f"minirag evaluate --faq {measured.domain} ")
        for rate in (measured.precision, measured.recall, measured.answered_in_vain):
            assert rate.low <= rate.value <= rate.high
        said = rates_at_default(compared_by)
        for part in (f"at {measured.threshold:.2f}", f"{measured.domain} {measured.language}"):
            assert part in said
    lowest, highest = (f(round(100 * m.precision.value) for m in found) for f in (min, max))
    assert f": {lowest} to {highest} % of the answers were right" in said


def test_the_table_is_what_its_command_measures_now() -> None:
    """It goes out of date when wordings change; then it must be measured again."""
    measured = next(
        m for m in measurements("words") if (m.domain, m.language) == ("medicine", "es")
    )
    worlds = [draw_world("medicine", seed) for seed in measured.seeds]
    queries = [query for world in worlds for query in faq_queries(world, "es", 300)]
    assert threshold_for(queries[::2], 0.9) == measured.chosen
    found = at_threshold(queries, measured.threshold)
    assert found.n == measured.n
    assert found.precision == pytest.approx(measured.precision, abs=5e-5)
    assert found.recall == pytest.approx(measured.recall, abs=5e-5)
    assert found.answered_in_vain == pytest.approx(measured.answered_in_vain, abs=5e-5)


# -- files -----------------------------------------------------------------------------------------


def test_saved_and_read_again(tmp_path) -> None:
    path = tmp_path / "faq.jsonl"
    entries = [HOURS, FaqEntry("ñ", "¿Cuánto «cuesta»?", "Doce \u2028 coronas")]
    faq = Faq(threshold=0.3)
    faq.add(entries)
    faq.save(path)
    assert [json.loads(line)["id"] for line in path.read_text("utf-8").split("\n")[:-1]] == [
        "hours",
        "ñ",
    ]
    again = Faq.load(path, HashEncoder(), threshold=0.3)
    assert again.entries == entries
    assert again.ask("cuánto cuesta").text == "Doce \u2028 coronas"


def test_a_save_that_fails_leaves_the_file_as_it_was(tmp_path, monkeypatch) -> None:
    path = tmp_path / "faq.jsonl"
    faq = _faq()
    faq.save(path)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    faq.remove("card")
    with pytest.raises(DiskError, match="No space left"):
        faq.save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("second", "says"),
    [
        ("{", "2: the line is not JSON"),
        ("[1]", "2: the line is not a JSON object"),
        ('{"id": "b", "question": "B?"}', '2: the "answer" is missing'),
        ('{"id": 3, "question": "B?", "answer": "B"}', '2: the "id" is missing'),
        ('{"id": "b", "question": " ", "answer": "B"}', '2: the "question" is missing'),
        ('{"id": "b", "question": "B?", "answer": "B", "value": 1}', '2: "value" is nothing'),
        ('{"id": "a", "question": "B?", "answer": "B"}', "two FAQ entries have the id 'a'"),
        ('{"id": "b", "question": "a?", "answer": "B"}', "have the question 'a"),
        (b'{"id": "b", "question": "B\xff?", "answer": "B"}', "2: the line holds bad UTF-8"),
    ],
)
def test_a_line_that_is_no_entry_is_named(tmp_path, second, says) -> None:
    path = tmp_path / "faq.jsonl"
    line = second if isinstance(second, bytes) else second.encode()
    path.write_bytes(b'{"id": "a", "question": "A?", "answer": "A"}\n' + line + b"\n")
    with pytest.raises(DataError, match=says):
        read_entries(path)
