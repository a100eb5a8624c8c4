"""What goes wrong in real use: a sentence and an exit code, or a warning and a result; no loss."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from fake_encoder import HashEncoder, WordTokenizer
from tiny_models import save_encoder, save_reader

import minirag.files
from minirag.cli.main import main
from minirag.retrieval.knowledge_base import KnowledgeBase
from minirag.text import readers


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, str]:
    place = tmp_path_factory.mktemp("models")
    return {
        "encoder": str(save_encoder(place / "tiny-encoder", max_length=48)),
        "reader": str(save_reader(place / "tiny-reader", max_length=400)),
    }


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("MINIRAG_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def docs(tmp_path) -> Path:
    return _write(tmp_path / "docs", {"a.md": "# A\n\nThe mill burned.", "b.txt": "A river froze."})


def _write(folder: Path, files: dict[str, str | bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
    return folder


@pytest.fixture
def call(models, capsys):
    """Run a verb with the tiny models; returns its exit code, and both its outputs."""

    def run(verb: str, *arguments: object) -> tuple[int, str, str]:
        given = [verb, *map(str, arguments), "--encoder", models["encoder"]]
        if verb == "ask":
            given += ["--reader", models["reader"], "--threshold", "-1", "--max-new-tokens", "3"]
        capsys.readouterr()
        code = main(given)
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def kb(call, docs, tmp_path) -> Path:
    assert call("index", docs, "--out", tmp_path / "kb")[0] == 0
    return tmp_path / "kb"


def _is_a_sentence(code: int, out: str, err: str, expected: int, says: str) -> None:
    assert (code, out) == (expected, "")
    last = err.splitlines()[-1]
    assert last.startswith("minirag: ")
    assert says in last
    assert last.endswith(".")


# -- documents -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, "no document could be read"),
        ({"photo.jpg": b"\xff\xd8", "x.bin": b"\0"}, "2 files of other kinds"),
        ({"x.md": b"text\0\0\0text"}, "is binary"),
        ({"x.txt": "  \n\n"}, "is empty"),
    ],
)
def test_a_folder_without_documents(call, tmp_path, files, says) -> None:
    folder = _write(tmp_path / "folder", files)
    _is_a_sentence(*call("index", folder, "--out", tmp_path / "kb"), 3, says)
    assert not (tmp_path / "kb").exists()
    _is_a_sentence(*call("ask", "Who?", "--docs", folder), 3, says)


def test_documents_that_are_not_there(call, tmp_path) -> None:
    for given in (
        ("index", "nowhere", "--out", tmp_path / "kb"),
        ("ask", "?", "--docs", "nowhere"),
    ):
        _is_a_sentence(*call(*given), 3, "there is no file or folder nowhere")


def test_one_bad_file_does_not_stop_the_others(call, tmp_path, monkeypatch) -> None:
    """Binary, badly encoded, unreadable: named on stderr; the rest is indexed and can be asked."""
    folder = _write(
        tmp_path / "folder",
        {
            "bin.md": b"\0\1",
            "latin.txt": b"un caf\xe9",
            "locked.md": "no",
            "good.md": "# Good\n\nYes.",
        },
    )
    read_bytes = Path.read_bytes

    def guarded(path: Path) -> bytes:  # chmod would not stop an administrator
        if path.name == "locked.md":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", guarded)
    code, out, err = call("index", folder, "--out", tmp_path / "kb", "--json")
    assert code == 0
    assert json.loads(out)["documents"] == 2
    assert "bin.md is binary" in err
    assert "latin.txt is not valid UTF-8" in err
    assert "locked.md could not be read (Permission denied)" in err
    code, out, _ = call("ask", "café?", "--kb", tmp_path / "kb", "--json")
    texts = {hit["document"]: hit["text"] for hit in json.loads(out)["retrieved"]}
    assert texts["latin.txt"] == "un caf\N{REPLACEMENT CHARACTER}"


def test_two_files_of_one_name(call, tmp_path) -> None:
    folder = _write(tmp_path / "two", {"x/notes.md": "About mills.", "y/notes.md": "About rivers."})
    assert call("index", folder, "--out", tmp_path / "kb")[0] == 0
    _, out, _ = call("ask", "mills?", "--kb", tmp_path / "kb", "--json")
    found = {hit["document"]: hit["text"] for hit in json.loads(out)["retrieved"]}
    assert found == {"x/notes.md": "About mills.", "y/notes.md": "About rivers."}


class CheapEncoder(HashEncoder):
    """Vectors from a checksum: as fast as reading, so that a test is about everything else."""

    def __init__(self) -> None:
        super().__init__(dim=4, max_tokens=256)

    def vector(self, text: str) -> np.ndarray:
        numbers = np.frombuffer(zlib.crc32(text.encode()).to_bytes(4, "big"), np.uint8)
        vector = numbers.astype(np.float32) - 127.5
        return vector / np.linalg.norm(vector)


def _index_cheaply(monkeypatch, folder: Path, out: Path) -> int:
    def load(name, precision):
        return CheapEncoder()

    monkeypatch.setattr("minirag.cli.index.load_encoder", load)
    monkeypatch.setattr("minirag.cli.bases.load_encoder", load)
    return main(["index", str(folder), "--out", str(out), "--json"])


def _covers_all(base: KnowledgeBase) -> None:
    """Every word of every document lies in a passage."""
    for document in base.documents:
        spans = sorted((p.start, p.end) for p in base.passages if p.document_id == document.id)
        reached = 0
        for start, end in spans:
            assert not document.text[reached:start].strip() or start <= reached
            reached = max(reached, end)
        assert not document.text[reached:].strip()


def test_some_megabytes(monkeypatch, tmp_path, capsys) -> None:
    text = "\n\n".join(" ".join(f"w{n}" for n in range(i, i + 80)) for i in range(6_000))
    assert len(text) > 2_000_000
    folder = _write(tmp_path / "large", {"large.md": text})
    assert _index_cheaply(monkeypatch, folder, tmp_path / "kb") == 0
    _covers_all(KnowledgeBase.load(tmp_path / "kb", CheapEncoder()))


@pytest.mark.slow
def test_fifty_megabytes(monkeypatch, tmp_path, capsys) -> None:
    block = "\n\n".join(" ".join(f"w{n}" for n in range(i, i + 80)) for i in range(6_000))
    text = "\n\n".join([block] * (50_000_000 // len(block) + 1))
    folder = _write(tmp_path / "large", {"large.md": text})
    assert _index_cheaply(monkeypatch, folder, tmp_path / "kb") == 0
    base = KnowledgeBase.load(tmp_path / "kb", CheapEncoder())
    assert base.documents[0].text == text
    _covers_all(base)


@pytest.mark.slow
def test_twenty_thousand_small_files(monkeypatch, tmp_path, capsys) -> None:
    files = {f"{n % 100}/{n}.txt": f"Note {n} about w{n * 7}." for n in range(20_000)}
    folder = _write(tmp_path / "many", files)
    assert _index_cheaply(monkeypatch, folder, tmp_path / "kb") == 0
    assert json.loads(capsys.readouterr().out)["added"] == 20_000
    base = KnowledgeBase.load(tmp_path / "kb", CheapEncoder())
    assert {d.id: d.text for d in base.documents} == files
    (folder / "7" / "7.txt").write_text("Another note.", "utf-8")
    assert _index_cheaply(monkeypatch, folder, tmp_path / "kb") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["changed"], report["unchanged"]) == (1, 19_999)


# -- questions -------------------------------------------------------------------------------------


@pytest.mark.parametrize("question", ["", "   ", "\n"])
def test_an_empty_question(call, kb, question) -> None:
    _is_a_sentence(*call("ask", question, "--kb", kb), 64, "the question is empty")


def test_a_question_longer_than_the_readers_context(call, kb) -> None:
    got = call("ask", "why " * 600, "--kb", kb)
    _is_a_sentence(*got, 64, "they don't fit into the 400 that the model reads")


def test_a_question_longer_than_the_encoder_reads(call, kb) -> None:
    code, out, err = call("ask", "mill river " * 40, "--kb", kb, "--json")
    assert code == 0
    assert len(json.loads(out)["retrieved"]) == 2
    assert "warning: " in err
    assert "more than the 48 tokens that tiny-encoder reads" in err


def test_k_larger_than_the_collection(call, kb) -> None:
    code, out, _ = call("ask", "Who?", "--kb", kb, "-k", 1000, "--json")
    assert code == 0
    assert {hit["document"] for hit in json.loads(out)["retrieved"]} == {"a.md", "b.txt"}


@pytest.mark.parametrize("k", [0, -2])
def test_k_below_one(call, kb, k) -> None:
    _is_a_sentence(*call("ask", "Who?", "--kb", kb, "-k", k), 64, f"k is {k}")


def test_passages_that_do_not_fit_are_said(call, tmp_path) -> None:
    files = {f"{n}.txt": f"Note {n}. " + "the mill burned down " * 9 for n in range(16)}
    folder = _write(tmp_path / "long", files)
    code, _, err = call("ask", "the mill?", "--docs", folder, "-k", 16)
    assert code == 0
    assert "did not fit into the 400 tokens that tiny-reader reads" in err


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [("--max-new-tokens", "-1", "is -1: give 1"), ("--temperature", "-0.5", "-0.5; 0")],
)
def test_options_that_can_not_be_meant(kb, models, capsys, option, value, says) -> None:
    given = ["--encoder", models["encoder"], "--reader", models["reader"], option, value]
    code = main(["ask", "Who?", "--kb", str(kb), *given])
    out, err = capsys.readouterr()
    _is_a_sentence(code, out, err, 64, says)


# -- the knowledge base on disk --------------------------------------------------------------------


def _contents(kb: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in kb.iterdir()}


def _damage_middle(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


DAMAGE = {
    "a bit flipped in the vectors": lambda kb: _damage_middle(next(kb.glob("vectors-*"))),
    "a bit flipped in the documents": lambda kb: _damage_middle(next(kb.glob("documents-*"))),
    "a file cut short": lambda kb: os.truncate(next(kb.glob("passages-*")), 50),
    "a file missing": lambda kb: next(kb.glob("headings-*")).unlink(),
    "the manifest changed": lambda kb: _damage_middle(kb / "manifest.json"),
    "the manifest emptied": lambda kb: (kb / "manifest.json").write_bytes(b""),
    "the manifest no object": lambda kb: (kb / "manifest.json").write_text("[1, 2]", "utf-8"),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_knowledge_base_is_refused(call, kb, docs, damage) -> None:
    damage(kb)
    left = _contents(kb)
    _is_a_sentence(*call("ask", "Who?", "--kb", kb), 4, str(kb))
    _is_a_sentence(*call("index", docs, "--out", kb), 4, f"delete {kb} first")
    assert _contents(kb) == left  # nothing is repaired behind one's back


def test_a_knowledge_base_that_is_none(call, docs, tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    for place, says in (
        (tmp_path / "nowhere", "there is no knowledge base in"),
        (tmp_path / "empty", "there is no knowledge base in"),
        (docs / "a.md", "a.md"),
    ):
        _is_a_sentence(*call("ask", "Who?", "--kb", place), 4, says)


def test_a_damaged_cache_is_built_again(call, docs, tmp_path) -> None:
    first = json.loads(call("ask", "mill?", "--docs", docs, "--json")[1])["retrieved"]
    (cached,) = (tmp_path / "cache" / "knowledge-bases").iterdir()
    _damage_middle(next(cached.glob("vectors-*")))
    code, out, _ = call("ask", "mill?", "--docs", docs, "--json")
    assert (code, json.loads(out)["retrieved"]) == (0, first)


@pytest.mark.parametrize("nth", range(1, 6))
def test_a_full_disk_loses_nothing(call, kb, docs, monkeypatch, nth) -> None:
    """Whichever of the five files no longer fits: the previous one stays, byte by byte."""
    before = _contents(kb)
    (docs / "c.md").write_text("# C\n\nMore.", "utf-8")
    flush, calls = minirag.files._flush_to_disk, []

    def full(path: Path) -> None:
        calls.append(path)
        if len(calls) == nth:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        flush(path)

    with monkeypatch.context() as patch:
        patch.setattr(minirag.files, "_flush_to_disk", full)
        got = call("index", docs, "--out", kb)
    _is_a_sentence(*got, 5, "what was saved there before is untouched")
    assert "No space left" in got[2]
    assert _contents(kb) == before
    code, out, _ = call("index", docs, "--out", kb, "--json")
    assert (code, json.loads(out)["added"]) == (0, 1)


_KILLED = """
import os, sys
import minirag.files
from minirag.cli.main import main
flush, calls = minirag.files._flush_to_disk, []
def killed(path):
    flush(path)
    calls.append(path)
    if len(calls) == int(os.environ["NTH"]):
        os._exit(9)  # as a kill does it: nothing is cleaned up
