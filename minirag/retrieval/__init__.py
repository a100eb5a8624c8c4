"""Retrieval: indexes, encoders and the knowledge base.

The indexes named here need NumPy alone; encoders, which need torch, are imported from their files.
"""

from minirag.retrieval.flat import FlatIndex

__all__ = ["FlatIndex"]
