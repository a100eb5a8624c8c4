"""Your own questions from a file: split so that nothing tested was learned, or refused by line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import small_bases

from minirag.cli.main import main
from minirag.errors import DataError, UsageError
from minirag.finetuning import own_reading
from minirag.finetuning.data import FineTuneData
from minirag.finetuning.own_reading import OwnQuestion, own_data, read_own_questions
from minirag.transformer import checkpoints


def _file(path: Path, rows: list[dict[str, Any]]) -> Path:
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def _rows(n: int) -> list[dict[str, Any]]:
    """Two questions about each of n pages; every fourth page stands beside its successor."""
    pages = [f"Mount Tor {i} is {100 + i} metres high. It snows." for i in range(n)]
    rows: list[dict[str, Any]] = []
    for i in range(n):
        beside = pages[i : i + 2] if i % 4 == 0 else pages[i : i + 1]
        rows += [
            {"question": f"How high is {i}?", "answer": f"{100 + i} metres", "passages": beside},
            {"question": f"Who climbed {i}?", "answer": None, "passages": [pages[i]]},
        ]
    return rows


def _passages(exercises) -> set[str]:
    return {passage for exercise in exercises for passage in exercise.passages}


def _asked(tests) -> list:
    return [exercise for test in tests.domain for exercise in test.exercises]


def test_no_passage_is_on_two_sides(tmp_path: Path) -> None:
    path = _file(tmp_path / "mine.jsonl", _rows(40))
    data = own_data(path, "raft", questions=12, questions_on_the_way=12)
    train, validation, test = data.train, _asked(data.validation), _asked(data.test)
    assert len(train) + len(validation) + len(test) == 80
    assert 8 <= len(validation) <= 11
    assert 8 <= len(test) <= 11
    assert not _passages(train) & _passages(validation)
    assert not _passages(train) & _passages(test)
    assert not _passages(validation) & _passages(test)
    for exercise in train:
        (question,) = exercise.questions
        if question.answer is None:
            assert question.passage is None
        else:
            assert question.answer in exercise.passages[question.passage]
    assert {e.passages for e in data.test.domain_text} == {(p,) for p in _passages(test)}
    assert data.test.general
    assert own_data(path, "raft", questions=12, questions_on_the_way=12).train == train
    assert own_data(path, "raft", questions=1, seed=1).train != train
    assert len(_asked(own_data(path, "raft", questions=3).test)) == 3


@pytest.mark.parametrize("seed", range(4))
def test_a_page_that_most_questions_are_about_is_learned_from(tmp_path: Path, seed: int) -> None:
    many = [
        {"question": f"What is {i}?", "answer": "a page", "passages": ["It is a page."]}
        for i in range(60)
    ]
    data = own_data(_file(tmp_path / "mine.jsonl", [*many, *_rows(20)]), "raft", seed=seed)
    assert {len(_asked(tests)) for tests in (data.validation, data.test)} <= {10, 11, 12}
    assert sum(exercise.passages == ("It is a page.",) for exercise in data.train) == 60


def test_what_the_base_can_not_read_whole_is_left_out_everywhere(tmp_path: Path) -> None:
    rows = _rows(40)
    for row in rows[::5]:
        row["passages"] = [f"{row['passages'][0]} {'It snows. ' * 200}"]
    path = _file(tmp_path / "mine.jsonl", rows)
    base = small_bases.base(small_bases.decoder(max_length=300))
    data = own_data(path, "raft", base=base)
    left = [*data.train, *_asked(data.validation), *_asked(data.test)]
    assert len(left) == 64
    assert data.notes == ("16 questions are too long for small: left out.",)
    tiny = small_bases.base(small_bases.decoder(max_length=8))
    with pytest.raises(DataError, match="none of its 80 questions fits into the 8 tokens"):
        own_data(path, "raft", base=tiny)


def test_facts_are_learned_and_their_last_wordings_are_held_out(tmp_path: Path) -> None:
    rows = [
        {"question": f"{how} {i}?", "answer": f"{i} crowns", "language": "es" if i % 2 else "en"}
        for i in range(6)
        for how in ("What costs", "what  COSTS", "How much is", "The price of")
    ]
    rows += [{"question": "Once?", "answer": "yes"}, {"question": "Twice?", "answer": "yes",
             "fact": "another"}]  # fmt: skip
    data = own_data(_file(tmp_path / "mine.jsonl", rows), "closed-book")
    learned = {e.questions[0].text for e in data.train}
    assert learned == {f"{how} {i}?" for i in range(6) for how in ("What costs", "How much is")} | {
        "Once?", "Twice?",
    }  # fmt: skip
    held_out = [e.questions[0].text for e in (*_asked(data.test), *_asked(data.validation))]
    assert sorted(held_out) == [f"The price of {i}?" for i in range(6)]
    assert len(_asked(data.test)) == 3
    assert all(not e.passages and e.kind == "closed_book" for e in data.train)
    assert {test.name.partition("/")[0] for test in data.test.general} == {"en", "es"}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"question": "  "}, "line 2: question should be a text, and is '  '"),
        ({"answer": 7}, "line 2: answer should be a text, or null .* and is 7"),
        ({"answer": ""}, "line 2: answer should be a text"),
        ({"passages": "one"}, "line 2: passages should be a list of texts, and is 'one'"),
        ({"language": "fr"}, "line 2: the language is 'fr': give en or es"),
    ],
)
def test_a_line_that_is_wrong_is_named(tmp_path: Path, wrong: dict, said: str) -> None:
    rows = _rows(1)
    rows[1] |= wrong
    with pytest.raises(DataError, match=said):
        read_own_questions(_file(tmp_path / "mine.jsonl", rows))


def test_what_can_not_be_split_is_said(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text("", "utf-8")
    with pytest.raises(DataError, match="holds no question"):
        own_data(path, "raft")
    path.write_text('{"question": "Why?"}\n', "utf-8")
    with pytest.raises(DataError, match="and is 'missing'"):
        own_data(path, "raft")
    path.write_text("why\n", "utf-8")
    with pytest.raises(DataError, match="line 1, is not JSON"):
        own_data(path, "raft")
    _file(path, [{"question": "Why?", "answer": "so"}])
    with pytest.raises(DataError, match=r"the question 'Why\?' has no passages"):
        own_data(path, "raft")
    with pytest.raises(DataError, match="0 of its 1 facts are asked for in two wordings"):
        own_data(path, "closed-book")
    _file(path, [{**row, "passages": [*row["passages"], "The same."]} for row in _rows(9)])
    with pytest.raises(DataError, match="fall into 1 groups only"):
        own_data(path, "raft")
    with pytest.raises(UsageError, match="give --task generate"):
        own_data(path, "pretraining")


def test_the_command_reads_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[FineTuneData] = []

    def look(base: object, data: FineTuneData, *_: object, **__: object) -> None:
        given.append(data)
        raise UsageError("seen enough.")

    monkeypatch.setattr("minirag.finetuning.finetune.finetune", look)
    checkpoints.save(small_bases.decoder(), tmp_path / "base")
    small_bases.tokenizer().save(tmp_path / "base")
    path = _file(tmp_path / "mine.jsonl", _rows(20))
    command = ["finetune", "--base", str(tmp_path / "base"), "--data", str(path)]
    assert main([*command, "--questions", "5"]) == 64
    assert "seen enough" in capsys.readouterr().err
    assert given == [own_data(path, "raft", questions=5, questions_on_the_way=5)]
    assert given[0].name == "mine.jsonl, raft"


def test_wordings_are_held_out_without_comparing_all_with_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = [
        OwnQuestion(f"q{i} w{w}", f"a{i}", (), "en", f"a{i}") for i in range(60) for w in range(3)
    ]
    compared: list[int] = []
    equal = OwnQuestion.__eq__

    def counting(self: OwnQuestion, other: object) -> bool:
        compared.append(1)
        return equal(self, other)

    monkeypatch.setattr(OwnQuestion, "__eq__", counting)
    learned, validation, test = own_reading._by_wording(Path("mine"), asked, 0)
    assert len(compared) < 3 * len(asked)
    monkeypatch.undo()
    assert learned == [q for q in asked if not q.question.endswith("w2")]
    assert len(validation) == len(test) == 30
