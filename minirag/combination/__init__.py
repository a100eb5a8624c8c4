"""Fine-tuning and retrieval side by side and together: the five arms on the six slices."""
