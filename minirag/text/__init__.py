"""Text: documents and their readers, tokenizer, chunking, the standard data formats."""
