"""The command line end to end: what it prints, for people and for programs, and its exit codes."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import small_bases
from test_rag_evaluation import write_beir, write_squad
from tiny_models import save_encoder, save_reader

from minirag import __version__, errors, files
from minirag.cli.ask import PASSAGES
from minirag.cli.main import VERBS, main
from minirag.intervals import wilson_interval
from minirag.retrieval.encoder import BiEncoder
from minirag.retrieval.knowledge_base import KnowledgeBase
from minirag.transformer import checkpoints

PAGES = {
    "calc/rows.md": "# Rows\n\nChoose View, then Freeze Rows, to keep the first row in sight.\n",
    "calc/charts.md": "# Charts\n\n## Bars\n\nA bar chart shows numbers as bars.\n",
    "writer.txt": "A page break is inserted with Ctrl+Enter.\n",
}


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, str]:
    place = tmp_path_factory.mktemp("models")
    return {
        "encoder": str(save_encoder(place / "tiny-encoder")),
        "reader": str(save_reader(place / "tiny-reader")),
    }


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """A cache of one's own, empty."""
    monkeypatch.setenv("MINIRAG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def docs(tmp_path) -> Path:
    for name, text in PAGES.items():
        path = tmp_path / "docs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return tmp_path / "docs"


@pytest.fixture
def call(models, capsys):
    """Run a verb; returns the exit code, what it printed, and what it said on stderr."""

    def run(*arguments: object, encoder: bool = True, reader: bool = False) -> tuple[int, str, str]:
        given = [str(a) for a in arguments]
        given += ["--encoder", models["encoder"]] if encoder else []
        given += ["--reader", models["reader"]] if reader else []
        capsys.readouterr()
        try:
            code = main(given)
        except SystemExit as leaving:  # argparse's way out
            code = int(leaving.code or 0)
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return run


@pytest.fixture
def kb(call, docs, tmp_path) -> Path:
    assert call("index", docs, "--out", tmp_path / "kb")[0] == 0
    return tmp_path / "kb"


def ask(call, *arguments: object) -> dict:
    """``ask --json``, parsed."""
    code, out, _ = call("ask", *arguments, "--json", "--threshold", -1, reader=True)
    assert code == 0
    assert out.count("\n") == 1
    return json.loads(out)


# -- help ------------------------------------------------------------------------------------------


def _python(*arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONIOENCODING": "utf-8", **changes},
        timeout=120,
        check=False,
    )


def test_python_dash_m_and_version() -> None:
    done = _python("-m", "minirag", "--version")
    assert (done.returncode, done.stdout) == (0, f"minirag {__version__}\n")


def test_help_lists_every_verb_and_imports_no_torch() -> None:
    code = (
        "import sys\n"
        "from minirag.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'tokenizers', 'safetensors'} & set(sys.modules)\n"
        "print('HEAVY', sorted(heavy))\n"
    )
    done = _python("-c", code)
    assert "HEAVY []" in done.stdout, done.stderr
    for verb, (_, summary) in VERBS.items():
        assert verb in done.stdout
        assert summary in done.stdout


def test_every_verbs_help_explains_without_torch() -> None:
    code = (
        "import sys\n"
        "from minirag.cli.main import VERBS, main\n"
        "for verb in VERBS:\n"
        "    try: main([verb, '--help'])\n"
        "    except SystemExit as leaving: assert not leaving.code\n"
        "    if 'torch' in sys.modules: sys.exit(verb + ' imports torch for its help')\n"
    )
    done = _python("-c", code, COLUMNS="80")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("usage: minirag ") == len(VERBS)
    for line in done.stdout.splitlines():
        assert len(line) <= 80, line


def test_defaults_in_help_are_those_of_each_way_to_ask(call) -> None:
    said = " ".join(call("ask", "--help", encoder=False)[1].split())
    own = "of a knowledge base its own; with --domain: retriever; else all-MiniLM-L6-v2"
    assert f"a name or a directory (default: {own})" in said
    assert "fused (default: dense; for the laboratory's readers: hybrid)" in said


@pytest.mark.parametrize(
    "verb", ["kb new", "kb info", "kb show", "kb add", "kb change", "kb remove", "kb plot",
             "faq ask", "faq add", "faq change", "faq remove", "faq list"],
)  # fmt: skip
def test_each_actions_help_is_a_sentence_and_explains_what_it_takes(call, verb) -> None:
    code, out, _ = call(*verb.split(), "--help", encoder=False)
    sentence = out.split("\n\n")[1]
    assert (code, sentence[0].isupper(), sentence.rstrip()[-1]) == (0, True, ".")
    for line, after in itertools.pairwise([*out.splitlines(), ""]):
        if re.fullmatch(r"  \S+( [A-Z]+)?", line):  # its explanation is on the next line
            assert after.startswith(" " * 20), line


def test_exit_codes_are_the_ones_that_help_names() -> None:
    from minirag.cli.main import _EPILOG

    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.MiniragError)
    ]
    codes = [kind.exit_code for kind in kinds]
    assert len(set(codes)) == len(codes)
    for code in codes:
        assert f" {code} " in _EPILOG.replace("\n", " ")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "VERB"),
        (["fly"], "invalid choice: 'fly'"),
        (["ask", "x"], "--kb --docs --domain is required"),
        (["ask", "x", "--kb", "a", "--docs", "b"], "not allowed with"),
        (["ask", "x", "--kb", "a", "-k", "many"], "invalid int value: 'many'"),
        (["index", "docs"], "--out"),
    ],
)
def test_wrong_options_are_usage_errors(call, arguments, says) -> None:
    code, out, err = call(*arguments, encoder=False)
    assert (code, out) == (64, "")
    assert says in err


