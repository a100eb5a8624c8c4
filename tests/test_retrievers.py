"""By vectors, by words, by both; on all passages or on lists: against brute force, and live."""

from __future__ import annotations

import numpy as np
import pytest
from fake_encoder import HashEncoder
from racing import searching

from minirag.errors import StoreError, UsageError
from minirag.files import load_set, save_set
from minirag.rag.pipeline import Abstention, Answer, Pipeline, Settings
from minirag.retrieval import snapshot
from minirag.retrieval.bm25 import BM25
from minirag.retrieval.flat import FlatIndex
from minirag.retrieval.ivf import IVFIndex
from minirag.retrieval.knowledge_base import RETRIEVERS, KnowledgeBase
from minirag.retrieval.snapshot_files import KIND
from minirag.text.chunking import passage_text_for_encoder
from minirag.text.documents import Document

WORDS = [f"w{i}" for i in range(300)]


def _documents(n: int, seed: int = 0) -> list[Document]:
    rng = np.random.default_rng(seed)
    return [
        Document(f"{i}.txt", f"name{i} " + " ".join(rng.choice(WORDS, 12)), f"Title {i}")
        for i in range(n)
    ]


def _base(n: int, seed: int = 0) -> KnowledgeBase:
    base = KnowledgeBase(HashEncoder())
    base.add(_documents(n, seed))
    return base


# -- by words, by both -----------------------------------------------------------------------------


def test_by_words_is_bm25_over_what_the_encoder_reads() -> None:
    base = _base(60)
    bm25 = BM25()
    bm25.add([passage_text_for_encoder(p) for p in base.passages])
    for question in ("name17", "w3 w4 w5", "Title 9", "W3, w3!"):
        scores, ids = bm25.search(question, 5)
        hits = base.lexical().search(question, 5)
        assert [h.passage for h in hits] == [base.passages[i] for i in ids]
        assert [h.score for h in hits] == scores.tolist()
        texts = [passage_text_for_encoder(h.passage) for h in hits]
        cosines = [HashEncoder().vector(text) @ HashEncoder().vector(question) for text in texts]
        assert [h.similarity for h in hits] == pytest.approx(cosines, abs=1e-6)
        assert [h.shared for h in hits] == bm25.shared(question, ids).tolist()
    assert base.lexical().search("unheard", 5) == []


@pytest.mark.parametrize("k", [1, 4, 60, 100])
def test_the_hybrid_adds_reciprocal_ranks(k) -> None:
    base = _base(60)
    question = "name17 w3 w250"
    near = [h.passage for h in base.search(question, max(k, 50))]
    worded = [h.passage for h in base.lexical().search(question, max(k, 50))]
    total: dict[str, float] = {}
    for ranking in (near, worded):
        for rank, passage in enumerate(ranking, start=1):
            total[passage.id] = total.get(passage.id, 0.0) + 1 / (60 + rank)
    hits = base.hybrid().search(question, k)
    assert len(hits) == min(k, len(total))
    assert [h.score for h in hits] == pytest.approx(sorted(total.values(), reverse=True)[:k])
    for hit in hits:
        assert hit.score == pytest.approx(total[hit.passage.id])
        text = passage_text_for_encoder(hit.passage)
        cosine = HashEncoder().vector(question) @ HashEncoder().vector(text)
        assert hit.similarity == pytest.approx(float(cosine), abs=1e-6)
    # found by vectors alone or by both: the words are counted all the same
    every = {h.passage.id: h.shared for h in base.lexical().search(question, 60)}
    assert [h.shared for h in hits] == [every.get(h.passage.id, 0.0) for h in hits]
    assert all(h.shared is None for h in base.search(question, 5))


def test_many_questions_are_as_one_by_one() -> None:
    base = _base(40)
    questions = ["name3", "w1 w2", "nothing of this"]
    for kind in RETRIEVERS:
        one = base.retriever(kind)
        assert one.search_many(questions, 6) == [one.search(q, 6) for q in questions]


def test_what_can_not_be_asked_is_refused() -> None:
    base = _base(3)
    for kind in RETRIEVERS:
        for question, k in (("", 1), (" \n", 1), ("what", 0)):
            with pytest.raises(UsageError):
                base.retriever(kind).search(question, k)
        assert KnowledgeBase(HashEncoder()).retriever(kind).search("anything", 3) == []
    with pytest.raises(UsageError, match="dense, lexical, hybrid"):
        base.retriever("psychic")


def test_words_follow_every_update() -> None:
    base = _base(20)
    assert base.lexical().search("name3", 1)[0].passage.document_id == "3.txt"
    before = base.hybrid()
    base.change(Document("3.txt", "entirely otherwise"))
    base.delete("4.txt")
    base.add([Document("new.txt", "brandnew name3")])
    assert [h.passage.document_id for h in base.lexical().search("name3", 9)] == ["new.txt"]
    assert base.lexical().search("name4", 9) == []
    assert base.lexical().search("otherwise", 9)[0].passage.document_id == "3.txt"
    fresh = KnowledgeBase(HashEncoder())
    fresh.add(base.documents)
    for question in ("name3 w5", "Title 7", "brandnew"):
        ours, theirs = (b.lexical().search(question, 50) for b in (base, fresh))
        assert {h.passage.id: h.score for h in ours} == {h.passage.id: h.score for h in theirs}
    live = base.live("hybrid")
    base.add([Document("last", "lastword")])
    assert live.search("lastword", 1)[0].passage.document_id == "last"
    # Who holds the state before goes on with it.
    assert before.search("name3", 1)[0].passage.document_id == "3.txt"


