"""The way back from a table's row to its files, and the archive of a sweep."""