# -- index -----------------------------------------------------------------------------------------


def test_index_says_what_it_did(call, docs, tmp_path) -> None:
    code, out, err = call("index", docs, "--out", tmp_path / "kb")
    assert (code, err) == (0, "")
    assert out.startswith(
        f"{tmp_path / 'kb'}: 3 documents, 3 passages, encoded by tiny-encoder\n"
        "3 added, 0 changed, 0 removed, 0 as before; "
    )


def _count_texts(monkeypatch, encoded: list[str]) -> None:
    """Note every text that is encoded, as a passage or as a question."""

    def counting(encode):
        def noted(self, texts, *, progress=False):
            encoded.extend(texts)
            return encode(self, texts, progress=progress)

        return noted

    for name in ("encode", "encode_questions"):
        monkeypatch.setattr(BiEncoder, name, counting(getattr(BiEncoder, name)))


def test_index_again_touches_only_what_changed(call, docs, kb, monkeypatch) -> None:
    encoded: list[str] = []
    _count_texts(monkeypatch, encoded)
    (docs / "writer.txt").write_text("A page break is inserted with the menu.\n", "utf-8")
    (docs / "calc" / "charts.md").unlink()
    (docs / "new.md").write_text("# Styles\n\nStyles format a whole document.\n", "utf-8")
    code, out, _ = call("index", docs, "--out", kb, "--json")
    report = json.loads(out)
    assert code == 0
    wanted = {"added": 1, "changed": 1, "removed": 1, "unchanged": 1, "documents": 3, "passages": 3}
    assert {key: report[key] for key in wanted} == wanted
    assert len(encoded) == 2
    assert "menu" in encoded[0] + encoded[1]
    assert call("index", docs, "--out", kb)[0] == 0
    assert len(encoded) == 2


def test_index_says_when_nothing_of_what_was_there_is_left(call, kb, tmp_path) -> None:
    (tmp_path / "other.txt").write_text("Something else.\n", "utf-8")
    code, out, err = call("index", tmp_path / "other.txt", "--out", kb, "--json")
    (warning,) = json.loads(out)["warnings"]
    assert (code, json.loads(out)["removed"], err) == (0, 3, f"warning: {warning}\n")
    assert "all of them were removed (3)" in warning


def test_index_json(call, docs, tmp_path) -> None:
    (docs / "bad.txt").write_bytes(b"caf\xe9")
    code, out, err = call("index", docs, "--out", tmp_path / "kb", "--json")
    report = json.loads(out)
    assert code == 0
    assert set(report) == {
        "knowledge_base", "documents", "passages", "added", "changed", "removed", "unchanged",
        "encoder", "warnings", "seconds",
    }  # fmt: skip
    assert report["encoder"]["name"] == "tiny-encoder"
    assert len(report["warnings"]) == 1
    assert "bad.txt is not valid UTF-8" in report["warnings"][0]
    assert "bad.txt is not valid UTF-8" in err


def test_another_size_or_a_foreign_directory_is_refused(call, docs, kb, tmp_path) -> None:
    code, _, err = call("index", docs, "--out", kb, "--size", 17)
    assert code == 64
    assert "was made with --size" in err
    code, _, err = call("index", docs, "--out", docs)
    assert code == 4
    assert "is no knowledge base" in err
    code, _, err = call("index", docs, "--out", docs / "writer.txt")
    assert code == 4
    assert (docs / "writer.txt").read_text("utf-8") == PAGES["writer.txt"]


