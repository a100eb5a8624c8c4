"""Retrieval-augmented generation: retrieve, read, and cite or abstain."""
