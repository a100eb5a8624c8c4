"""The picture of a knowledge base: its vectors in two dimensions, their cells, and a search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from minirag.cli.bases import check_png, counted
from minirag.errors import UsageError
from minirag.pictures import new_figure, save_png
from minirag.retrieval.flat import FlatIndex
from minirag.retrieval.ivf import IVFIndex
from minirag.retrieval.kmeans import assign
from minirag.retrieval.knowledge_base import KnowledgeBase
from minirag.retrieval.probing import Scan
from minirag.retrieval.projection import Projection

LABELLED = 4  # passages found whose names are written


def draw(
    base: KnowledgeBase, out: Path, *, question: str | None, k: int, nprobe: int | None
) -> dict[str, Any]:
    """Draw into ``out`` (PNG) and return what the picture shows, in numbers.

    Raises
    ------
    UsageError
        If matplotlib is not installed, ``out`` is no PNG, or there are too few passages.
    """
    check_png("--out", out)
    snapshot = base.dense().snapshot
    ids = list(snapshot.passages)
    if len(ids) < 4:
        raise UsageError(
            f"the knowledge base has {counted(len(ids), 'passage')}, too few for a picture: it "
            "takes 4 or more."
        )
    vectors = snapshot.index.get(ids)  # (P, D)
    own_cells = isinstance(snapshot.index, IVFIndex)
    lists = snapshot.index if isinstance(snapshot.index, IVFIndex) else _lists_over(vectors, ids)
    view = Projection.fit(vectors)
    places, centres = view(vectors), view(lists.centroids)
    cell = assign(vectors, lists.centroids, spherical=True)[0]  # (P,)
    shown: dict[str, Any] = {
        "passages": len(ids),
        "cells": len(centres),
        "own_cells": own_cells,
        "shown": float(view.shares.sum()),
    }

    figure = new_figure(8, 6.5)
    axes = figure.subplots()
    probed = np.ones(len(centres), bool)
    if question is not None:
        query = np.asarray(base.encoder.encode_questions([question]), np.float32)  # (1, D)
        nprobe = min(lists.default_nprobe() if nprobe is None else nprobe, len(centres))
        nearest = np.argsort(-(lists.centroids @ query[0]), kind="stable")[:nprobe]
        probed = np.isin(np.arange(len(centres)), nearest)
        scan = Scan()
        found = lists.search(query, min(k, len(ids)), nprobe=nprobe, scan=scan)[1][0]
        exact = FlatIndex(vectors.shape[1], "ip")
        exact.add(vectors, ids)
        wanted = exact.search(query, min(k, len(ids)))[1][0]
        shown |= {
            "probed": int(probed.sum()),
            "scanned": scan.share,
            "k": len(wanted),
            "found": len(set(found.tolist()) & set(wanted.tolist())),
        }

    def dots(rows: Any, **how: Any) -> None:
        axes.scatter(rows[:, 0], rows[:, 1], **how)

    inside = probed[cell]
    dots(places[~inside], s=6, c="lightgrey", linewidths=0)
    dots(places[inside], s=9, c=cell[inside] % 20, cmap="tab20", vmin=0, vmax=19, linewidths=0)
    dots(centres[~probed], s=18, marker="x", c="darkgrey", linewidths=0.8)
    dots(centres[probed], s=36, marker="x", c="black", label="centres of the cells")
    if question is not None:
        rows = {id: row for row, id in enumerate(ids)}
        hit = places[[rows[id] for id in found.tolist()]]
        dots(hit, s=90, facecolors="none", edgecolors="red", label="passages found")
        dots(view(query), s=160, marker="*", c="red", label="the question")
        for id, place in list(zip(found.tolist(), hit, strict=True))[:LABELLED]:
            name = snapshot.passages[id].document_id
            axes.annotate(name[-40:], place, fontsize=7, xytext=(4, 4), textcoords="offset points")
        axes.set_title(question if len(question) <= 90 else question[:87] + "...", fontsize=10)
    axes.set_xlabel(f"first principal component ({view.shares[0]:.0%} of the spread)")
    axes.set_ylabel(f"second ({view.shares[1]:.0%})")
    axes.legend(fontsize=7, loc="best")
    save_png(figure, out, 110)
    return shown


def _lists_over(vectors: Any, ids: list[int]) -> IVFIndex:
    """Cells for the picture of a base that has none: the root of its size, as IVF would make."""
    lists = IVFIndex(vectors.shape[1], "ip", nlist=max(2, int(np.sqrt(len(ids)))), warn=False)
    lists.add(vectors, ids)
    lists.train()
    return lists