def test_a_knowledge_base_of_a_local_encoder_says_how_to_open_it(call, kb, models) -> None:
    code, _, err = call("ask", "Who?", "--kb", kb, encoder=False, reader=True)
    assert code == 2
    assert "built with the encoder tiny-encoder" in err
    assert "--encoder" in err


# -- ask -------------------------------------------------------------------------------------------


def test_ask_json_holds_what_the_documents_hold(call, docs, kb) -> None:
    value = ask(call, "How do I keep the first row?", "--kb", kb, "-k", 2, "--max-new-tokens", 5)
    assert set(value) == {
        "question", "answer", "abstained", "citations", "retrieved", "threshold", "models",
        "timings", "invalid_citations", "stopped_by", "tokens",
    }  # fmt: skip
    assert value["question"] == "How do I keep the first row?"
    assert value["abstained"] is False
    assert len(value["retrieved"]) == 2
    assert value["retrieved"][0]["score"] >= value["retrieved"][1]["score"]
    for hit in value["retrieved"]:
        assert PAGES[hit["document"]][hit["start"] : hit["end"]] == hit["text"]
    assert value["tokens"]["answer"] <= 5
    assert value["tokens"]["context"] == 640
    assert value["models"]["reader"]["name"] == "tiny-reader"
    assert set(value["timings"]) == {"load", "retrieve", "first_token", "read"}


def test_ask_prints_the_answer_then_its_sources(call, kb) -> None:
    given = ("ask", "Who?", "--kb", kb, "--threshold", -1, "--max-new-tokens", 6)
    code, out, err = call(*given, reader=True)
    assert (code, err) == (0, "warning: cut off after 6 tokens: see --max-new-tokens.\n")
    answer = ask(call, "Who?", "--kb", kb, "--max-new-tokens", 6)["answer"]
    plain = "".join(c for c in answer if c.isprintable() or c == "\n")
    assert out.strip().startswith(plain.strip())
    assert "calc/rows.md  Rows" in out
    assert "calc/charts.md  Charts > Bars" in out
    assert re.search(r"^    similarity -?0\.\d\d, holds|^\[1\] similarity -?0\.\d\d  ", out, re.M)
    assert "tiny-reader, tiny-encoder; " in out.splitlines()[-1]


def test_ask_abstains_in_words_and_in_json(call, kb) -> None:
    given = ("ask", "Who?", "--kb", kb, "--threshold", 1)
    code, out, _ = call(*given, reader=True)
    assert code == 0
    assert "don't seem to answer this" in " ".join(out.split())
    assert "calc/rows.md" in out
    code, out, _ = call(*given, "--json", reader=True)
    value = json.loads(out)
    assert (code, value["abstained"], value["answer"], value["citations"]) == (0, True, None, [])
    assert "below 1.00 an answer would be a guess" in value["reason"]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--threshold", "nan"], 64, "'nan' is no likeness: give a number from -1 to 1"),
        (["--threshold", "5"], 64, "'5' is no likeness"),
        (["--quote", "--max-new-tokens", "0"], 64, "--max-new-tokens is 0: give 1 or more"),
        (["--threshold", "-1", "--max-new-tokens", "9999"], 64, "a smaller --max-new-tokens"),
        (["-k", "0"], 64, "-k is 0"),
    ],
)
def test_what_ask_can_not_do_is_a_sentence(call, kb, arguments, code, says) -> None:
    found, out, err = call("ask", "Who?", "--kb", kb, *arguments, reader=True)
    assert (found, out) == (code, "")
    assert says in err.splitlines()[-1]


def test_a_reader_without_conversations_is_told_before_anything_is_searched(call, kb, tmp_path):
    checkpoints.save(small_bases.decoder(), tmp_path / "gpt")
    small_bases.tokenizer().save(tmp_path / "gpt")
    code, _, err = call("ask", "Who?", "--kb", kb, "--threshold", 1, "--reader", tmp_path / "gpt")
    assert code == 6
    assert "gpt was not trained on conversations" in err
    assert "ask the laboratory's readers with --domain" in err


def test_documents_can_not_command_the_terminal(call, docs, tmp_path) -> None:
    (docs / "evil.md").write_text("# A \x1b]0;owned\x07\n\nText\x1b[2J\x9b.\n", "utf-8")
    given = ("ask", "Who?", "--docs", docs, "--threshold", -1, "--max-new-tokens", 9)
    _, out, err = call(*given, "--explain", reader=True)
    assert "evil.md" in out
    for character in out + err:
        assert character in "\n\t" or ord(character) >= 32
        assert not 127 <= ord(character) < 160


