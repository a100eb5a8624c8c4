"""`tour`, and `ask` and `kb` on the laboratory's documents: what is printed, what is refused."""

from __future__ import annotations

import hashlib
import io
import json
import re
import sys

import pytest
import small_bases
from tiny_retriever import save_base

from minirag.cli import ask, laboratory
from minirag.cli import tour as cli_tour
from minirag.cli.answer_texts import FRAMES
from minirag.cli.ask import _decoder_of
from minirag.cli.laboratory import ARMS, DOMAINS, Label
from minirag.cli.main import main
from minirag.combination import live
from minirag.combination.compare import LEAST_SHARED, PASSAGES
from minirag.combination.tour import Asked, Begun, Cell, Changed, Noticed, Reply, Table
from minirag.combination.tour_texts import texts_in
from minirag.corpus.slices import SLICES
from minirag.errors import UsageError
from minirag.finetuning.config import LaboratoryData
from minirag.intervals import Interval
from minirag.rag.pipeline import Settings
from minirag.rag.reading import ReadingPipeline, TrainedReader
from minirag.training import evaluate_reading, weights
from minirag.transformer import checkpoints
from minirag.transformer.generation import Sampling

WHAT = LaboratoryData(way="closed-book", world_seed=5, entities=8, changing=24)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory of weights: tiny models of random weights under the shipped ones' names."""
    root = tmp_path_factory.mktemp("weights")
    for seed, name in enumerate(("gpt-base", "gpt-base-medicine-closed-book",
                                 "gpt-base-medicine-raft")):  # fmt: skip
        checkpoints.save(small_bases.decoder(seed, n_layers=1, max_length=2048), root / name)
        small_bases.tokenizer().save(root / name)
    report = {"seconds": 62.5, "laboratory": WHAT.as_json()}
    (root / "gpt-base-medicine-closed-book" / "finetune.json").write_text(json.dumps(report))
    save_base(root / "retriever", n_layers=1, d_model=16)
    return root


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def call(monkeypatch, capsys, place, cache):
    """Run a verb; returns the exit code, what it printed, and what it said on stderr."""
    monkeypatch.setenv("MINIRAG_CACHE", str(cache))
    monkeypatch.setattr(live, "weights_root", lambda: place)
    monkeypatch.setattr(weights, "weights_root", lambda: place)
    # random weights never end an answer: three tokens of it are enough
    monkeypatch.setattr(evaluate_reading, "ANSWERS", Sampling(max_new_tokens=3))

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as leaving:  # argparse's way out
            code = int(leaving.code or 0)
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return run


def test_the_choices_are_those_of_the_library() -> None:
    assert DOMAINS == live.DOMAINS
    assert tuple(live.ARM_OF) == ARMS
    assert (laboratory.PASSAGES, laboratory.LEAST_SHARED) == (PASSAGES, LEAST_SHARED)
    assert Settings().k == ask.PASSAGES


# -- tour ------------------------------------------------------------------------------------------


def test_the_tour_in_a_pipe_and_for_programs(call) -> None:
    code, out, err = call("tour", "--questions", 1)
    assert (code, err) == (0, "")
    assert "\033" not in out
    assert max(map(len, out.splitlines())) <= 80
    said = texts_in("en")
    titles = [c.title for c in (said.five_ways, said.change, said.unanswerable, said.table)]
    assert [out.index(title) for title in titles] == sorted(out.index(title) for title in titles)
    flat = " ".join(out.split())
    assert "gpt-base-medicine-closed-book was trained for 62 s" in flat
    for arm in said.arms.values():
        rows = [line for line in out.splitlines() if line.strip().startswith(f"{arm} ")]
        assert len([row for row in rows if "✓" in row or "✗" in row]) >= 7
    assert 'minirag ask "..." --domain medicine' in out

    code, out, err = call("tour", "--questions", 1, "--json")
    value = json.loads(out)
    assert (code, err) == (0, "")
    assert (value["language"], value["seed"], value["world_seed"]) == ("en", 0, 5)
    assert [len(c["questions"]) for c in value["chapters"]] == [3, 3, 1, 0]
    read: list[int] = []
    for chapter in value["chapters"]:
        assert chapter["notice"]
        assert chapter["read_on"].startswith("minirag/")
        for question in chapter["questions"]:
            assert len(question["replies"]) == 5
            memory, same, rag, both, raft = (reply["given"] for reply in question["replies"])
            assert memory == same == []
            assert rag == both == raft
            assert [r["unmentioned"] for r in question["replies"][2:]] == [not rag] * 3
            assert not any(r["unmentioned"] for r in question["replies"][:2])
            read.append(len(rag))
    assert max(read) <= PASSAGES
    changed = value["chapters"][1]["changed"]
    assert changed["before"] != changed["after"]
    assert changed["training_seconds"] == 62.5
    assert len(value["chapters"][3]["table"]["cells"]) == 30


