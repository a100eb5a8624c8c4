"""Retrieval: indexes, encoders and the knowledge base.

The indexes named here need NumPy alone; encoders, which need torch, are imported from their files.
"""

from minirag.retrieval.bm25 import BM25
from minirag.retrieval.flat import FlatIndex
from minirag.retrieval.fusion import reciprocal_rank_fusion
from minirag.retrieval.ivf import IndexWarning, IVFIndex
from minirag.retrieval.probing import Scan

__all__ = [
    "BM25",
    "FlatIndex",
    "IVFIndex",
    "IndexWarning",
    "Scan",
    "reciprocal_rank_fusion",
]
