"""``minirag bench search`` and ``bench index``: our indexes beside faiss.

Both sides answer the same queries in one process, turn by turn, with the same number of threads,
so that whatever else the machine is doing hits both. A ratio is the median over the turns of their
time by ours: above 1, minirag is faster. The process is started for it, because NumPy takes its
number of threads from the environment when it is loaded.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

from minirag.errors import MiniragError, UsageError
from minirag.retrieval.vectors import Metric

Show = Callable[[str], None]


def bench_search(
    sizes: Sequence[int] = (10_000, 100_000, 1_000_000),
    dims: Sequence[int] = (128, 384),
    *,
    batches: Sequence[int] = (1, 32, 256),
    metric: Metric = "ip",
    threads: int = 1,
    avx2: bool = False,
    rounds: int = 5,
    show: Show = print,
) -> dict[str, Any]:
    """Exact search for the top 10: ``FlatIndex`` against faiss's flat index in both its modes.

    faiss compares one by one by default, and by matrix products when
    ``cvar.distance_compute_blas_threshold`` is low; the better mode is what counts.

    Parameters
    ----------
    avx2 : bool
        Limit both sides' matrix products, and faiss's own loops, to AVX2, as on most laptops.
    show : function
        Is given the table, line by line.

    Returns
    -------
    dict
        Settings, versions, and ``rows``: one per size, dimension and batch.
    """
    show(f"{'vectors':>9}{'dim':>5}{'queries':>9}{'ms':>10}{'ratio':>8}{'default':>9}{'ids':>9}")
    settings = {"sizes": list(sizes), "dims": list(dims), "batches": list(batches)}
    return _in_a_process("search", settings, metric, threads, avx2, rounds, show, _search_line)


def bench_index(
    sizes: Sequence[int] = (10_000, 100_000, 1_000_000),
    dim: int = 128,
    *,
    nprobes: Sequence[int] = (1, 4, 8, 16, 32, 64),
    queries: int = 1000,
    metric: Metric = "ip",
    threads: int = 1,
    avx2: bool = False,
    rounds: int = 5,
    show: Show = print,
) -> dict[str, Any]:
    """``IVFIndex`` against faiss's ``IndexIVFFlat``, with the same centroids: building, searching.

    Returns
    -------
    dict
        Settings, versions, and ``rows``: for each size one of the building (seconds, memory, exact
        search for comparison) and one per nprobe (latency, recall of the exact top 10).
    """
    show(f"{'vectors':>9}{'nprobe':>8}{'recall':>8}{'share':>8}{'one ms':>9}{'ratio':>7}"
         f"{'batch ms':>10}{'ratio':>7}{'big batch':>11}{'ids':>8}")  # fmt: skip
    settings = {"sizes": list(sizes), "dim": dim, "nprobes": list(nprobes), "queries": queries}
    return _in_a_process("index", settings, metric, threads, avx2, rounds, show, _index_line)


def _search_line(row: dict[str, Any]) -> str:
    return (
        f"{row['vectors']:>9}{row['dim']:>5}{row['queries']:>9}{row['ms']:>10.2f}"
        f"{_times(row, 'ratio'):>8}{_times(row, 'ratio_to_default'):>9}"
        f"{_share(row, 'equal_ids'):>9}"
    )


def _index_line(row: dict[str, Any]) -> str:
    if "train_s" in row:
        return (
            f"{row['vectors']:>9}  {row['lists']} lists, trained in {row['train_s']:.1f} s, filled "
            f"in {row['add_s']:.1f} s (ratio {_times(row, 'ratio')}), {row['megabytes']:.0f} MB; "
            f"exact search {row['exact_one_ms']:.2f} ms"
        )
    return (
        f"{row['vectors']:>9}{row['nprobe']:>8}{row['recall']:>8.3f}{row['share']:>8.3f}"
        f"{row['one_ms']:>9.3f}{_times(row, 'one_ratio'):>7}{row['batch_ms']:>10.1f}"
        f"{_times(row, 'batch_ratio'):>7}{_times(row, 'big_batch_ratio'):>11}"
        f"{_share(row, 'equal_ids'):>8}"
    )


def _times(row: dict[str, Any], key: str) -> str:
    return "-" if row.get(key) is None else f"{row[key]:.2f}x"


def _share(row: dict[str, Any], key: str) -> str:
    return "-" if row.get(key) is None else f"{100 * row[key]:.1f}%"


def _in_a_process(
    what: str,
    settings: dict[str, Any],
    metric: Metric,
    threads: int,
    avx2: bool,
    rounds: int,
    show: Show,
    line: Callable[[dict[str, Any]], str],
) -> dict[str, Any]:
    if threads < 1 or rounds < 1:
        raise UsageError(f"threads = {threads}, rounds = {rounds}: 1 is the least of both.")
    settings = {**settings, "metric": metric, "threads": threads, "rounds": rounds}
    names = ("OMP", "OPENBLAS", "MKL", "VECLIB", "BLIS")
    environment = {**os.environ, **{f"{name}_NUM_THREADS": str(threads) for name in names}}
    if avx2:
        environment |= {"OPENBLAS_CORETYPE": "Haswell", "FAISS_OPT_LEVEL": "avx2"}
    command = [sys.executable, "-m", "minirag.cli.bench_index_worker", what, json.dumps(settings)]
    rows: list[dict[str, Any]] = []
    versions: dict[str, str] = {}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, env=environment, encoding="utf-8"
    ) as process:
        assert process.stdout is not None
        for text in process.stdout:
            row = json.loads(text)
            if "numpy" in row:
                versions = row
                continue
            rows.append(row)
            show(line(row))
    if process.returncode:
        raise MiniragError(f"the measuring process ended with {process.returncode}; see above.")
    return {
        "bench": what,
        "settings": {**settings, "avx2": avx2},
        "versions": versions,
        "rows": rows,
    }