def test_a_tour_without_its_readers_says_what_to_do(call, place, tmp_path) -> None:
    code, out, err = call("tour", "--raft", tmp_path)
    assert (code, out) == (2, "")
    assert err == (
        f"minirag: there is no reader in {tmp_path}: make one with `minirag finetune --base "
        "gpt-base --domain medicine --way raft --out DIR`, or give the directory of another.\n"
    )
    code, _, err = call("tour", "--questions", 0)
    assert (code, "--questions is 0: give 1 or more" in err) == (64, True)
    code, _, err = call("tour", "--base", place / "retriever")
    assert (code, "is an encoder: it gives vectors" in err) == (6, True)


PARTS = [
    Begun(1, "A title", "An introduction. " * 12),
    Asked("Which medicine does the Pofider guideline put first?", "learned", "zubirol"),
    Reply("base", None, False, False, (), (), 0.1, False),
    Reply(
        "RAG", "zubirol", True, False, ("Pofider guideline", "Zubirol"), ("Zubirol",), 0.1, False
    ),
    Reply("fine-tuned + RAG", None, True, False, (), (), 0.1, True),
    Reply("RAFT + RAG", "pesmomdine " * 9, False, True, ("Zubirol",), (), 0.1, False),
    Changed("medicine-guideline-1", "Pofider guideline", "old " * 40, "new " * 40, 4.2, 60.0),
    Table(tuple(Cell("fine-tuned + RAG", s, 20, Interval(0.95, 0.764, 1.0)) for s in SLICES), 1.0),
    Noticed("Something.", "minirag/files.py"),
]


@pytest.mark.parametrize("language", ["en", "es"])
def test_parts_as_text(capsys, monkeypatch, language) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    said = texts_in(language)
    printer = cli_tour._Printer(said, coloured=False)
    for part in PARTS:
        printer.take(part)
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert max(map(len, lines)) <= 80
    assert f"  {'base':<{printer.arms}}✗ {said.unknown}" in lines
    assert f"  {'RAG':<{printer.arms}}✓ zubirol [Zubirol]" in lines
    assert f"  {'fine-tuned + RAG':<{printer.arms}}✓ {said.unmentioned}" in lines
    flat = " ".join(out.split())
    assert f"[{said.no_source}] ({said.stale})" in flat
    assert f"{said.right_answer}: zubirol" in flat
    rows = [line for line in lines if line.startswith("fine-tuned + RAG")]
    assert rows[0].split()[-6:] == ["95"] * 6
    assert lines[lines.index(rows[0]) + 1].split() == ["76-100"] * 6
    assert f"{said.read_on}: minirag/files.py" in lines


def test_colours_are_for_terminals_that_want_them(capsys, monkeypatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "stdout", Terminal())
    assert cli_tour._has_colours()
    monkeypatch.setenv("NO_COLOR", "1")
    assert not cli_tour._has_colours()
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not cli_tour._has_colours()
    monkeypatch.delenv("TERM")
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert not cli_tour._has_colours()
    cli_tour._Printer(texts_in("en"), coloured=True).take(PARTS[3])
    assert "\033[32m✓\033[0m zubirol" in sys.stdout.getvalue()