def test_a_hybrid_search_sees_one_state_while_documents_change() -> None:
    base = _base(30)
    base.hybrid()

    def fault() -> object:
        hits = base.hybrid().search("both versions", 50)
        told = {h.passage.text for h in hits if h.passage.document_id in ("a", "b")}
        return told if len(told) > 1 else None

    with searching(fault):
        for i in range(30):
            base.upsert([Document(id, f"both versions {i % 2}") for id in ("a", "b")])


def test_the_pipeline_abstains_by_cosine_whatever_ranked() -> None:
    from tiny_models import tiny_reader

    base, reader = _base(30), tiny_reader()
    nearest = base.search("name3 w1", 1)[0].score
    for threshold, kind in ((nearest - 0.01, Answer), (nearest + 0.01, Abstention)):
        settings = Settings(k=50, threshold=threshold)
        result = Pipeline(base.hybrid(), reader, settings).ask("name3 w1")
        assert isinstance(result, kind)
        if isinstance(result, Abstention):
            assert result.best_score == pytest.approx(nearest, abs=1e-6)


# -- on lists --------------------------------------------------------------------------------------


@pytest.fixture
def lists_from_2000(monkeypatch) -> None:
    """A switch that a test reaches soon."""
    suited = snapshot.suited
    monkeypatch.setattr(snapshot, "suited", lambda index: suited(index, 2000))


def test_lists_come_and_go_with_the_number_of_passages(lists_from_2000) -> None:
    documents = _documents(2100)
    base = KnowledgeBase(HashEncoder())
    base.add(documents[:1900])
    assert isinstance(base.dense().snapshot.index, FlatIndex)
    base.add(documents[1900:])
    index = base.dense().snapshot.index
    assert isinstance(index, IVFIndex)
    assert len(index.centroids) == 45  # the root of 2,100
    exact = FlatIndex(16, "ip")
    exact.add(index.get(index.ids), index.ids)
    query = HashEncoder().encode(["w1 w2"])
    for mine, theirs in zip(
        index.search(query, 20, nprobe=45), exact.search(query, 20), strict=True
    ):
        assert np.array_equal(mine, theirs)
    assert base.search("name2050 w1", 1)[0].passage.document_id  # through the lists
    base.delete([d.id for d in documents[:1000]])
    assert isinstance(base.dense().snapshot.index, IVFIndex)  # not at once
    base.delete([d.id for d in documents[1000:1200]])
    index = base.dense().snapshot.index
    assert isinstance(index, FlatIndex)
    fresh = KnowledgeBase(HashEncoder())
    fresh.add(documents[1200:])
    for question in ("name1500", "w7 w8 w9"):
        assert base.search(question, 10) == fresh.search(question, 10)


def test_lists_are_saved_and_come_back(lists_from_2000, tmp_path) -> None:
    base = _base(2100)
    base.save(tmp_path / "kb")
    assert KnowledgeBase.info(tmp_path / "kb").n_lists == 45
    loaded = KnowledgeBase.load(tmp_path / "kb", HashEncoder())
    index, before = loaded.dense().snapshot.index, base.dense().snapshot.index
    assert isinstance(index, IVFIndex)
    assert isinstance(before, IVFIndex)
    assert np.array_equal(index.centroids, before.centroids)
    for question in ("name77", "w1 w2 w3"):
        assert loaded.search(question, 10) == base.search(question, 10)
    loaded.add([Document("new", "entirely otherwise")])
    assert loaded.search("entirely otherwise", 1)[0].passage.document_id == "new"
    (centroids,) = (tmp_path / "kb").glob("centroids-*.npy")
    damaged = bytearray(centroids.read_bytes())
    damaged[-3] ^= 4
    centroids.write_bytes(damaged)
    with pytest.raises(StoreError, match="centroids"):
        KnowledgeBase.load(tmp_path / "kb", HashEncoder())


def test_lists_that_become_unequal_from_load_to_load_are_made_anew(lists_from_2000, tmp_path):
    base, place = _base(2100), tmp_path / "kb"
    before, skews = base.dense().snapshot.centroids, []
    for n in range(6):
        base.save(place)
        skews.append(KnowledgeBase.info(place).trained_skew or 0)
        base = KnowledgeBase.load(place, HashEncoder())
        base.add([Document(f"same{n}-{i}", f"one one one w{i % 3}") for i in range(200)])
    assert skews[0] == skews[1] > 1  # until then, that of the training
    assert not np.array_equal(base.dense().snapshot.centroids[: len(before)], before)


def test_a_base_that_an_earlier_version_saved_is_loaded(lists_from_2000, tmp_path) -> None:
    base = _base(2100)
    base.save(tmp_path)
    meta, paths = load_set(tmp_path, KIND)
    assert meta.pop("trained_skew") > 1
    held = {name: path.read_bytes() for name, path in paths.items()}
    save_set(
        tmp_path,
        KIND,
        {name: lambda path, data=data: path.write_bytes(data) for name, data in held.items()},
        meta,
    )
    loaded = KnowledgeBase.load(tmp_path, HashEncoder())
    assert loaded.search("name77", 10) == base.search("name77", 10)
    assert KnowledgeBase.info(tmp_path).trained_skew is None


def test_lists_are_made_anew_when_they_become_unequal(lists_from_2000, recwarn) -> None:
    base = _base(2100)
    index = base.dense().snapshot.index
    assert isinstance(index, IVFIndex)
    before = index.centroids
    base.add([Document(f"same{i}", f"one one one w{i % 3}") for i in range(1200)])
    index = base.dense().snapshot.index
    assert isinstance(index, IVFIndex)
    assert not np.array_equal(index.centroids[: len(before)], before)
    assert not index.unequal
    assert not [w for w in recwarn if "unequal" in str(w.message)]  # nothing for a user to do
