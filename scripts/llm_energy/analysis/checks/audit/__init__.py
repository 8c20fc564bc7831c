"""Audit checks: are files, parts and repeats whole, and as they were when they were measured."""
