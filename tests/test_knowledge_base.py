"""The knowledge base against a dictionary and brute force; kills and damage never lose it."""

import copy
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from fake_encoder import HashEncoder
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from minirag import files
from minirag.errors import DiskError, DocumentError, StoreError, UsageError
from minirag.retrieval.knowledge_base import Changes, KnowledgeBase
from minirag.retrieval.snapshot_files import KIND
from minirag.text.chunking import chunk, passage_text_for_encoder
from minirag.text.documents import Document
from minirag.text.report import Report


def base_of(*documents, **options):
    base = KnowledgeBase(HashEncoder(), **options)
    base.add(documents)
    return base


ROWS = Document("rows.md", "# Rows\n\nFreeze the first row in the view menu.", "Rows")
BREAD = Document("bread.txt", "Bread is baked from flour and water.", "Bread", "/docs/bread.txt")


# -- searching -------------------------------------------------------------------------------------


def test_a_question_finds_the_passage_that_says_it():
    base = base_of(ROWS, BREAD)
    (hit,) = base.search("baked bread with flour?", 1)
    assert hit.passage.text == BREAD.text
    assert (hit.passage.document_id, hit.passage.heading) == ("bread.txt", "Bread")
    expected = HashEncoder().vector("baked bread with flour?") @ HashEncoder().vector(
        "Bread\n" + BREAD.text
    )
    assert hit.score == pytest.approx(expected, abs=1e-6)
    both = base.search("baked bread with flour?", 99)
    assert [h.passage.document_id for h in both] == ["bread.txt", "rows.md"]
    assert base.dense().search("baked bread with flour?", 1) == [hit]
    assert base.search_vectors(base.encoder.encode(["baked bread with flour?"]), 1) == [[hit]]
    assert base.search_many(["freeze the row", "flour"], 1) == [
        base.search("freeze the row", 1),
        base.search("flour", 1),
    ]


def test_an_empty_base_finds_nothing():
    assert KnowledgeBase(HashEncoder()).search("anything", 3) == []
    base = base_of(Document("empty.txt", "  \n"))
    assert (len(base), base.search("anything", 3)) == (1, [])


@pytest.mark.parametrize(("question", "k"), [("", 1), (" \n", 1), ("what", 0), ("what", -1)])
def test_what_can_not_be_asked_is_refused(question, k):
    with pytest.raises(UsageError):
        base_of(BREAD).search(question, k)


def test_equal_passages_come_in_the_order_of_their_arrival():
    base = base_of(*(Document(f"{n}.txt", "The same text.") for n in (3, 1, 2)))
    assert [h.passage.document_id for h in base.search("text", 3)] == ["3.txt", "1.txt", "2.txt"]
    base.change(Document("3.txt", "the same TEXT"))
    assert [h.passage.document_id for h in base.search("text", 3)] == ["1.txt", "2.txt", "3.txt"]


def test_sizes_are_the_encoder_s():
    assert KnowledgeBase(HashEncoder(max_tokens=24)).size == 24
    assert KnowledgeBase(HashEncoder(max_tokens=512)).size == 256
    with pytest.raises(UsageError, match="hash-encoder reads 24"):
        KnowledgeBase(HashEncoder(max_tokens=24), size=25)
    with pytest.raises(UsageError, match="too small"):
        KnowledgeBase(HashEncoder(), size=3)
    report = Report()
    base = KnowledgeBase(HashEncoder(), overlap=0)
    base.add([Document("a", "word " * 50, "heading " * 50)], report=report)
    assert report.count("truncated") == 1
    longest = max(len(passage_text_for_encoder(p).split()) for p in base.passages)
    assert longest == 24 - 2


# -- changing: against a dictionary ----------------------------------------------------------------

texts = st.lists(
    st.sampled_from("row column bread water fish.\n\n# Head\n\nmoon".split(" ")), max_size=60
)
documents = st.builds(
    Document,
    id=st.sampled_from(["a.md", "b.md", "c.txt", "d", "e/a.md"]),
    text=texts.map(" ".join),
    title=st.sampled_from(["", "Title"]),
    source=st.sampled_from(["", "x.md"]),
)


