"""minirag: fine-tuning and retrieval-augmented generation, from scratch and readable."""

__version__ = "0.1.0"
