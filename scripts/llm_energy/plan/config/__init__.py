"""Read a sweep config, check it, and say what is wrong with it."""
