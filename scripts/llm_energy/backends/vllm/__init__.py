"""vLLM: its offline engine, with PagedAttention and continuous batching."""