minirag.files._flush_to_disk = killed
sys.exit(main(sys.argv[1:]))
"""


def _index_and_be_killed(models, docs: Path, kb: Path, nth: int) -> None:
    given = ["index", str(docs), "--out", str(kb), "--encoder", models["encoder"]]
    done = subprocess.run(
        [sys.executable, "-c", _KILLED, *given],
        env={**os.environ, "NTH": str(nth)},
        check=False,
        timeout=120,
    )
    assert done.returncode == 9


@pytest.mark.parametrize("nth", [2, 5])
def test_a_kill_over_an_existing_knowledge_base(call, kb, docs, models, nth) -> None:
    before = json.loads(call("ask", "mill?", "--kb", kb, "--json")[1])["retrieved"]
    (docs / "c.md").write_text("# C\n\nThe mill again.", "utf-8")
    _index_and_be_killed(models, docs, kb, nth)
    assert json.loads(call("ask", "mill?", "--kb", kb, "--json")[1])["retrieved"] == before
    code, out, _ = call("index", docs, "--out", kb, "--json")
    assert (code, json.loads(out)["added"], json.loads(out)["unchanged"]) == (0, 1, 2)
    assert len([p for p in kb.iterdir() if not p.name.startswith(".")]) == 6  # the halves are gone


def test_a_kill_of_the_first_save_can_be_repeated(call, docs, models, tmp_path) -> None:
    kb = tmp_path / "first"
    _index_and_be_killed(models, docs, kb, 3)
    assert list(kb.iterdir())
    _is_a_sentence(*call("ask", "Who?", "--kb", kb), 4, "there is no knowledge base in")
    assert call("index", docs, "--out", kb)[0] == 0
    assert call("ask", "Who?", "--kb", kb)[0] == 0


# -- the system --------------------------------------------------------------------------------


def test_no_permission_to_write(call, docs, tmp_path, monkeypatch) -> None:
    mkdir = Path.mkdir

    def refused(path: Path, *arguments, **options) -> None:
        if path.name == "kb":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        mkdir(path, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", refused)
    _is_a_sentence(*call("index", docs, "--out", tmp_path / "kb"), 5, "Permission denied")


def test_an_error_of_the_system_that_nobody_foresaw(call, docs, tmp_path, monkeypatch) -> None:
    def broken(*_, **__):
        raise OSError(errno.EIO, "Input/output error", "disk")

    monkeypatch.setattr(readers.os, "walk", broken)
    got = call("index", docs, "--out", tmp_path / "kb")
    assert got == (5, "", "minirag: disk: Input/output error.\n")


def test_too_little_memory(call, docs, tmp_path, monkeypatch) -> None:
    def broken(*_, **__):
        raise MemoryError

    monkeypatch.setattr(KnowledgeBase, "update_from", broken)
    _is_a_sentence(*call("index", docs, "--out", tmp_path / "kb"), 1, "not enough memory")


def test_the_fake_tokenizer_counts_as_the_real_ones_do() -> None:
    """The tests above with 50 MB rest on it: offsets that reproduce every word."""
    text = "w1 w2,\n\nw3"
    _, spans = WordTokenizer().offsets(text)
    assert [text[a:b] for a, b in spans] == ["w1", "w2", ",", "w3"]