def test_without_a_calibration_it_says_so(call, kb) -> None:
    given = ("ask", "Who?", "--kb", kb, "--max-new-tokens", 1, "--json")
    code, out, err = call(*given, reader=True)
    assert (code, json.loads(out)["threshold"]) == (0, -1.0)
    assert "no threshold is calibrated for tiny-encoder" in err


def test_explain_shows_the_glass_box(call, kb) -> None:
    given = ("ask", "Who?", "--kb", kb, "--threshold", -1, "--max-new-tokens", 4, "--explain")
    code, out, _ = call(*given, reader=True)
    assert code == 0
    for part in ("== retrieved ==", "== token budget ==", "== prompt ==", "Who?"):
        assert part in out
    value = ask(call, "Who?", "--kb", kb, "--max-new-tokens", 4, "--explain")
    assert len(value["token_readings"]) == value["tokens"]["answer"]
    for reading in value["token_readings"]:
        assert 0 <= reading["probability"] <= 1
        assert len(reading["passages"]) == 3
        assert sum(reading["passages"]) == pytest.approx(1, abs=1e-3)
    assert "Who?" in value["prompt"]


def test_docs_are_cached_by_content(call, docs, monkeypatch) -> None:
    given = ("--docs", docs, "--max-new-tokens", 2)
    first = ask(call, "A bar chart?", *given)
    encoded: list[str] = []
    _count_texts(monkeypatch, encoded)
    second = ask(call, "A bar chart?", *given)
    assert encoded == ["A bar chart?"]
    assert second["retrieved"] == first["retrieved"]
    (docs / "writer.txt").write_text("Another text.\n", "utf-8")
    ask(call, "A bar chart?", *given)
    assert len(encoded) == 3  # the text that changed, and the question


def test_a_cache_that_can_not_be_written_only_costs_time(call, docs, monkeypatch) -> None:
    def full(*_):
        raise errors.DiskError("could not write: no space left on device.")

    monkeypatch.setattr("minirag.retrieval.knowledge_base.KnowledgeBase.save", full)
    code, out, err = call(
        "ask", "Who?", "--docs", docs, "--threshold", -1, "--max-new-tokens", 2, "--json",
        reader=True,
    )  # fmt: skip
    assert code == 0
    assert json.loads(out)["abstained"] is False
    assert "warning: not cached: could not write" in err


