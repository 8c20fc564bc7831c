"""What joules mean: net and gross, uncertainty, latency, and the bounds of physics."""