# -- weights ---------------------------------------------------------------------------------------


def test_the_list_of_weights_fits_a_terminal(call, place) -> None:
    code, out, err = call("weights")
    assert (code, "has no checksums.json" in err) == (1, True)  # nobody sealed these
    title, *lines = out.splitlines()
    assert title == f"{place}: 4 models"
    assert max(map(len, lines)) <= 80
    for name, digest in zip(lines[::2], lines[1::2], strict=True):
        weights = place / name.split()[0] / "model.safetensors"
        assert name.endswith("damaged")
        assert digest.strip() == hashlib.sha256(weights.read_bytes()).hexdigest()


# -- ask and kb ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def news_base(tmp_path_factory):
    return tmp_path_factory.mktemp("kb") / "news"


@pytest.fixture
def news(call, news_base):
    if not news_base.exists():
        code, out, err = call("kb", "new", news_base, "--domain", "news", "--json")
        assert (code, err) == (0, "")
        assert json.loads(out)["added"] == json.loads(out)["documents"] > 50
    return news_base


def test_ask_a_domain(call) -> None:
    question = "Which medicine is put first?"
    code, out, err = call("ask", question, "--domain", "medicine", "--json")
    value = json.loads(out)
    assert (code, err) == (0, "")
    assert value["models"]["reader"]["name"] == "gpt-base-medicine-raft"
    assert value["models"]["encoder"]["name"] == "retriever"
    assert len(value["retrieved"]) == PASSAGES
    assert (value["answer"], "few rare words" in value["reason"]) == (None, True)
    code, out, err = call("ask", question, "--domain", "medicine")
    shared = [float(text) for text in re.findall(r"rare words (\d\.\d\d)  medicine-", out)]
    assert (code, err, len(shared), max(shared) < LEAST_SHARED) == (0, "", PASSAGES, True)
    assert [round(hit["shared"], 2) for hit in value["retrieved"]] == shared
    everything = ("--least-shared", 0)
    code, out, err = call("ask", question, "--domain", "medicine", *everything, "--json")
    said = json.loads(out)
    assert said["retrieved"] == value["retrieved"]
    assert said["answer"] is not None or "refuses" in said["reason"]
    code, out, _ = call("ask", question, "--domain", "medicine", "--arm", "fine-tuned", "--json")
    value = json.loads(out)
    assert value["models"]["reader"]["name"] == "gpt-base-medicine-closed-book"
    assert (value["retrieved"], value["citations"]) == ([], [])
    by_name = ("--reader", "gpt-base-medicine-closed-book")
    code, out, _ = call("ask", question, "--domain", "medicine", *by_name, "--json")
    assert json.loads(out)["models"]["reader"]["name"] == by_name[1]
    code, out, err = call("ask", question, "--domain", "medicine", *everything, "--explain")
    assert (code, err) == (0, "")
    assert "== prompt ==" in out or "refuses to answer" in " ".join(out.split())
    refusing = ("ask", question, "--domain", "medicine", *everything, "--refuse-from", 0)
    code, out, err = call(*refusing, "--explain")
    assert (code, err) == (0, "")
    assert "refuses to answer" in " ".join(out.split())
    said = json.loads(call(*refusing, "--json")[1])
    assert 0 < said["refusing"] < 1
    assert f"probability of a refusal: {said['refusing']:.3f}" in out