class AgainstADictionary(RuleBasedStateMachine):
    @initialize()
    def start(self):
        self.base, self.held = KnowledgeBase(HashEncoder()), {}
        self.saved = None

    @rule(document=documents)
    def add(self, document):
        if document.id in self.held:
            with pytest.raises(UsageError, match="already"):
                self.base.add([Document("new", "text"), document])
        else:
            changes = self.base.add([document])
            assert changes == Changes(added=1, encoded=len(self.expected_passages(document)))
            self.held[document.id] = document

    @rule(document=documents)
    def change(self, document):
        if document.id in self.held:
            self.base.change(document)
            self.held[document.id] = document
        else:
            with pytest.raises(UsageError, match="no document"):
                self.base.change(document)

    @rule(new=st.lists(documents, max_size=4, unique_by=lambda d: d.id))
    def upsert(self, new):
        changes = self.base.upsert(new)
        assert changes.added == len({d.id for d in new} - self.held.keys())
        assert changes.unchanged + changes.changed + changes.added == len(new)
        self.held |= {document.id: document for document in new}

    @rule(id=st.sampled_from(["a.md", "b.md", "c.txt", "d"]))
    def delete(self, id):
        if id in self.held:
            assert self.base.delete(id) == Changes(removed=1)
            del self.held[id]
        else:
            with pytest.raises(UsageError, match=f"no document '{id}'"):
                self.base.delete([*self.held, id])

    @rule(new=st.lists(documents, max_size=4, unique_by=lambda d: d.id))
    def update_from(self, new):
        changes = self.base.update_from(new)
        assert changes.removed == len(self.held.keys() - {d.id for d in new})
        self.held = {document.id: document for document in new}

    @rule()
    def save(self):
        self.folder = Path(self.temporary()) / "base"
        self.base.save(self.folder)
        self.saved = copy.copy(self.held)

    @rule()
    def load(self):
        if self.saved is not None:
            self.base = KnowledgeBase.load(self.folder, HashEncoder())
            self.held = copy.copy(self.saved)

    folders = None

    def temporary(self):
        import tempfile

        if self.folders is None:
            self.folders = tempfile.TemporaryDirectory()
        return self.folders.name

    def teardown(self):
        if self.folders is not None:
            self.folders.cleanup()

    def expected_passages(self, document):
        return chunk(document, self.base.encoder.tokenizer, size=24, overlap=3)

    @invariant()
    def holds_what_the_dictionary_holds(self):
        assert {d.id: d for d in self.base.documents} == self.held
        assert len(self.base) == len(self.held)
        expected = {p.id: p for d in self.held.values() for p in self.expected_passages(d)}
        assert {p.id: p for p in self.base.passages} == expected
        query = HashEncoder().vector("bread under the moon")
        scores = {
            id: float(HashEncoder().vector(passage_text_for_encoder(p)) @ query)
            for id, p in expected.items()
        }
        hits = self.base.search("bread under the moon", 4)
        best = sorted(scores.values(), reverse=True)[:4]
        assert [hit.score for hit in hits] == pytest.approx(best, abs=1e-6)
        for hit in hits:
            assert hit.score == pytest.approx(scores[hit.passage.id], abs=1e-6)
            assert hit.passage == expected[hit.passage.id]


AgainstADictionary.TestCase.settings = settings(
    max_examples=25, stateful_step_count=15, deadline=None
)
test_any_sequence_of_changes_equals_a_dictionary = AgainstADictionary.TestCase


