"""The same texts and queries through sentence-transformers with faiss, and through bm25s."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from minirag.errors import ModelUnavailable
from minirag.retrieval.bm25 import BM25, words
from minirag.retrieval.ids import Ids
from minirag.retrieval.retriever import TextEncoder
from minirag.retrieval.vectors import Floats
from minirag.transformer.hub import locate

# Ranks for each query: scores (k,) and row numbers (k,), best first.
Rankings = Callable[[], Iterable[tuple[Floats, Ids]]]


def peer_rankings(
    encoder: TextEncoder, texts: Sequence[str], queries: Sequence[str], k: int
) -> dict[str, Rankings]:
    """What ranks the texts for each query, by the library's name.

    Raises
    ------
    ModelUnavailable
        If one of the libraries is not installed.
    """
    try:
        import bm25s
        import faiss
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise ModelUnavailable(
            f"{error.name} is not installed: pip install 'minirag[peers]' to compare with it."
        ) from None
    k = min(k, len(texts))

    def by_vector() -> Iterator[tuple[Floats, Ids]]:
        model = SentenceTransformer(str(locate(encoder.name).directory), device="cpu")
        index = faiss.IndexFlatIP(encoder.dim)
        index.add(model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False))
        vectors = model.encode(list(queries), normalize_embeddings=True, show_progress_bar=False)
        scores, ids = index.search(vectors, k)
        yield from zip(scores, ids, strict=True)

    def by_word() -> Iterator[tuple[Floats, Ids]]:
        ours = BM25()  # its settings
        index = bm25s.BM25(k1=ours.k1, b=ours.b, method="lucene")
        index.index([words(text) for text in texts], show_progress=False)
        for query in queries:
            ids, scores = index.retrieve([words(query)], k=k, show_progress=False)
            some = scores[0] > 0
            yield scores[0][some].astype(np.float32), ids[0][some].astype(np.int64)

    return {"sentence-transformers + faiss": by_vector, "bm25s": by_word}
