"""Engines behind an HTTP server: its life, a client that streams, and what both count."""
