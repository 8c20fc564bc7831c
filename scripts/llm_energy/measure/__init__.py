"""Measure one repeat of one cell: obey the spec, hold the host, write what came of it."""
