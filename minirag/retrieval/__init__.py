"""Retrieval: indexes, encoders and the knowledge base."""
