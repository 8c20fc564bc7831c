"""Turn a sweep config into cells, and freeze one spec for each cell and repeat."""
