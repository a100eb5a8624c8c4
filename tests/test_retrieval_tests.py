"""The test of a retriever: every rank and every number counted again by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest

from minirag.cli.main import main
from minirag.corpus.retrieval import draw_retrieval_set
from minirag.errors import UsageError
from minirag.intervals import wilson_interval
from minirag.metrics import mrr_at_k, recall_at_k
from minirag.retrieval.bm25 import BM25
from minirag.retrieval.fusion import reciprocal_rank_fusion
from minirag.retrieval.retrieval_tests import (
    Searcher,
    by_pieces,
    evaluate_retriever,
    rank_of,
    recall_and_mrr,
    table,
)
from tests.fake_encoder import HashEncoder
from tests.tiny_retriever import save_base

N = 80
ENCODER = HashEncoder(dim=24)
DATA = draw_retrieval_set("medicine", 4, N)


class _Backwards(HashEncoder):
    """Encodes questions in a way of its own, so that mixing the two up shows."""

    def encode_questions(self, questions, *, progress=False):
        return -self.encode(questions)


@pytest.mark.parametrize(("asked_in", "found_in"), [("en", "en"), ("en", "es"), ("es", "en")])
def test_ranks_are_those_of_a_full_sort(asked_in: str, found_in: str) -> None:
    places = DATA.sample(30)
    ranks = Searcher(ENCODER, DATA).ranks(places, asked_in, found_in)
    texts = DATA.passages[found_in]
    vectors = ENCODER.encode(texts)
    words = BM25()
    words.add(texts)
    for row, place in enumerate(places):
        question = DATA.question(place, asked_in)
        by_vector = np.argsort(-(vectors @ ENCODER.vector(question)), kind="stable")[:50]
        by_word = words.search(question, 50)[1]
        fused = reciprocal_rank_fusion([by_vector, by_word], 50)[1]
        for way, ranking in (("dense", by_vector), ("lexical", by_word), ("hybrid", fused)):
            found = ranking.tolist()
            assert ranks[way][row] == (found.index(place) + 1 if place in found else 0)


def test_questions_are_encoded_as_questions() -> None:
    places = DATA.sample(30)
    plain = Searcher(ENCODER, DATA, ("dense",)).ranks(places, "en", "en")
    turned = Searcher(_Backwards(dim=24), DATA, ("dense",)).ranks(places, "en", "en")
    assert set(plain) == {"dense"}
    assert (plain["dense"] > 0).mean() > (turned["dense"] > 0).mean()


def test_searching_by_words_alone_encodes_nothing() -> None:
    encoder = HashEncoder(dim=24)
    scores = evaluate_retriever(
        encoder, "law", seed=3, passages=60, questions=20, ways=("lexical",)
    )
    assert encoder.n_encoded == 0
    all_ways = evaluate_retriever(ENCODER, "law", seed=3, passages=60, questions=20)
    assert scores == [s for s in all_ways if s.way == "lexical"]


def test_scores_are_the_metrics_of_the_ranks() -> None:
    ranks = np.array([1, 3, 0, 4, 11, 2, 10, 50])
    recall, mrr = recall_and_mrr(ranks, 7)
    rankings = [[f"x{i}" for i in range(r - 1)] + ["it"] if r else ["x"] for r in ranks.tolist()]
    for k in (1, 3, 10):
        hits = [recall_at_k(ranking, ["it"], k) for ranking in rankings]
        assert recall[k] == wilson_interval(int(sum(hits)), 8)
    expected = [mrr_at_k(ranking, ["it"], 10) for ranking in rankings]
    assert mrr.value == pytest.approx(np.mean(expected))
    assert mrr.low < mrr.value < mrr.high
    assert rank_of(5, np.array([9, 5, 1])) == 2
    assert rank_of(6, np.array([9, 5, 1])) == 0


def test_names_are_told_apart_by_how_they_are_cut() -> None:
    class Letters:
        """Every letter o is a token, and nothing else."""

        n_special = 0

        def offsets(self, text):
            return [0] * text.count("o"), []

    encoder = HashEncoder()
    encoder.tokenizer = Letters()
    parts = by_pieces(encoder, DATA, "es")
    many, few = parts["many pieces"], parts["few pieces"]
    assert sorted([*many, *few]) == list(range(N))
    assert len(many) == N // 4
    names = [entity.name.es.text for entity in DATA.entities]
    share = [name.count("o") / len(name) for name in names]
    assert min(share[place] for place in many) >= max(share[place] for place in few)


def test_all_directions_ways_and_names_are_scored() -> None:
    scores = evaluate_retriever(ENCODER, "law", seed=3, passages=60, questions=20)
    rows = [(s.asked_in, s.found_in, s.names, s.way) for s in scores]
    within = [("en", "en"), ("es", "es")]
    expected = {
        (a, b, "all", way)
        for a in ("en", "es")
        for b in ("en", "es")
        for way in ("dense", "lexical", "hybrid")
    } | {
        (*pair, names, way)
        for pair in within
        for names in ("many pieces", "few pieces")
        for way in ("dense", "lexical", "hybrid")
    }
    assert len(rows) == len(expected)
    assert set(rows) == expected
    for s in scores:
        assert s.passages == 60
        assert s.n == (15 if s.names == "many pieces" else 20)  # a quarter of 60 are rare
        assert s.recall[1].value <= s.recall[3].value <= s.recall[10].value
        assert s.recall[1].value <= s.mrr.value <= s.recall[10].value
        row = s.as_json()
        assert row["recall@3"] == [round(x, 4) for x in s.recall[3]]
        line = f"{s.domain}, {s.asked_in} → {s.found_in}"
        head, values, bounds = table([s]).splitlines()
        assert values.startswith(line)
        cells = (*s.recall.values(), s.mrr)
        assert values.split()[-4:] == [f"{cell.value:.3f}" for cell in cells]
        assert bounds.split() == [f"{cell.low:.2f}–{cell.high:.2f}" for cell in cells]
        assert max(map(len, (head, values, bounds))) <= 80
    again = evaluate_retriever(ENCODER, "law", seed=3, passages=60, questions=20)
    assert again == scores
    with pytest.raises(UsageError, match="61 questions, one a passage"):
        evaluate_retriever(ENCODER, "law", seed=3, passages=60, questions=61)


def test_the_command_line_scores_any_encoder(tmp_path, capsys) -> None:
    base = str(save_base(tmp_path / "base"))
    what = ["evaluate", "--laboratory", "general", "--encoder", base, "--precision", "fp32"]
    few = ["--passages", "40", "--limit", "12", "--seed", "6"]
    assert main([*what, *few, "--json"]) == 0
    body = json.loads(capsys.readouterr().out)
    assert len(body["retrieval"]) == 24
    assert body["encoder"]["name"] == "base"
    by_way = {
        row["way"]: row["recall@1"][0]
        for row in body["retrieval"]
        if (row["asked_in"], row["found_in"], row["names"]) == ("en", "en", "all")
    }
    assert by_way["lexical"] > by_way["dense"]  # the encoder's weights are random
    assert main([*what, *few, "--retriever", "lexical"]) == 0
    said = capsys.readouterr().out
    assert "40 passages in each language, encoded by base" in said
    assert "general, es → en, lexical  " in said
    assert "dense" not in said
    assert main([*what, "--passages", "5", "--limit", "6"]) == 64
    assert "give 1 to 5 questions" in capsys.readouterr().err