def test_real_models_answer_from_a_folder(minilm_dir, smollm_dir, docs, tmp_path, capsys) -> None:
    given = ["--encoder", str(minilm_dir)]
    assert main(["index", str(docs), "--out", str(tmp_path / "kb"), *given]) == 0
    capsys.readouterr()
    question = "How do I freeze the first row?"
    given += ["--reader", str(smollm_dir), "--threshold", "0.2", "--max-new-tokens", "8", "--json"]
    assert main(["ask", question, "--kb", str(tmp_path / "kb"), *given]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["retrieved"][0]["document"] == "calc/rows.md"
    assert value["retrieved"][0]["score"] > 0.5
    assert 0 < value["tokens"]["answer"] <= 8
    assert value["answer"]


def test_by_words_too_what_the_handbook_does_not_say_is_not_answered(
    minilm_dir, models, tmp_path, capsys
) -> None:
    """The handbook shares "the" and "of" with the question, and no more."""
    handbook, kb = str(files.shipped_directory("lessons") / "handbook"), str(tmp_path / "kb")
    assert main(["index", handbook, "--out", kb, "--encoder", str(minilm_dir)]) == 0
    given = ["--kb", kb, "--encoder", str(minilm_dir), "--reader", models["reader"], "--json"]
    for retriever in ("lexical", "hybrid", "dense"):
        capsys.readouterr()
        asked = ["ask", "What is the capital of France?", *given, "--retriever", retriever]
        assert main([*asked, "--quote"]) == 0
        value = json.loads(capsys.readouterr().out)
        assert (value["abstained"], value["answer"]) == (True, None)
        assert value["threshold"] > 0 < len(value["retrieved"])


# -- evaluate and calibrate ------------------------------------------------------------------------


def test_evaluate_squad(call, tmp_path) -> None:
    squad = write_squad(tmp_path / "small.json")
    given = ("evaluate", "--squad", squad, "--limit", 3, "--threshold", -1)
    code, out, _ = call(*given, "--json", reader=True)
    value = json.loads(out)
    assert code == 0
    assert (value["paragraphs"], value["retrieval"]["n"], value["k"]) == (4, 3, 3)
    assert set(value["retrieval"]["scores"]) == {"recall@1", "recall@5", "recall@10", "MRR@10"}
    assert value["retrieval"]["scores"]["recall@10"]["value"] == 1.0  # of four paragraphs
    assert set(value["answers"]["scores"]) == {"exact match", "F1", "abstained"}
    assert [set(p) for p in value["predictions"]] == [{"id", "answer", "exact", "f1"}] * 3
    code, out, err = call(*given, reader=True)
    assert (code, err) == (0, "")
    row = value["retrieval"]["scores"]["MRR@10"]
    assert f"MRR@10         {row['value']:.3f}   {row['low']:.3f} to {row['high']:.3f}" in out
    assert "exact match" in out


def test_evaluate_retrieval_only_needs_no_reader(call, tmp_path) -> None:
    squad = write_squad(tmp_path / "small.json")
    given = ("evaluate", "--squad", squad, "--retrieval-only", "--reader", "no-such", "--json")
    code, out, _ = call(*given)
    assert code == 0
    assert "answers" not in json.loads(out)


def test_evaluate_beir(call, tmp_path) -> None:
    folder = write_beir(tmp_path / "beir")
    code, out, _ = call("evaluate", "--beir", folder, "--json")
    value = json.loads(out)
    dense = value["retrieval"]["dense"]
    assert set(value["retrieval"]) == {"dense", "lexical", "hybrid"}
    assert (code, value["documents"], dense["n"]) == (0, 40, 9)
    assert set(dense["scores"]) == {"nDCG@10", "recall@10", "recall@100", "MRR@10"}
    assert dense["scores"]["recall@100"]["value"] == 1.0  # of 40 documents
    code, out, err = call("evaluate", "--beir", folder)
    assert (code, err) == (0, "")
    assert "nDCG@10" in out


def test_evaluate_own_questions(call, docs, tmp_path) -> None:
    mine = tmp_path / "mine.jsonl"
    mine.write_text(
        '{"question": "Who?", "documents": ["writer.txt"], "words": ["nobody"]}\n', "utf-8"
    )
    given = ("evaluate", "--questions", mine, "--docs", docs, "--threshold", -1, "--json")
    code, out, _ = call(*given, reader=True)
    value = json.loads(out)
    assert code == 0
    assert value["scores"]["answer right"]["value"] == 0.0
    assert (value["k"], value["scores"]["answer right"]["n"]) == (PASSAGES, 1)
    assert [a["question"] for a in value["answers"]] == ["Who?"]
    code, out, _ = call(*given[:-1], reader=True)
    assert re.search(r"^answer right +0\.00   0\.00 to 0\.79 +1$", out, re.M)
    with mine.open("a") as file:
        file.write('\n{"question": "Why?", "documents": ["gone.txt"], "words": ["x"]}\n')
    code, out, err = call(*given, reader=True)
    assert (code, out) == (7, "")
    assert "mine.jsonl:3: there is no document 'gone.txt' among those asked" in err
    code, _, err = call("evaluate", "--questions", mine, reader=True)
    assert code == 64
    assert "--docs or --kb" in err


def test_calibrate(call, tmp_path) -> None:
    squad = write_squad(tmp_path / "small.json")
    code, out, _ = call("calibrate", "--squad", squad, "--json")
    value = json.loads(out)
    assert code == 0
    assert value["encoder"] == "tiny-encoder"
    assert "3 questions of small.json" in value["measured_on"]  # the impossible one is left out
    assert value["command"].startswith("minirag calibrate --squad ")
    assert "--encoder" in value["command"]  # the score is another one with another encoder
    assert [len(value[key]) for key in ("right_refusals", "false_refusals")] == [3, 3]
    code, out, _ = call("calibrate", "--squad", squad)
    assert out.startswith("threshold ")


def test_what_calibrate_refuses_is_what_scores_low_without_its_article(
    call, tmp_path, monkeypatch
) -> None:
    def scores(*_, **__):
        return [0.9] * 4, [0.1] * 4  # with the article, without it

    monkeypatch.setattr("minirag.rag.evaluation.best_scores", scores)
    _, out, _ = call("calibrate", "--squad", write_squad(tmp_path / "small.json"), "--json")
    value = json.loads(out)
    assert value["threshold"] == 0.5
    assert value["right_refusals"] == list(wilson_interval(2, 2))
    assert value["false_refusals"] == list(wilson_interval(0, 2))


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["evaluate", "--squad", "none.json"], 3, "there is no file or folder none.json: check"),
        (["evaluate", "--squad", "SQUAD", "--limit", "0"], 64, "--limit is 0"),
        (["evaluate", "--beir", "none"], 3, "there is no file or folder none: check"),
        (["evaluate", "--beir", "EMPTY"], 3, "a folder in BEIR's layout holds corpus.jsonl, "),
        (["evaluate", "--squad", "SQUAD", "-k", "0", "--threshold", "-1"], 64, "k is 0"),
        (["evaluate", "--squad", "SQUAD", "--docs", "."], 64, "--docs goes with --questions"),
        (
            ["evaluate", "--beir", "none", "-k", "100"],
            64,
            "-k goes with --squad, --questions or --follow-ups",
        ),
        (["evaluate", "--beir", "none", "-k9"], 64, "--follow-ups, and not with --beir: leave it"),
        (["evaluate", "--squad", "SQUAD", "--threshold", "nan"], 64, "is no likeness"),
        (["calibrate", "--squad", "SQUAD", "--limit", "-5"], 64, "--limit is -5"),
        (["calibrate", "--squad", "SQUAD", "--limit", "1"], 64, "two questions at least"),
        (["evaluate", "--questions", "none.jsonl", "--docs", "."], 3, "folder none.jsonl: check"),
        (["finetune", "--data", "none.jsonl"], 3, "there is no file or folder none.jsonl: check"),
        (["finetune", "--data", "mine.csv"], 64, "mine.csv is no .jsonl file"),
        (["index", "EMPTY/zero.jsonl", "--out", "kb"], 3, "zero.jsonl is empty: there is nothing"),
    ],
)
def test_evaluation_mistakes_are_sentences(call, tmp_path, arguments, code, says) -> None:
    squad = str(write_squad(tmp_path / "small.json"))
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "zero.jsonl").touch()
    empty = str(tmp_path / "empty")
    given = [squad if a == "SQUAD" else a.replace("EMPTY", empty) for a in arguments]
    has_encoder = arguments[0] != "finetune"
    got, _, err = call(*given, encoder=has_encoder, reader=arguments[0] == "evaluate")
    assert got == code
    assert says in err.splitlines()[-1]


