"""Retrieval: indexes, encoders and the knowledge base.

The indexes named here need NumPy alone; encoders, which need torch, are imported from their files.
"""

from minirag.retrieval.flat import FlatIndex
from minirag.retrieval.ivf import IndexWarning, IVFIndex
from minirag.retrieval.kmeans import KMeans, kmeans
from minirag.retrieval.probing import Scan

__all__ = ["FlatIndex", "IVFIndex", "IndexWarning", "KMeans", "Scan", "kmeans"]