def test_a_folder_is_encoded_where_it_changed_and_nowhere_else(tmp_path):
    for name, text in {"a.md": "# A\n\nOne.", "sub/a.md": "Two.", "b.txt": "Three."}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, "utf-8")
    base = KnowledgeBase(HashEncoder())
    assert base.update_from(tmp_path) == Changes(added=3, encoded=3)
    assert base.update_from(tmp_path) == Changes(unchanged=3)
    assert base.encoder.n_encoded == 3
    (tmp_path / "sub" / "a.md").write_text("Two, now longer.", "utf-8")
    (tmp_path / "b.txt").unlink()
    (tmp_path / "c.txt").write_text("Four.", "utf-8")
    assert base.update_from(tmp_path) == Changes(
        added=1, changed=1, removed=1, unchanged=1, encoded=2
    )
    assert {d.id for d in base.documents} == {"a.md", "sub/a.md", "c.txt"}
    moved = tmp_path.rename(tmp_path.with_name("moved"))
    assert base.update_from(moved) == Changes(unchanged=3)
    assert {Path(d.source).parts[-2] for d in base.documents if d.id != "sub/a.md"} == {"moved"}
    with pytest.raises(DocumentError):
        base.update_from(tmp_path)  # gone: no reason to forget everything
    assert len(base) == 3


def test_a_source_that_becomes_markdown_is_cut_anew():
    text = "# One\n\nText.\n\n# Two\n\nText."
    base = base_of(Document("guide", text, source="guide.txt"))
    assert [p.heading for p in base.passages] == [""]
    assert base.upsert([Document("guide", text, source="guide.md")]).changed == 1
    assert [p.heading for p in base.passages] == ["One", "Two"]


def test_a_refused_update_changes_nothing():
    base = base_of(ROWS)
    before = base.dense()

    def encode(texts, *, progress=False):
        raise RuntimeError("out of memory")

    base.encoder.encode = encode
    with pytest.raises(RuntimeError):
        base.update_from([BREAD])
    for bad in (np.zeros((1, 16), np.float32), np.full((1, 16), np.nan), np.ones((1, 3))):
        base.encoder.encode = lambda texts, bad=bad, progress=False: bad
        with pytest.raises(UsageError, match="hash-encoder made vectors"):
            base.upsert([BREAD])
    for ids in (["x", "x"], [""]):
        with pytest.raises(UsageError):
            base.upsert([BREAD, *(Document(id, "text") for id in ids)])
    assert base.dense().snapshot is before.snapshot
    assert base.documents == [ROWS]


def test_searching_while_updating_sees_before_or_after_and_never_between():
    n, encoder = 20, HashEncoder()

    def version(number):
        return [Document(f"{n}.txt", f"common text version{number} {n}") for n in range(n)]

    base = KnowledgeBase(encoder)
    base.add(version(0))
    mixed, done = [], threading.Event()

    def search():
        while not done.is_set():
            hits = base.search("common text", n)
            seen = [hit.passage.text.split()[2] for hit in hits]
            if len(seen) != n or len(set(seen)) != 1:
                mixed.append(seen)

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    old = base.dense()
    for number in range(1, 40):
        base.update_from(version(number))
    done.set()
    for thread in threads:
        thread.join()
    assert mixed == []
    assert {hit.passage.text.split()[2] for hit in old.search("common", n)} == {"version0"}
    assert {hit.passage.text.split()[2] for hit in base.search("common", n)} == {"version39"}


# -- saving ----------------------------------------------------------------------------------------

ODD = Document("odd\n\u2028id", "línea\u2028one\x85two \ud800 half\r\n😀 end", 'ti"tle', "C:\\x")


def test_what_is_loaded_is_what_was_saved_to_the_last_bit(tmp_path):
    base = base_of(ROWS, BREAD, Document("none.txt", ""), ODD, size=14, overlap=2)
    base.delete("rows.md")
    base.add([ROWS])
    for _ in range(3):
        base.save(tmp_path / "kb")
        loaded = KnowledgeBase.load(tmp_path / "kb", HashEncoder())
        assert loaded.documents == base.documents
        assert loaded.passages == base.passages
        assert (loaded.size, loaded.overlap) == (14, 2)
        assert loaded.search("bread and a row", 9) == base.search("bread and a row", 9)
        base = loaded
    left = {path.name for path in (tmp_path / "kb").iterdir()} - {files.LOCK}
    assert len(left) == len(FILES)  # the earlier saves were cleared away
    info = KnowledgeBase.info(tmp_path / "kb")
    assert (info.encoder_name, info.encoder_fingerprint) == ("hash-encoder", "words-1")
    assert (info.n_documents, info.n_passages) == (4, len(base.passages))