# -- models, pipes, interruptions ------------------------------------------------------------------


def test_no_model_and_no_network_is_one_sentence(call, docs, kb, cache, monkeypatch) -> None:
    """Nothing is fetched without being asked for: asking must not become a download."""

    def never(*_, **__):
        raise AssertionError("tried to fetch a model")

    monkeypatch.setattr("minirag.transformer.hub.from_hub", never)
    monkeypatch.setattr("minirag.transformer.hub.from_registry", never)
    for given in (
        ("ask", "Who?", "--docs", docs),
        ("index", docs, "--out", docs.parent / "new"),
    ):
        code, out, err = call(*given, encoder=False)
        assert (code, out) == (2, "")
        assert err.count("\n") == 1
        assert "run `minirag download all-MiniLM-L6-v2` once" in err
    code, _, err = call("ask", "Who?", "--kb", kb)  # the reader is missing
    assert code == 2
    assert "run `minirag download SmolLM2-135M-Instruct` once" in err
    assert not (docs.parent / "new").exists()


def test_models_that_are_none(call, docs, models, tmp_path) -> None:
    for name, code, says in (
        ("no-such-model", 2, "give one of all-MiniLM-L6-v2, retriever, or a directory in the hub"),
        (str(docs), 6, "holds no model"),
        (models["reader"], 6, "vectors come from an encoder"),
    ):
        got, _, err = call(
            "index", docs, "--out", tmp_path / "kb", "--encoder", name, encoder=False
        )
        assert got == code
        assert says in err


def test_a_reader_must_be_a_decoder(call, kb, models) -> None:
    code, _, err = call("ask", "Who?", "--kb", kb, "--reader", models["encoder"])
    assert code == 6
    assert "answers are written by a decoder" in err


def test_loading_a_model_does_not_import_the_compiler(models) -> None:
    """torch._dynamo takes longer to import than a model takes to load."""
    code = (
        "import sys, pathlib\n"
        "from minirag.transformer import checkpoints\n"
        "for place in sys.argv[1:]: checkpoints.load(pathlib.Path(place))\n"
        "print('torch._dynamo' in sys.modules)\n"
    )
    done = _python("-c", code, models["encoder"], models["reader"])
    assert done.stdout == "False\n", done.stderr