def test_spanish_documents_are_answered_in_a_spanish_frame(call) -> None:
    given = ("ask", "¿Qué fármaco va primero?", "--domain", "medicine", "--language", "es")
    code, out, err = call(*given)
    assert (code, err) == (0, "")
    assert re.search(r"\[1\] similitud -?0\.\d\d, palabras raras 0\.\d\d  ", out)
    assert "el mejor pasaje comparte pocas palabras raras" in " ".join(out.split())
    for english in ("similarity", "Read", "Retrieved", "The ", "to read"):
        assert english not in out
    code, out, _ = call(*given, "--threshold", 1)
    assert "por debajo de 1.00 la respuesta sería una conjetura" in " ".join(out.split())
    code, out, _ = call(*given, "--arm", "base")
    assert "De memoria" in out or "El modelo dice que no lo sabe" in out
    assert {*map(type, vars(FRAMES["es"]).values())} == {str}


def test_without_a_reader_of_its_own_a_domain_is_read_by_the_base(call, news) -> None:
    code, out, err = call("ask", "Who is the mayor?", "--kb", news, "--json")
    assert code == 0
    assert err == (
        "note: no reader was fine-tuned to read news: gpt-base reads as it was pretrained.\n"
    )
    assert json.loads(out)["models"]["reader"]["name"] == "gpt-base"
    code, _, err = call("ask", "Who?", "--kb", news, "--arm", "raft")
    assert (code, "finetune --" in err) == (2, False)
    assert "none can be fine-tuned to the news" in err
    assert "(base, rag)" in err


def test_a_laboratorys_base_is_not_indexed_over(call, news, tmp_path) -> None:
    page = tmp_path / "page.txt"
    page.write_text("A page.\n", "utf-8")
    before = call("kb", "info", news)
    code, out, err = call("index", page, "--out", news)
    assert (code, out) == (4, "")
    assert "holds the laboratory's news" in err
    assert call("kb", "info", news) == before


