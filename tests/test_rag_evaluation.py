"""Evaluation on files small enough to count by hand, and against trec_eval itself."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from fake_encoder import HashEncoder
from test_rag_pipeline import Fixed
from tiny_models import tiny_reader

from minirag.errors import DataError, UsageError
from minirag.intervals import bootstrap_interval, wilson_interval
from minirag.metrics import mrr_at_k, ndcg_at_k, rank_by_score, recall_at_k
from minirag.rag import evaluation
from minirag.rag.evaluation import (
    beir_retrieval,
    best_scores,
    ranked_documents,
    sample_questions,
    squad_answers,
    squad_retrieval,
)
from minirag.rag.peers import peer_rankings
from minirag.rag.pipeline import Pipeline, Settings
from minirag.retrieval.bm25 import BM25
from minirag.retrieval.knowledge_base import KnowledgeBase
from minirag.retrieval.retriever import Hit
from minirag.text.datasets import read_beir, read_squad
from minirag.text.documents import Document, Passage
from minirag.transformer.generation import Sampling


def _qa(id: str, question: str, *answers: str) -> dict[str, object]:
    return {
        "id": id,
        "question": question,
        "answers": [{"text": a} for a in answers],
        "is_impossible": not answers,
    }


def write_squad(path: Path) -> Path:
    """Three articles, four paragraphs, four questions; q4 has no answer."""
    articles = {
        "Rivers": [
            ("The Volga freezes in December.", [_qa("q1", "When freezes the Volga?", "December")]),
            ("The Nile floods in June.", [_qa("q2", "When floods the Nile?", "June", "in June")]),
        ],
        "Mills": [("The old mill burned in May.", [_qa("q3", "When burned the mill?", "May")])],
        "Houses": [("A red house stands in Mayor street.", [_qa("q4", "Who built the house?")])],
    }
    data = [
        {"title": title, "paragraphs": [{"context": text, "qas": qas} for text, qas in paragraphs]}
        for title, paragraphs in articles.items()
    ]
    path.write_text(json.dumps({"version": "v2.0", "data": data}), "utf-8")
    return path


@pytest.fixture
def squad(tmp_path):
    return read_squad(write_squad(tmp_path / "small.json"))


@pytest.fixture
def base(squad):
    knowledge = KnowledgeBase(HashEncoder(dim=64))
    knowledge.update_from(squad.paragraphs)
    return knowledge


class Ranking:
    """A knowledge base that finds these paragraphs, in this order, for these questions."""

    def __init__(self, found: dict[str, list[str]]) -> None:
        self.found = found

    def search_many(self, questions, k, *, progress=False):
        return [
            [
                Hit(Passage.cut(Document(id, "text"), 0, 4, ""), 1 / place)
                for place, id in enumerate(self.found[question], start=1)
            ][:k]
            for question in questions
        ]


def test_recall_and_mrr_counted_by_hand(squad) -> None:
    """Own paragraph at places 1, 3 and 7 of documents, and not at all."""
    q1, q2, q3, q4 = (q.text for q in squad.questions)
    others = [f"other-{n}" for n in range(12)]
    ranking = Ranking(
        {
            # The same document twice counts once: what comes after it moves up.
            q1: ["Rivers-0", "Rivers-0", *others],
            q2: ["other-0", "other-0", "other-1", "Rivers-1"],
            q3: [*others[:6], "Mills-0"],
            q4: others,
        }
    )
    scores = squad_retrieval(ranking, squad.questions, seed=4).scores
    assert {name: score.value for name, score in scores.items()} == {
        "recall@1": 1 / 4,
        "recall@5": 2 / 4,
        "recall@10": 3 / 4,
        "MRR@10": pytest.approx((1 + 1 / 3 + 1 / 7) / 4),
    }
    assert scores["MRR@10"] == bootstrap_interval([1, 1 / 3, 1 / 7, 0], 4)


def test_real_search_finds_each_paragraph(base, squad) -> None:
    scores = squad_retrieval(base, squad.questions[:3]).scores
    assert scores["recall@1"].value == 1.0


def test_documents_stand_where_their_best_passage_does() -> None:
    hits = [
        Hit(Passage.cut(Document(id, "text"), 0, 4, ""), 0.5) for id in ["b", "a", "b", "c", "a"]
    ]
    assert ranked_documents(hits, 10) == ["b", "a", "c"]
    assert ranked_documents(hits, 2) == ["b", "a"]


def test_exact_match_and_f1_counted_by_hand(squad, monkeypatch) -> None:
    """Right; half right (F1 = 2·1/(2+1)); refused though there is an answer; rightly refused."""
    said = {"q1": "the December.", "q2": "late June", "q3": None, "q4": None}
    texts = {q.text: said[q.id] for q in squad.questions}

    def writes(model, prompt, tokenizer, sampling, generation):
        shown = tokenizer.decode(prompt)
        generation.text = next(answer for q, answer in texts.items() if q in shown)
        yield generation.text

    class Knows:
        def search(self, question, k):
            return Fixed(0.9 if texts[question] is not None else 0.1).hits

    monkeypatch.setattr("minirag.rag.pipeline.stream", writes)
    pipeline = Pipeline(Knows(), tiny_reader(), Settings(threshold=0.5))
    scores, predictions = squad_answers(pipeline, squad.questions, seed=2)
    assert [(p.question.id, p.text) for p in predictions] == list(said.items())
    assert [(p.exact, p.f1) for p in predictions] == [
        (1.0, 1.0),
        (0.0, pytest.approx(2 / 3)),
        (0.0, 0.0),
        (1.0, 1.0),
    ]
    assert scores.scores["exact match"] == bootstrap_interval([1, 0, 0, 1], 2)
    assert scores.scores["F1"].value == pytest.approx((1 + 2 / 3 + 0 + 1) / 4)
    assert scores.scores["abstained"].value == 0.5
    assert scores.n == 4


def test_best_scores_with_and_without_the_article(base, squad) -> None:
    questions = squad.questions
    yes, no = best_scores(base, squad, questions)
    vectors = {p.document_id: base.encoder.vector(_encoded(p)) for p in base.passages}
    for question, with_article, without in zip(questions, yes, no, strict=True):
        q = base.encoder.vector(question.text)
        cosines = {id: float(np.dot(q, v)) for id, v in vectors.items()}
        assert with_article == pytest.approx(max(cosines.values()), abs=1e-5)
        others = [c for id, c in cosines.items() if squad.article_of[id] != question.article_id]
        assert without == pytest.approx(max(others), abs=1e-5)


def _encoded(passage: Passage) -> str:
    from minirag.text.chunking import passage_text_for_encoder

    return passage_text_for_encoder(passage)


def test_one_article_alone_can_not_be_left_out(tmp_path) -> None:
    path = write_squad(tmp_path / "all.json")
    data = json.loads(path.read_text("utf-8"))
    data["data"] = data["data"][:1]
    path.write_text(json.dumps(data), "utf-8")
    squad = read_squad(path)
    base = KnowledgeBase(HashEncoder())
    base.update_from(squad.paragraphs)
    with pytest.raises(DataError, match="one article only"):
        best_scores(base, squad, squad.questions)


def test_a_sample_is_drawn_by_its_seed_in_the_files_order(squad) -> None:
    ids = [q.id for q in squad.questions]
    drawn = [q.id for q in sample_questions(squad, 2, seed=1)]
    assert drawn == [ids[i] for i in sorted(random.Random(1).sample(range(4), 2))]
    assert sample_questions(squad, None, 0) == sample_questions(squad, 99, 0) == squad.questions
    assert [q.id for q in sample_questions(squad, None, 0, answerable=True)] == ["q1", "q2", "q3"]
    for limit in (0, -5):
        with pytest.raises(UsageError, match=f"--limit is {limit}"):
            sample_questions(squad, limit, 0)


def write_beir(directory: Path, seed: int = 0, n: int = 40) -> Path:
    """Documents of random words, queries of some of them, judgments of grades 0 to 2."""
    draw = random.Random(seed)
    words = [f"w{n}" for n in range(60)]
    texts = {f"d{i}": " ".join(draw.choices(words, k=8)) for i in range(n)}
    queries = {f"q{i}": " ".join(draw.choices(words, k=3)) for i in range(9)}
    lines = ["query-id\tcorpus-id\tscore"]
    for query in queries:
        for id in draw.sample(sorted(texts), 6):
            lines.append(f"{query}\t{id}\t{draw.randint(0, 2)}")
    lines.append("none\td0\t0")  # judged, and nothing relevant: trec_eval leaves it out
    queries["none"] = "w1 w2"
    (directory / "qrels").mkdir(parents=True)
    (directory / "qrels" / "test.tsv").write_text("\n".join(lines) + "\n", "utf-8")
    for name, rows in (("corpus", texts), ("queries", queries)):
        (directory / f"{name}.jsonl").write_text(
            "".join(
                json.dumps({"_id": id, "title": "", "text": text}) + "\n"
                for id, text in rows.items()
            ),
            "utf-8",
        )
    return directory


def test_beir_equals_trec_eval(tmp_path) -> None:
    pytrec_eval = pytest.importorskip("pytrec_eval", reason="needs the extra 'peers'")
    data = read_beir(write_beir(tmp_path / "beir"))
    encoder = HashEncoder()
    ours = beir_retrieval(encoder, data)["dense"]
    vectors = {d.id: encoder.vector(d.text) for d in data.corpus}
    run = {
        query: {id: float(np.dot(encoder.vector(text), v)) for id, v in vectors.items()}
        for query, text in data.queries.items()
        if query != "none"
    }
    measures = {"ndcg_cut.10", "recall.10,100", "recip_rank"}
    qrels = {query: data.qrels[query] for query in run}
    theirs = pytrec_eval.RelevanceEvaluator(qrels, measures).evaluate(run)
    top = {
        query: dict(sorted(scores.items(), key=lambda item: -item[1])[:10])
        for query, scores in run.items()
    }
    first_ten = pytrec_eval.RelevanceEvaluator(qrels, {"recip_rank"}).evaluate(top)

    def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    expected = {
        "nDCG@10": mean([row["ndcg_cut_10"] for row in theirs.values()]),
        "recall@10": mean([row["recall_10"] for row in theirs.values()]),
        "recall@100": mean([row["recall_100"] for row in theirs.values()]),
        "MRR@10": mean([row["recip_rank"] for row in first_ten.values()]),
    }
    assert 0 < expected["nDCG@10"] < 1
    for name, value in expected.items():
        assert ours.scores[name].value == pytest.approx(value, abs=1e-6), name
    assert ours.n == len(run) == 9


def test_beir_by_hand(tmp_path) -> None:
    """One query; its two relevant documents (grades 1 and 2) come second and first of three."""
    write_beir(tmp_path / "b", n=8)
    (tmp_path / "b" / "corpus.jsonl").write_text(
        "".join(
            json.dumps({"_id": id, "title": title, "text": text}) + "\n"
            for id, title, text in (
                ("x", "mill", "burned"),
                ("y", "", "mill burned down"),
                ("z", "", "river"),
            )
        ),
        "utf-8",
    )
    (tmp_path / "b" / "queries.jsonl").write_text('{"_id": "q", "text": "mill burned"}\n', "utf-8")
    (tmp_path / "b" / "qrels" / "test.tsv").write_text(
        "query-id\tcorpus-id\tscore\nq\tx\t1\nq\ty\t2\nq\tgone\t1\n", "utf-8"
    )
    scores = beir_retrieval(HashEncoder(dim=64), read_beir(tmp_path / "b"))["dense"].scores
    best = 2 + 1 / np.log2(3) + 1 / 2  # y, x, and the one that the corpus lacks
    assert scores["nDCG@10"].value == pytest.approx((1 + 2 / np.log2(3)) / best)
    assert scores["recall@10"].value == pytest.approx(2 / 3)
    assert scores["MRR@10"].value == 1.0


def test_nothing_relevant_is_a_sentence(tmp_path) -> None:
    write_beir(tmp_path / "b")
    (tmp_path / "b" / "qrels" / "test.tsv").write_text(
        "query-id\tcorpus-id\tscore\nq1\td1\t0\n", "utf-8"
    )
    with pytest.raises(DataError, match="no query has a relevant document"):
        beir_retrieval(HashEncoder(), read_beir(tmp_path / "b"))


def test_table_and_json_say_the_same(squad, base) -> None:
    scores = squad_retrieval(base, squad.questions)
    values = scores.to_json()
    assert values["n"] == 4
    for name, row in values["scores"].items():
        line = next(line for line in scores.table().splitlines() if line.startswith(name + " "))
        assert line.split()[1:] == [
            f"{row['value']:.3f}",
            f"{row['low']:.3f}",
            "to",
            f"{row['high']:.3f}",
        ]


def test_the_whole_pipeline_on_a_file(squad, base) -> None:
    """Two runs of the same seed are equal, score by score."""
    settings = Settings(k=2, sampling=Sampling(max_new_tokens=4))
    runs = [
        squad_answers(Pipeline(base, tiny_reader(), settings), squad.questions, seed=1)
        for _ in range(2)
    ]
    assert runs[0][1] == runs[1][1]
    assert runs[0][0].scores == runs[1][0].scores


def test_beir_by_words_and_by_both(tmp_path) -> None:
    data, encoder = read_beir(write_beir(tmp_path / "beir")), HashEncoder()
    all_three = beir_retrieval(encoder, data)
    parts = all_three["dense"].seconds + all_three["lexical"].seconds
    assert all_three["hybrid"].seconds >= parts > 0  # ranked before or not, they count
    assert list(all_three) == ["dense", "lexical", "hybrid"]
    for kind, scores in all_three.items():
        assert beir_retrieval(encoder, data, kinds=[kind])[kind].scores == scores.scores
    bm25 = BM25()
    bm25.add([f"{d.title} {d.text}".strip() for d in data.corpus])
    values = []
    for query, text in data.queries.items():
        if query == "none":
            continue
        ids = bm25.search(text, 100)[1]
        values.append(recall_at_k([data.corpus[i].id for i in ids], data.qrels[query], 100))
    expected = sum(values) / len(values)
    assert all_three["lexical"].scores["recall@100"].value == pytest.approx(expected)


def test_beir_by_both_fuses_the_two_rankings(tmp_path) -> None:
    """By hand: 1 / (60 + place) of a document, added over the two rankings."""
    data, encoder = read_beir(write_beir(tmp_path / "beir")), HashEncoder()
    hybrid = beir_retrieval(encoder, data)["hybrid"].scores
    texts = [d.text for d in data.corpus]
    vectors, bm25 = encoder.encode(texts), BM25()
    bm25.add(texts)
    gains, ranks = [], []
    for query, text in data.queries.items():
        if query == "none":
            continue
        near = np.argsort(-(vectors @ encoder.vector(text)), kind="stable")
        fused: dict[str, float] = {}
        for ids in (near, bm25.search(text, 100)[1]):
            for place, i in enumerate(ids.tolist(), start=1):
                id = data.corpus[i].id
                fused[id] = fused.get(id, 0.0) + 1 / (60 + place)
        ranking = rank_by_score(fused)
        gains.append(ndcg_at_k(ranking, data.qrels[query], 10))
        ranks.append(mrr_at_k(ranking, data.qrels[query], 10))
    assert hybrid["nDCG@10"].value == pytest.approx(sum(gains) / 9)
    assert hybrid["MRR@10"].value == pytest.approx(sum(ranks) / 9)


def test_bm25s_ranks_the_same(tmp_path) -> None:
    pytest.importorskip("bm25s", reason="needs the extra 'peers'")
    data = read_beir(write_beir(tmp_path / "beir"))
    texts = [f"{d.title} {d.text}".strip() for d in data.corpus]
    queries = list(data.queries.values())
    pytest.importorskip("faiss", reason="needs the extra 'peers'")
    pytest.importorskip("sentence_transformers", reason="needs the extra 'peers'")
    theirs = list(peer_rankings(HashEncoder(), texts, queries, 100)["bm25s"]())
    bm25 = BM25()
    bm25.add(texts)
    for query, (scores, ids) in zip(queries, theirs, strict=True):
        ours = bm25.search(query, 100)
        np.testing.assert_allclose(ours[0], scores, rtol=1e-5)
        assert set(ours[1].tolist()) == set(ids.tolist())


def test_of_few_questions_all_right_is_not_certain() -> None:
    alike = {"recall@5": [1.0] * 3, "abstained": [0.0] * 3, "MRR@10": [1.0] * 3}
    intervals = evaluation._intervals(alike, seed=0)
    assert intervals["recall@5"] == wilson_interval(3, 3)
    assert intervals["abstained"] == wilson_interval(0, 3)
    assert intervals["MRR@10"] == (1, 1, 1)  # no share: nothing is known of what it could be
