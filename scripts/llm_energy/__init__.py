"""Measure what large language model inference costs in energy.

Importing this package needs the standard library only, so that every backend's environment can run
it without installing anything of ours.
"""

__version__ = "0.1.0"