def test_an_empty_base_is_saved_too(tmp_path):
    KnowledgeBase(HashEncoder()).save(tmp_path)
    assert KnowledgeBase.load(tmp_path, HashEncoder()).search("what", 1) == []


def test_another_encoder_is_refused_by_name(tmp_path):
    base_of(BREAD).save(tmp_path)
    for other in (HashEncoder(fingerprint="words-2"), HashEncoder(dim=8)):
        other.name = "other-encoder"
        with pytest.raises(StoreError, match=r"hash-encoder .* other-encoder .* build it again"):
            KnowledgeBase.load(tmp_path, other)
    with pytest.raises(StoreError, match="can't be used"):
        KnowledgeBase.load(tmp_path, HashEncoder(max_tokens=20))


N_FLUSHES = 6  # five files and the manifest


@pytest.mark.parametrize("failing", range(N_FLUSHES))
def test_a_full_disk_at_any_moment_keeps_the_previous_base(tmp_path, monkeypatch, failing):
    base_of(BREAD).save(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    flush, calls = files._flush_to_disk, iter(range(99))

    def full(path):
        if next(calls) == failing:
            path.write_bytes(path.read_bytes()[:7])
            raise OSError(28, "No space left on device")
        flush(path)

    monkeypatch.setattr(files, "_flush_to_disk", full)
    with pytest.raises(DiskError, match="No space left"):
        base_of(ROWS).save(tmp_path)
    assert KnowledgeBase.load(tmp_path, HashEncoder()).documents == [BREAD]
    assert {path.name for path in tmp_path.iterdir()} == names
    base_of(ROWS).save(tmp_path)
    assert KnowledgeBase.load(tmp_path, HashEncoder()).documents == [ROWS]


KILLED = """
import os, sys
sys.path[:0] = {path!r}
from test_knowledge_base import ROWS, base_of, files
moments = 0
def at(function):
    def wrapped(*arguments, **named):
        global moments
        if moments == {moment}:
            os._exit(9)  # as a kill: nothing is cleaned up
        moments += 1
        return function(*arguments, **named)
    return wrapped
files._flush_to_disk = at(files._flush_to_disk)
files.os.replace = at(os.replace)
files._remove_strays = at(files._remove_strays)
base_of(ROWS).save({folder!r})
"""


def test_a_kill_at_any_moment_keeps_the_previous_base_or_the_new_one(tmp_path):
    base_of(BREAD).save(tmp_path)
    for moment in range(N_FLUSHES + 3):
        code = KILLED.format(moment=moment, folder=str(tmp_path), path=sys.path)
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        killed = moment < N_FLUSHES + 2
        assert run.returncode == (9 if killed else 0), run.stderr
        replaced = moment > N_FLUSHES
        expected = ROWS if replaced else BREAD
        assert KnowledgeBase.load(tmp_path, HashEncoder()).documents == [expected]
    assert len(list(tmp_path.glob("*.npy"))) == 3  # what the kills left was cleared away


FILES = ["documents", "headings", "passages", "vectors", "centroids", "manifest"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["one bit", "cut", "gone", "empty"])
def test_a_damaged_file_is_refused(tmp_path, name, damage):
    base_of(BREAD, ROWS).save(tmp_path)
    (path,) = tmp_path.glob(f"{name}*")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes({"one bit": data, "cut": data[:-5], "empty": b""}[damage])
    with pytest.raises(StoreError) as caught:
        KnowledgeBase.load(tmp_path, HashEncoder())
    assert str(tmp_path) in str(caught.value)


def bytes_writer(data):
    return lambda path: path.write_bytes(data)


def array_writer(*rows, dtype=np.int64):
    return lambda path: np.save(path, np.array(rows, dtype))


LINE = b'{"id": "a", "text": "some text", "title": "", "source": ""}'
OTHER = LINE.replace(b'"a"', b'"b"')


@pytest.mark.parametrize(
    ("name", "writer", "message"),
    [
        ("documents.jsonl", bytes_writer(b"{broken"), "documents"),
        ("documents.jsonl", bytes_writer(b"[" * 100_000), "documents"),
        ("documents.jsonl", bytes_writer(b'{"id": "a"}'), "no document"),
        ("documents.jsonl", bytes_writer(b""), "missing or doubled"),
        ("documents.jsonl", bytes_writer(LINE + b"\n" + LINE), "missing or doubled"),
        ("headings.jsonl", bytes_writer(b"7"), "a heading is no text"),
        ("headings.jsonl", bytes_writer(b""), "no document or heading"),
        ("passages.npy", array_writer([0, 0, 10, 0]), "outside its document"),
        ("passages.npy", array_writer([0, -1, 4, 0]), "outside its document"),
        ("passages.npy", array_writer([0, 4, 4, 0]), "outside its document"),
        ("passages.npy", array_writer([2, 0, 4, 0]), "no document or heading"),
        ("passages.npy", array_writer([-1, 0, 4, 0]), "no document or heading"),
        ("passages.npy", array_writer([0, 0, 4, -1]), "no document or heading"),
        ("passages.npy", array_writer([0, 0, 4, 0], [0, 0, 4, 0]), "shape"),
        ("passages.npy", array_writer([0, 0, 4, 0], dtype=object), "array"),
        ("vectors.npy", array_writer([np.nan] * 16, dtype=np.float32), "vectors"),
        ("vectors.npy", array_writer([0.25] * 8, dtype=np.float32), "shape"),
        ("vectors.npy", bytes_writer(b"\x93NUMPY"), "array"),
        ("centroids.npy", array_writer([0.25] * 16, dtype=np.float32), "shape"),
    ],
)
def test_files_that_contradict_each_other_are_refused_whatever_their_checksums(
    tmp_path, name, writer, message
):
    base_of(BREAD).save(tmp_path)
    meta = {**files.load_set(tmp_path, KIND)[0], "n_documents": 2, "n_passages": 1}
    parts = {
        "documents.jsonl": bytes_writer(LINE + b"\n" + OTHER),
        "headings.jsonl": bytes_writer(b'""'),
        "passages.npy": array_writer([0, 0, 4, 0]),
        "vectors.npy": array_writer([0.25] * 16, dtype=np.float32),
        "centroids.npy": lambda path: np.save(path, np.empty((0, 16), np.float32)),
    }
    files.save_set(tmp_path, KIND, parts, meta)
    (passage,) = KnowledgeBase.load(tmp_path, HashEncoder()).passages
    assert passage.text == "some"
    files.save_set(tmp_path, KIND, {**parts, name: writer}, meta)
    with pytest.raises(StoreError, match=message):
        KnowledgeBase.load(tmp_path, HashEncoder())


@pytest.mark.parametrize(
    "wrong",
    [{"encoder_name": 7}, {"size": None}, {"n_passages": -1}, {"dim": 10**15}, {"dim": True}],
)
def test_a_manifest_that_can_not_be_meant_is_refused(tmp_path, wrong):
    base_of(BREAD).save(tmp_path)
    meta, paths = files.load_set(tmp_path, KIND)
    parts = {name: bytes_writer(path.read_bytes()) for name, path in paths.items()}
    files.save_set(tmp_path, KIND, parts, {**meta, **wrong})
    with pytest.raises(StoreError):
        KnowledgeBase.load(tmp_path, HashEncoder())


def test_nothing_saved_is_one_sentence(tmp_path):
    for call in (KnowledgeBase.info, lambda path: KnowledgeBase.load(path, HashEncoder())):
        with pytest.raises(StoreError, match=r"there is no directory .*nowhere, and so no knowl"):
            call(tmp_path / "nowhere")


def test_neither_torch_nor_tokenizers_is_needed():
    code = "import sys, minirag.retrieval.knowledge_base; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"torch", "tokenizers", "transformers"}.isdisjoint(run.stdout.split())


def test_no_bar_where_there_is_nothing_to_do(capsys) -> None:
    base = KnowledgeBase(HashEncoder())
    base.add([Document("a", "one two")])
    capsys.readouterr()
    base.upsert([Document("a", "one two")], progress=True)
    assert capsys.readouterr().err == ""
