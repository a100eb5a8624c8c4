"""The benchmarks: what they report besides time, on sizes that take no time."""

from __future__ import annotations

import pytest

from minirag.cli.bench_index import bench_index, bench_search
from minirag.errors import UsageError


def test_bench_search_compares_the_same_answers():
    pytest.importorskip("faiss", reason="compares with faiss: pip install faiss-cpu")
    lines = []
    result = bench_search([700], [8], batches=[1, 5], metric="l2", rounds=2, show=lines.append)
    assert [(row["vectors"], row["dim"], row["queries"]) for row in result["rows"]] == [
        (700, 8, 1),
        (700, 8, 5),
    ]
    for row in result["rows"]:
        assert row["equal_ids"] == 1.0
        assert row["ratio"] <= row["ratio_to_default"]
        assert {name: len(s) for name, s in row["seconds"].items()} == {
            "ours": 2,
            "default": 2,
            "products": 2,
        }
    assert len(lines) == 3
    assert result["settings"]["threads"] == 1


def test_bench_index_reports_recall_and_what_was_scanned():
    pytest.importorskip("faiss", reason="compares with faiss: pip install faiss-cpu")
    lines = []
    result = bench_index([1600], 8, nprobes=[1, 40], queries=40, rounds=1, show=lines.append)
    build, one, every = result["rows"]
    assert build["lists"] == 40
    assert build["megabytes"] == pytest.approx((1600 * (32 + 8 + 4) + 40 * 32) / 1e6)
    assert 0 < one["recall"] < 1
    assert one["share"] < 0.2
    assert (every["recall"], every["share"], every["equal_ids"]) == (1.0, 1.0, 1.0)
    assert len(lines) == 4


def test_bench_refuses_no_threads():
    with pytest.raises(UsageError, match="threads = 0"):
        bench_search([10], [2], threads=0)
