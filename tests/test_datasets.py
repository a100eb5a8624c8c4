"""Data sets: read as their formats say, or refused with the place that is wrong."""

import gzip
import json

import pytest

from minirag.errors import DataError, DocumentError
from minirag.text import datasets
from minirag.text.datasets import Question, read_beir, read_squad
from minirag.text.documents import Document


def squad():
    """Two articles of one title (one without), version 1.1 and 2.0 questions among them."""
    return {
        "version": "v2.0",
        "data": [
            {
                "title": "Rio_Tinto",
                "paragraphs": [
                    {
                        "context": "The river is red. It is acid.",
                        "qas": [
                            {
                                "id": "q1",
                                "question": "What colour?",
                                "answers": [
                                    {"text": "red", "answer_start": 13},
                                    {"text": "red", "answer_start": 13},
                                    {"text": "is red", "answer_start": 10},
                                ],
                            },
                            {
                                "id": "q2",
                                "question": "How long?",
                                "is_impossible": True,
                                "plausible_answers": [{"text": "red", "answer_start": 13}],
                                "answers": [],
                            },
                        ],
                    },
                    {"context": "Ñandú.", "qas": []},
                ],
            },
            {"title": "Rio_Tinto", "paragraphs": [{"context": "A firm."}]},
            {
                "paragraphs": [
                    {
                        "context": "No title.",
                        "qas": [
                            {"id": "q3", "question": "?", "answers": [], "is_impossible": None}
                        ],
                    }
                ]
            },
        ],
    }


@pytest.mark.parametrize("name", ["a.json", "a.json.gz"])
def test_squad_is_read_whole(tmp_path, name):
    path = tmp_path / name
    data = json.dumps(squad(), ensure_ascii=False).encode()
    path.write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    read = read_squad(path)
    source = str(path)
    assert read.paragraphs == [
        Document("Rio_Tinto-0", "The river is red. It is acid.", "Rio Tinto", source),
        Document("Rio_Tinto-1", "Ñandú.", "Rio Tinto", source),
        Document("Rio_Tinto#1-0", "A firm.", "Rio Tinto", source),
        Document("#2-0", "No title.", "", source),
    ]
    assert read.questions == [
        Question("q1", "What colour?", ("red", "is red"), "Rio_Tinto-0", "Rio_Tinto"),
        Question("q2", "How long?", (), "Rio_Tinto-0", "Rio_Tinto"),
        Question("q3", "?", (), "#2-0", "#2"),
    ]
    assert read.article_of == {
        "Rio_Tinto-0": "Rio_Tinto",
        "Rio_Tinto-1": "Rio_Tinto",
        "Rio_Tinto#1-0": "Rio_Tinto#1",
        "#2-0": "#2",
    }


def change(value, path, new):
    for key in path[:-1]:
        value = value[key]
    if new is KeyError:
        del value[path[-1]]
    else:
        value[path[-1]] = new


FIRST = ("data", 0, "paragraphs", 0)


@pytest.mark.parametrize(
    ("path", "new", "message"),
    [
        (("data",), KeyError, r"\.data should be a list, and is missing"),
        (("data", 0), [], r"data\[0\] should be an object with 'title', and is a list"),
        (("data", 0, "title"), 7, r"data\[0\]\.title should be a text, and is 7"),
        ((*FIRST, "context"), None, r"paragraphs\[0\]\.context should be a text, and is missing"),
        ((*FIRST, "qas", 0, "question"), KeyError, r"qas\[0\]\.question should be a text"),
        ((*FIRST, "qas", 0, "answers"), KeyError, r"qas\[0\]\.answers should be a list"),
        ((*FIRST, "qas", 0, "answers", 1), "red", r"answers\[1\] should be an object .* a text"),
        ((*FIRST, "qas", 1, "is_impossible"), "no", r"is_impossible should be true or false"),
        ((*FIRST, "qas", 1, "id"), "q1", r"qas\[1\]: the id 'q1' came before"),
    ],
)
def test_what_is_not_squad_is_refused_by_its_place(tmp_path, path, new, message):
    value = squad()
    change(value, path, new)
    file = tmp_path / "a.json"
    file.write_text(json.dumps(value), "utf-8")
    with pytest.raises(DataError, match=message) as caught:
        read_squad(file)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.json", b"{", "is not JSON"),
        ("a.json", b"[" * 100_000, "nested too deeply"),
        ("a.json", b"[1]", "should be an object with 'data', and is a list"),
        ("a.json", b'{"data": [], "x": "\xff"}', "bad UTF-8"),
        ("a.json.gz", b"{}", "could not read"),
        ("a.json.gz", gzip.compress(b"{}" * 9999)[:30], "could not read"),
    ],
)
def test_damaged_squad_files_are_one_sentence(tmp_path, name, data, message):
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=message):
        read_squad(tmp_path / name)


