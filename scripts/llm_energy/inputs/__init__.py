"""What a repeat is given: a model's files, prompts as token ids, and when requests arrive."""
