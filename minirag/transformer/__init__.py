"""A transformer by hand: one set of blocks, three assemblies (BERT-, GPT- and BART-like)."""