def test_a_gzip_bomb_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "MAX_SQUAD_BYTES", 1_000_000)
    path = tmp_path / "a.json.gz"
    path.write_bytes(gzip.compress(b" " * 10_000_000))
    with pytest.raises(DataError, match="more than 1,000,000 bytes"):
        read_squad(path)


# -- BEIR ------------------------------------------------------------------------------------------

CORPUS = """{"_id": "d1", "title": "First", "text": "One."}

{"_id": 2, "text": ""}
{"_id": "d3", "title": null, "text": "Tres, año.", "metadata": {}}
"""
QUERIES = """{"_id": "q2", "text": "dos?"}
{"_id": "q1", "text": "one?"}
{"_id": "other split", "text": "not judged here"}
"""
QRELS = "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\t2\t0\nq2\td3\t1\nq2\tgone\t-1\n"


def beir(folder, corpus=CORPUS, queries=QUERIES, qrels=QRELS, packed=False):
    (folder / "qrels").mkdir()
    for name, text in {"corpus.jsonl": corpus, "queries.jsonl": queries}.items():
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(text.encode()))
        else:
            (folder / name).write_bytes(text.encode())
    (folder / "qrels" / "test.tsv").write_bytes(qrels.encode())
    return folder


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_beir_is_read_whole(tmp_path, packed, line_end):
    texts = [text.replace("\n", line_end) for text in (CORPUS, QUERIES, QRELS)]
    read = read_beir(beir(tmp_path, *texts, packed=packed))
    assert [(d.id, d.text, d.title) for d in read.corpus] == [
        ("d1", "One.", "First"),
        ("2", "", ""),
        ("d3", "Tres, año.", ""),
    ]
    assert list(read.queries.items()) == [("q2", "dos?"), ("q1", "one?")]
    assert read.qrels == {"q1": {"d1": 2, "2": 0}, "q2": {"d3": 1, "gone": -1}}


def test_judgments_are_not_packed(tmp_path):
    folder = beir(tmp_path)
    (folder / "qrels" / "test.tsv").rename(folder / "qrels" / "test.tsv.gz")
    with pytest.raises(DocumentError, match=r"no file .*test.tsv: a folder in BEIR's layout"):
        read_beir(folder)


@pytest.mark.parametrize(
    ("part", "text", "message"),
    [
        ("corpus", CORPUS + "{oops\n", "corpus.jsonl, line 5, is not JSON"),
        ("corpus", CORPUS + '{"_id": "d1", "text": ""}', "line 5: the _id 'd1' came before"),
        ("corpus", '{"id": "d1", "text": ""}', "line 1: _id should be a text, and is missing"),
        ("corpus", '{"_id": "d1", "text": "\\ud800"}', "line 1, holds half characters"),
        ("corpus", '{"_id": "d1"}', "line 1.text should be a text, and is missing"),
        ("corpus", "\n", "holds no line"),
        ("queries", '{"_id": "q1", "text": "one?"}', "1 judged queries .* 'q2'"),
        ("qrels", QRELS.split("\n", 1)[1], "should begin with the line query-id"),
        ("qrels", QRELS + "q1\td3\n", "line 6: expected .* got 'q1.td3'"),
        ("qrels", QRELS + "q1\td3\t1.5\n", "line 6: expected"),
        ("qrels", QRELS + "q1\td1\t1\n", "line 6: this pair was judged before"),
        ("qrels", "query-id\tcorpus-id\tscore\n", "holds no judgment"),
        ("qrels", QRELS + "q1\td9\t" + "9" * 9999, "could not read"),
    ],
)
def test_what_is_not_beir_is_refused_by_its_line(tmp_path, part, text, message):
    beir(tmp_path, **{part: text})
    with pytest.raises(DataError, match=message):
        read_beir(tmp_path)


@pytest.mark.parametrize("name", ["corpus.jsonl", "queries.jsonl", "qrels/test.tsv"])
def test_a_missing_file_is_named(tmp_path, name):
    beir(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(DocumentError, match=rf"no file .*{name}: a folder in BEIR's layout holds"):
        read_beir(tmp_path)


def test_an_answer_that_stands_elsewhere_is_told_with_its_question(tmp_path):
    answers = [{"text": "mill", "answer_start": 4}, {"text": "burned", "answer_start": 4}]
    asked = [
        {"id": f"q{n}", "question": "What?", "answers": [answer]}
        for n, answer in enumerate([*answers, {"text": "mill"}])
    ]
    paragraph = {"context": "The mill burned.", "qas": asked}
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"data": [{"title": "A", "paragraphs": [paragraph]}]}), "utf-8")
    with pytest.warns(UserWarning, match="of 1 of 3 questions, the first of which is 'q1'"):
        assert len(read_squad(path).questions) == 3


def test_another_split(tmp_path):
    beir(tmp_path)
    (tmp_path / "qrels" / "dev.tsv").write_text(QRELS.replace("q1\td1\t2\n", ""), "utf-8")
    assert read_beir(tmp_path, "dev").qrels["q1"] == {"2": 0}
