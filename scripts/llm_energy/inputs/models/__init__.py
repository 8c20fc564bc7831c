"""The stage ``models``: a model's weights and tokenizer in one folder, whatever they come from."""
