"""Compare the cells of a sweep, only where comparability allows."""