def test_bars_are_not_for_pipes(call, docs, tmp_path) -> None:
    for extra in ([], ["--json"]):
        _, _, err = call("index", docs, "--out", tmp_path / f"kb{len(extra)}", *extra)
        assert err == ""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
def test_a_closed_pipe_is_no_error(models, kb) -> None:
    ask_it = [sys.executable, "-m", "minirag", "ask", "Who?", "--kb", str(kb), "--explain"]
    ask_it += ["--encoder", models["encoder"], "--reader", models["reader"], "--threshold", "-1"]
    command = " ".join(f"'{part}'" for part in ask_it) + " | head -n 1; exit ${PIPESTATUS[0]}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "Broken" not in done.stderr
    assert "Traceback" not in done.stderr


def test_ctrl_c_is_a_word_and_130(call, docs, monkeypatch, tmp_path) -> None:
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints, "load", interrupted)
    code, out, err = call("index", docs, "--out", tmp_path / "kb")
    assert (code, out, err) == (130, "", "minirag: interrupted.\n")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for another process")
def test_a_real_ctrl_c(models, docs, tmp_path) -> None:
    many = tmp_path / "many.jsonl"
    words = np.random.default_rng(0).integers(0, 999, size=(2_000, 30))
    many.write_text(
        "".join(
            json.dumps({"id": str(i), "text": " ".join(f"w{n}" for n in row)}) + "\n"
            for i, row in enumerate(words.tolist())
        ),
        "utf-8",
    )
    given = ["index", str(many), "--out", str(tmp_path / "kb"), "--encoder", models["encoder"]]
    process = subprocess.Popen(
        [sys.executable, "-c", _ANNOUNCED, *given],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "encoding\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "minirag: interrupted.\n")
    assert not (tmp_path / "kb").exists()


# A shell's background jobs ignore SIGINT, and so would what they start.
_ANNOUNCED = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
from minirag.cli.main import main
from minirag.retrieval.encoder import BiEncoder
encode = BiEncoder.encode
def announcing(self, texts, *, progress=False):
    print("encoding", flush=True)
    time.sleep(30)
    return encode(self, texts, progress=progress)
BiEncoder.encode = announcing
sys.exit(main(sys.argv[1:]))
"""


# -- kb --------------------------------------------------------------------------------------------


def test_kb_info_add_remove(call, kb, tmp_path) -> None:
    code, out, _ = call("kb", "info", kb, "--json", encoder=False)
    value = json.loads(out)
    assert (code, value["n_documents"], value["n_lists"]) == (0, 3, 0)
    code, out, _ = call("kb", "info", kb, encoder=False)
    assert "3 documents" in out
    assert "all, exactly" in out

    page = tmp_path / "more" / "new.md"
    page.parent.mkdir()
    page.write_text("# Macros\n\nA macro repeats what you did.\n", "utf-8")
    code, out, _ = call("kb", "add", kb, page.parent, "--json")
    value = json.loads(out)
    assert (code, value["added"], value["changed"], value["documents"]) == (0, 1, 0, 4)
    page.write_text("# Macros\n\nA macro is a program.\n", "utf-8")
    code, out, _ = call("kb", "add", kb, page.parent, "--json")
    assert json.loads(out)["changed"] == 1
    code, out, _ = call("ask", "What is a program?", "--kb", kb, "--threshold", -1, "--json",
                        "--retriever", "lexical", reader=True)  # fmt: skip
    assert json.loads(out)["retrieved"][0]["document"] == "new.md"

    code, out, _ = call("kb", "remove", kb, "new.md", "writer.txt")
    assert (code, "2 removed" in out, "now 2 documents" in out) == (0, True, True)
    code, _, err = call("kb", "remove", kb, "calc/rows.md", "none.md")
    assert (code, "no document 'none.md'" in err) == (64, True)
    assert json.loads(call("kb", "info", kb, "--json", encoder=False)[1])["n_documents"] == 2


def test_a_knowledge_base_is_held_from_loading_to_saving(call, docs, kb, tmp_path, monkeypatch):
    """Else what another process saves in between would be lost."""
    page = tmp_path / "new.md"
    page.write_text("# Macros\n\nA macro repeats what you did.\n", "utf-8")
    load, seen = KnowledgeBase.load, []

    def somebody_else_saves(*arguments, **named):
        base = load(*arguments, **named)

        def save() -> None:
            with contextlib.suppress(errors.DiskError):
                KnowledgeBase(base.encoder).save(kb)
                seen.append("saved")

        other = threading.Thread(target=save)  # the lock is a thread's own
        other.start()
        other.join()
        seen.append("waited")
        return base

    monkeypatch.setattr(files, "PATIENCE", 0.0)
    monkeypatch.setattr(KnowledgeBase, "load", somebody_else_saves)
    for given in (
        ("add", kb, page),
        ("change", kb, "new.md", "--text", "No macro."),
        ("remove", kb, "new.md"),
    ):
        assert call("kb", *given)[0] == 0
    assert call("index", docs, "--out", kb)[0] == 0
    assert seen == ["waited"] * 4


def test_whoever_changes_a_knowledge_base_too_long_is_named(call, kb, tmp_path, monkeypatch):
    said: list[tuple[int, str, str]] = []
    monkeypatch.setattr(files, "PATIENCE", 0.0)
    other = threading.Thread(target=lambda: said.append(call("kb", "remove", kb, "writer.txt")))
    with files.locked(kb):
        other.start()
        other.join()
    ((code, out, err),) = said
    assert (code, out) == (5, "")
    assert "another process has been changing it. Wait until it has ended" in err
    code, _, err = call("kb", "info", tmp_path / "gone", encoder=False)
    assert code == 4
    assert f"there is no directory {tmp_path / 'gone'}, and so no knowledge base" in err
    (tmp_path / "empty").mkdir()
    assert "holds no knowledge base: " in call("kb", "info", tmp_path / "empty", encoder=False)[2]
    assert call("kb", "remove", tmp_path / "empty", "writer.txt")[0] == 4
    assert not list((tmp_path / "empty").iterdir())  # nothing is written where there is none


def test_kb_plot(call, docs, tmp_path) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra 'plots'")
    for n in range(40):
        (docs / f"{n}.txt").write_text(f"Page {n} is about number {n * n}.\n", "utf-8")
    call("index", docs, "--out", tmp_path / "many")
    picture = tmp_path / "kb.png"
    code, out, err = call("kb", "plot", tmp_path / "many", "--out", picture)
    assert (code, err) == (0, "")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "43 passages in 6 cells" in out
    asked = ("kb", "plot", tmp_path / "many", "--question", "Which page?", "--out", picture)
    for nprobe, share in ((1, (0, 0.9)), (6, (1, 1))):
        code, out, _ = call(*asked, "--nprobe", nprobe, "-k", 5, "--json")
        value = json.loads(out)
        assert (value["probed"], value["k"], value["own_cells"]) == (nprobe, 5, False)
        assert share[0] <= value["scanned"] <= share[1]
        assert 0 <= value["found"] <= 5
    assert value["found"] == 5  # all cells: nothing is missed
    assert 0 < value["shown"] <= 1


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["plot", "KB"], 64, "has 3 passages, too few for a picture: it takes 4 or more"),
        (["plot", "KB", "--out", "x.xyz"], 64, "--out is x.xyz: pictures are written as PNG"),
        (["plot", "KB", "--question", " "], 64, "question is empty"),
        (["plot", "KB", "--nprobe", "0"], 64, "--nprobe is 0"),
        (["plot", "KB", "-k", "0"], 64, "-k is 0"),
        (["plot", "none"], 4, "no knowledge base"),
        (["add", "KB", "none.md"], 3, "none.md"),
    ],
)
def test_kb_mistakes_are_sentences(call, kb, arguments, code, says) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra 'plots'")
    given = [str(kb) if a == "KB" else a for a in arguments]
    got, _, err = call("kb", *given)
    assert (got, says in err.splitlines()[-1]) == (code, True), err


# -- ask --quote, --retriever ----------------------------------------------------------------------


def test_a_quote_stands_in_its_document(call, kb, docs) -> None:
    given = ("ask", "What keeps a row in sight?", "--kb", kb, "--threshold", -1, "--quote")
    code, out, _ = call(*given, "--json", reader=True)
    value = json.loads(out)
    (citation,) = value["citations"]
    start, end = citation["quoted"]
    assert code == 0
    assert (docs / citation["document"]).read_text("utf-8")[start:end] == value["answer"]
    code, out, _ = call(*given, reader=True)
    assert out.splitlines()[0] == value["answer"]
    assert "word for word" in out


@pytest.mark.parametrize("retriever", ["dense", "lexical", "hybrid"])
def test_ask_with_each_retriever(call, kb, retriever) -> None:
    code, out, _ = call(
        "ask", "a page break in the writer", "--kb", kb, "--threshold", -1, "--json",
        "--retriever", retriever, reader=True,
    )  # fmt: skip
    found = [hit["document"] for hit in json.loads(out)["retrieved"]]
    assert code == 0
    assert "writer.txt" in found
