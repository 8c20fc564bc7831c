"""Sensors that say how many joules an interval took, and how well that is known."""
