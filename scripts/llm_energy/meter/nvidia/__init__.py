"""NVIDIA GPUs: which there are, their energy counters, and their state."""