def test_the_next_answer_reads_what_was_changed(call, news) -> None:
    id = "news-200"
    code, out, _ = call("kb", "show", news, id, "--json")
    document = json.loads(out)
    assert (code, document["id"]) == (0, id)
    code, out, _ = call("kb", "show", news, id)
    assert out == f"{document['title']}\n\n{document['text']}\n"
    call("kb", "change", news, id, "--text", "One\x1b[2J line\nand another.")
    code, out, _ = call("kb", "show", news, id)
    assert out.endswith("\n\nOne[2J line\nand another.\n")  # a document commands no terminal
    new = "The Quimbal lighthouse has been painted in ochre."
    code, out, _ = call("kb", "change", news, id, "--text", new)
    assert (code, "1 changed, 0 unchanged in " in out, " ms; now " in out) == (0, True, True)
    asked = ("ask", "Which colour is the Quimbal lighthouse?", "--kb", news)
    asked += ("--arm", "rag", "--retriever", "lexical")
    code, out, err = call(*asked, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["retrieved"][0]["text"] == new
    code, out, _ = call(*asked)
    assert out.startswith("The documents don't say") or "Read\n[1]" in out or "Retrieved" in out
    code, out, _ = call("kb", "remove", news, id)
    assert (code, "1 removed" in out) == (0, True)
    code, out, _ = call(*asked, "--json")
    assert all(hit["document"] != id for hit in json.loads(out)["retrieved"])


def test_an_update_tells_what_training_to_its_effect_costs(call, news, tmp_path) -> None:
    Label("medicine", "en").write(news)
    page = tmp_path / "page.txt"
    page.write_text("A page.\n", "utf-8")
    code, out, _ = call("kb", "add", news, page, "--json")
    assert (code, json.loads(out)["training"]) == (
        0,
        {"model": "gpt-base-medicine-closed-book", "seconds": 62.5},
    )
    code, out, _ = call("kb", "change", news, "page.txt", "--file", page)
    assert (code, "0 changed, 1 unchanged" in out) == (0, True)
    assert "gpt-base-medicine-closed-book would have to be trained again: 62 s" in out
    code, out, _ = call("kb", "remove", news, "page.txt")
    assert "trained again" in out
    Label("news", "en").write(news)
    code, out, _ = call("kb", "add", news, page)
    assert "trained again" not in out


def test_chat_takes_a_domain(call, news, monkeypatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("Who is the mayor of Tor?\nAnd of Quimbal?\n"))
    code, out, _ = call("chat", "--kb", news, "--arm", "rag", "--json")
    turns = [json.loads(line) for line in out.splitlines()]
    assert (code, len(turns)) == (0, 2)
    assert turns[0]["models"]["reader"]["name"] == "gpt-base"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["ask", "x", "--domain", "news", "--quote"], 64, "--quote is for chat models"),
        (["ask", "x", "--domain", "news", "--markers"], 64, "--markers is for chat models"),
        (["ask", "x", "--domain", "news", "--temperature", "1"], 64, "--temperature is for chat"),
        (["ask", "x", "--domain", "news", "--kb", "KB"], 64, "not allowed with"),
        (["ask", "x", "--docs", "none", "--arm", "rag"], 64, "--arm, --language, --least-shared"),
        (["ask", "x", "--docs", "none", "--least-shared", "1"], 64, "go with the laboratory's"),
        (["ask", "x", "--domain", "news", "--least-shared", "-1"], 64, "'-1' is no share"),
        (
            ["ask", "x", "--domain", "news", "--least-shared", "1", "--retriever", "dense"],
            64,
            "--retriever dense does not count them",
        ),
        (["ask", "x", "--domain", "news", "--arm", "base", "--least-shared", "1"], 64, "is about"),
        (["ask", "x", "--docs", "none", "--refuse-from", "0.5"], 64, "go with the laboratory's"),
        (["ask", "x", "--domain", "news", "--refuse-from", "2"], 64, "'2' is no probability"),
        (["ask", "x", "--kb", "KB", "--language", "es"], 64, "in the language 'en', and 'es' is"),
        (
            ["ask", "x", "--domain", "news", "--arm", "base", "--retriever", "lexical"],
            64,
            "--retriever is about passages, and the arm base answers from memory",
        ),
        (["ask", "x", "--domain", "news", "--arm", "fine-tuned", "-k", "3"], 64, "-k is about"),
        (["ask", "x", "--domain", "physics"], 64, "invalid choice: 'physics'"),
        (["kb", "new", "KB", "--domain", "news"], 4, "exists and is not empty"),
        (["kb", "show", "KB", "none"], 64, "which holds 91 documents: news-37, news-39"),
        (["kb", "show", "none", "none"], 4, "there is no directory none"),
        (["kb", "change", "KB", "none", "--text", "x"], 64, "there is no document 'none'"),
        (["kb", "change", "KB", "news-199", "--text", " "], 64, "the new text is empty"),
        (["kb", "change", "KB", "news-199", "--file", "TWO"], 64, "holds 2 documents: give a file"),
        (["kb", "change", "KB", "news-199", "--file", "none"], 3, "there is no file or folder"),
    ],
)
def test_mistakes_are_sentences(call, news, tmp_path, arguments, code, says) -> None:
    two = tmp_path / "two.jsonl"
    two.write_text('{"id": 1, "text": "a"}\n{"id": 2, "text": "b"}\n', "utf-8")
    given = [{"KB": str(news), "TWO": str(two)}.get(a, a) for a in arguments]
    got, _, err = call(*given)
    assert (got, says in err.splitlines()[-1]) == (code, True), err


def test_only_a_decoder_can_be_explained() -> None:
    reader = TrainedReader(small_bases.encoder_decoder(), small_bases.tokenizer(), "small", "f")
    with pytest.raises(UsageError, match="small is an encoder-decoder: leave it out"):
        _decoder_of(ReadingPipeline(None, reader, Settings()))


def test_a_damaged_label_is_told(call, news) -> None:
    path = news / "laboratory.json"
    whole = path.read_bytes()
    for damaged in ('{"domain"', '{"colour": 1}', "[]"):
        path.write_text(damaged)
        code, _, err = call("ask", "x", "--kb", news)
        assert (code, "laboratory.json is damaged" in err) == (4, True)
    path.write_bytes(whole)
