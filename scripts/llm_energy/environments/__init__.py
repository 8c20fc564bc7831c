"""The isolated environment of each engine: its name, its place, what is pinned in it."""
