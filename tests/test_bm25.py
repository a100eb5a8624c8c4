"""BM25 against its definition and against bm25s; reciprocal rank fusion."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from racing import searching

from minirag.errors import StoreError, UsageError
from minirag.files import LOCK, load_set, save_set
from minirag.retrieval import BM25, bm25, reciprocal_rank_fusion
from minirag.retrieval.bm25 import words

TEXTS = [
    "The plim of Arve is 40 mg a day.",
    "Arve is a river; the river Arve is long, and the plim of it is not known.",
    "Sorbela is made by Lumo.",
    "La dosis de Sorbela es de 5 mg al día. La dosis máxima es de 10 mg.",
    "",
    "mg mg mg mg",
]


def by_definition(texts, query, k1=1.5, b=0.75, tokenize=words):
    """The formula, word by word."""
    split = [tokenize(text) for text in texts]
    mean = sum(map(len, split)) / len(split)
    scores = []
    for own in split:
        score = 0.0
        for word in tokenize(query):
            tf, df = own.count(word), sum(word in other for other in split)
            idf = math.log(1 + (len(split) - df + 0.5) / (df + 0.5))
            score += idf * tf / (tf + k1 * (1 - b + b * len(own) / mean)) if tf else 0.0
        scores.append(score)
    return scores


@pytest.mark.parametrize(("k1", "b"), [(1.5, 0.75), (0.9, 0.4), (0.0, 0.0), (2.0, 1.0)])
@pytest.mark.parametrize(
    "query", ["plim of Arve", "MG", "dosis día sorbela", "mg mg 5", "nothing", ""]
)
def test_scores_are_the_formula(k1, b, query):
    index = BM25(k1, b)
    index.add(TEXTS)
    expected = by_definition(TEXTS, query, k1, b)
    np.testing.assert_allclose(index.scores(query), expected, rtol=1e-6)
    scores, ids = index.search(query, 3)
    order = sorted((i for i in range(6) if expected[i] > 0), key=lambda i: (-expected[i], i))[:3]
    assert ids.tolist() == order
    np.testing.assert_allclose(scores, [expected[i] for i in order], rtol=1e-6)


@pytest.mark.parametrize("query", ["plim of Arve", "dosis día sorbela", "mg mg 5", "nothing"])
def test_shared_is_the_score_in_units_of_a_word_that_one_text_has(query):
    index = BM25()
    index.add(TEXTS, range(10, 16))
    rarest = math.log(1 + (6 - 1 + 0.5) / (1 + 0.5))
    expected = [score / rarest for score in by_definition(TEXTS, query)]
    np.testing.assert_allclose(
        index.shared(query, np.array([13, 10, 15])), np.array(expected)[[3, 0, 5]], rtol=1e-6
    )
    assert index.shared(query, np.empty(0, np.int64)).shape == (0,)
    index.remove([11])
    left = TEXTS[:1] + TEXTS[2:]
    rarest = math.log(1 + (5 - 1 + 0.5) / (1 + 0.5))
    expected = [score / rarest for score in by_definition(left, query)]
    np.testing.assert_allclose(
        index.shared(query, np.array([15, 10])), np.array(expected)[[4, 0]], rtol=1e-6
    )


@pytest.mark.parametrize("n", [1, 7, 500])
def test_a_word_of_its_own_is_worth_the_same_in_any_collection(n):
    index = BM25(k1=1.5)
    index.add([f"own{i} c d e" for i in range(n)])  # all of mean length
    np.testing.assert_allclose(index.shared("own0", np.array([0])), [1 / 2.5], rtol=1e-6)


def test_equals_bm25s():
    bm25s = pytest.importorskip("bm25s", reason="compares with bm25s: pip install bm25s")
    rng = np.random.default_rng(0)
    vocabulary = [f"w{i}" for i in range(300)]
    chance = 1 / np.arange(1, 301)
    texts = [
        " ".join(rng.choice(vocabulary, rng.integers(1, 80), p=chance / chance.sum()))
        for _ in range(400)
    ]
    theirs = bm25s.BM25(k1=1.5, b=0.75, method="lucene")
    theirs.index([text.split() for text in texts], show_progress=False)
    ours = BM25()
    ours.add(texts)
    for text in texts[:60]:
        query = text.split()[:9]
        np.testing.assert_allclose(
            ours.scores(" ".join(query)), theirs.get_scores(query), rtol=1e-5, atol=1e-6
        )
        found, their_scores = theirs.retrieve([query], k=10, show_progress=False)
        scores, ids = ours.search(" ".join(query), 10)
        np.testing.assert_allclose(scores, their_scores[0], rtol=1e-5, atol=1e-6)
        assert len(set(ids.tolist()) & set(found[0].tolist())) >= 9  # equal scores, other order


def test_equal_scores_come_by_id():
    index = BM25()
    index.add(["same words"] * 50 + ["others"], ids=np.random.default_rng(1).permutation(51))
    ids = index.search("same", 60)[1]
    assert ids.tolist() == sorted(ids.tolist())
    assert len(ids) == 50
    assert index.search("same", 7)[1].tolist() == ids[:7].tolist()


def test_only_what_shares_a_word_is_found():
    index = BM25()
    assert index.search("plim", 3)[1].tolist() == []
    index.add(TEXTS)
    assert index.search("zzz", 3)[1].tolist() == []
    assert index.search("sorbela", 99)[1].tolist() == [2, 3]
    assert index.search("sorbela", 0)[1].tolist() == []
    assert index.search("sorbela", 9, allowed={3, 4, 99})[1].tolist() == [3]
    assert index.search("sorbela", 9, allowed=[])[1].tolist() == []
    assert index.search("sorbela", 9)[0].dtype == np.float32


def test_words():
    assert words("El NIÑO, la dosis: 2.5 mg/día_1") == [
        "el",
        "niño",
        "la",
        "dosis",
        "2",
        "5",
        "mg",
        "día_1",
    ]
    assert words("di\u0301a") == ["día"]  # an accent written apart


texts_of = st.lists(st.sampled_from("abcdef"), max_size=6).map(" ".join)
steps_of = st.lists(
    st.tuples(
        st.sampled_from(["add", "upsert", "upsert", "remove", "save", "copy", "search"]),
        st.dictionaries(st.integers(0, 15), texts_of, max_size=5),
    ),
    max_size=15,
)


@settings(max_examples=50, deadline=None)
@given(steps=steps_of, query=texts_of)
def test_random_operations_against_a_dictionary(steps, query, tmp_path_factory):
    index, held = BM25(), {}
    for action, texts in steps:
        ids = list(texts)
        if action == "add" and set(ids) & set(held):
            with pytest.raises(UsageError, match="already"):
                index.add(list(texts.values()), ids)
        elif action in ("add", "upsert"):
            getattr(index, action)(list(texts.values()), ids)
            held.update(texts)
        elif action == "remove" and not set(ids) <= set(held):
            with pytest.raises(UsageError, match="not in the index"):
                index.remove(ids)
        elif action == "remove":
            index.remove(ids)
            held = {id: text for id, text in held.items() if id not in texts}
        elif action == "save":
            directory = tmp_path_factory.mktemp("bm25")
            index.save(directory)
            index = BM25.load(directory)
        elif action == "copy":
            before, index = index, index.copy()
            before.add(["a a a"])
        else:
            index.search(query, 3)
    assert index.ids.tolist() == sorted(held)
    if held:
        expected = by_definition([held[id] for id in sorted(held)], query)
        np.testing.assert_allclose(index.scores(query), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("act", "sentence"),
    [
        (lambda i: i.add(["a", "b"], [7, 7]), "id 7 is given twice"),
        (lambda i: i.add(["a", "b"], [7, 1]), "id 1 is in the index already"),
        (lambda i: i.add(["a", "b"], [7]), "2 texts came with 1 ids"),
        (lambda i: i.add("a text"), "list of strings"),
        (lambda i: i.add(["a", None]), "list of strings"),
        (lambda i: i.remove([0, 99]), "id 99 is not in the index"),
        (lambda i: i.search("a", -1), "k is -1"),
        (lambda i: BM25(k1=-1), "k1 = -1"),
        (lambda i: BM25(b=1.5), "b = 1.5"),
    ],
)
def test_what_is_refused_changes_nothing(act, sentence):
    index = BM25()
    index.add(TEXTS)
    before = index.scores("the river mg")
    with pytest.raises(UsageError, match=sentence):
        act(index)
    np.testing.assert_array_equal(index.scores("the river mg"), before)
    assert index.add(["new"]).tolist() == [6]


def test_ids_do_not_come_back(tmp_path):
    index = BM25()
    index.add(TEXTS)
    index.remove([4, 5])
    index.save(tmp_path)
    assert BM25.load(tmp_path).add(["more"]).tolist() == [6]


def test_a_search_sees_the_state_before_or_after_an_update():
    index = BM25()
    index.add(["word"] * 20)

    def finds_fault():
        scores, ids = index.search("word", 50)
        return None if len(np.unique(scores)) == 1 and len(ids) == 20 else (scores, ids)

    with searching(finds_fault):
        for generation in range(60):
            index.upsert([f"word {'other ' * (generation % 5)}"] * 20, range(20))


def test_saved_words_may_be_anything(tmp_path):
    index = BM25(tokenize=lambda text: text.split("|"))
    index.add(['a "quoted" word|line\nbreak|\ud800|', "ñandú|a"])
    index.remove([1])
    index.save(tmp_path)
    loaded = BM25.load(tmp_path, tokenize=lambda text: text.split("|"))
    assert loaded.search("line\nbreak", 5)[1].tolist() == [0]
    assert loaded.search("ñandú", 5)[1].tolist() == []
    assert (loaded.k1, loaded.b) == (1.5, 0.75)


def test_any_flipped_bit_is_refused(tmp_path):
    index = BM25()
    index.add(TEXTS)
    index.save(tmp_path)
    for path in sorted(set(tmp_path.iterdir()) - {tmp_path / LOCK}):
        whole = path.read_bytes()
        for at in np.linspace(0, len(whole) - 1, 9).astype(int):
            damaged = bytearray(whole)
            damaged[at] ^= 2
            path.write_bytes(bytes(damaged))
            with pytest.raises(StoreError):
                BM25.load(tmp_path)
        path.write_bytes(whole)
    assert len(BM25.load(tmp_path)) == 6


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("terms.npy", np.full(30, 10**6, np.int32)),
        ("tf.npy", np.zeros(30, np.int32)),
        ("start.npy", np.array([0, 9, 3, 20, 25, 28, 30])),
        ("start.npy", np.arange(7)),
        ("ids.npy", np.array([5, 4, 3, 2, 1, 0])),
        ("vocabulary.json", "[1, 2]"),
        ("vocabulary.json", "{"),
        ("vocabulary.json", "[" * 100_000),
        ("count", 10**15),
        ("k1", "much"),
        ("k1", None),
        ("k1", -1.0),
    ],
)
def test_files_that_are_no_index_are_refused(tmp_path, name, content):
    index = BM25()
    index.add(TEXTS)
    index.save(tmp_path)
    meta, paths = load_set(tmp_path, bm25.KIND)
    blobs = {file: path.read_bytes() for file, path in paths.items()}
    if name in meta:
        meta[name] = content
    elif isinstance(content, str):
        blobs[name] = content.encode()
    else:
        np.save(tmp_path / "wrong.npy", content[: meta["pairs"]])
        blobs[name] = (tmp_path / "wrong.npy").read_bytes()
    writers = {file: (lambda path, b=blob: path.write_bytes(b)) for file, blob in blobs.items()}
    save_set(tmp_path, bm25.KIND, writers, json.loads(json.dumps(meta)))
    with pytest.raises(StoreError):
        BM25.load(tmp_path)


# -- fusion ----------------------------------------------------------------------------------------


def test_fusion_adds_reciprocal_ranks():
    scores, ids = reciprocal_rank_fusion([[3, 1, 2], np.array([1, 9])])
    assert ids.tolist() == [1, 3, 9, 2]
    np.testing.assert_allclose(scores, [1 / 62 + 1 / 61, 1 / 61, 1 / 62, 1 / 63], rtol=1e-6)
    assert reciprocal_rank_fusion([[3, 1, 2], [1, 9]], top=2)[1].tolist() == [1, 3]
    assert reciprocal_rank_fusion([[5, 4], [4, 5]])[1].tolist() == [4, 5]  # equal: by id
    assert reciprocal_rank_fusion([[5], [4]], k=1)[0].tolist() == [0.5, 0.5]
    assert reciprocal_rank_fusion([])[1].tolist() == []


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(0, 20), unique=True), max_size=4))
def test_fusion_by_its_definition(rankings):
    scores, ids = reciprocal_rank_fusion(rankings)
    expected = {
        id: sum(1 / (61 + ranking.index(id)) for ranking in rankings if id in ranking)
        for ranking in rankings
        for id in ranking
    }
    assert set(ids.tolist()) == set(expected)
    np.testing.assert_allclose(scores, [expected[id] for id in ids.tolist()], rtol=1e-6)
    assert np.all(np.diff(scores) <= 0)


@pytest.mark.parametrize(("rankings", "k"), [([[1, 1]], 60), ([[1]], 0), ([[-1]], 60)])
def test_fusion_refuses(rankings, k):
    with pytest.raises(UsageError):
        reciprocal_rank_fusion(rankings, k=k)
