"""The engines: each loads a model, generates, and closes; none knows anything about energy."""
