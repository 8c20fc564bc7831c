"""The power of GPUs over time, sampled by a process of its own."""
